"""What the hooks of AWS services have in common: errors in the words of this package, and images by digest."""

from __future__ import annotations

import contextlib
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import EngineUnavailableError, ImageNotFoundError, RunnerError
from airflow_mlops.hooks.connections.find import missing_connection, not_found

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ECR", "ServiceHook", "aws_errors", "check_connection", "pinned_image"]

DEFAULT_CONN_ID = "aws_default"

#: Timeouts and tries of one request: some ten seconds in all.
CONFIG = {"connect_timeout": 10, "read_timeout": 30, "retries": {"mode": "standard", "total_max_attempts": 5}}
_LOGIN = ("SignatureDoesNotMatch", "UnrecognizedClientException", "InvalidClientTokenId", "ExpiredToken")
#: A registry of Amazon's.
ECR = re.compile(r"(?P<account>\d{12})\.dkr\.ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")


@contextlib.contextmanager
def aws_errors(doing: str) -> Iterator[None]:
    """Say what failed.

    :param doing: what is done, such as ``submitting job x``.
    :raises EngineUnavailableError: AWS does not answer, or asks to be asked less.
    :raises RunnerError: it refuses.
    """
    from airflow.sdk.exceptions import AirflowNotFoundException
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    try:
        yield
    except AirflowNotFoundException as error:
        raise not_found(error, RunnerError, "aws") from error
    except ClientError as error:
        raise _refused(error.response, doing) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise RunnerError(
            f"{doing}: no credentials. Cure: put login and password into the aws connection."
        ) from error
    except BotoCoreError as error:
        raise EngineUnavailableError(f"{doing}: {error}. AWS does not answer; try again later.") from error


def check_connection(hook: Any) -> None:
    """Make sure that a hook found its connection: without it, it takes the machine's own login, of whatever account.

    :param hook: of the provider, not used yet.
    :raises EngineUnavailableError: Airflow does not answer.
    :raises RunnerError: there is no such connection, and it is no default one.
    """
    conn_id = hook.aws_conn_id
    if not conn_id or hook.conn_config:
        return
    missing = missing_connection(conn_id, RunnerError, "aws")
    if missing.retriable:
        raise EngineUnavailableError(str(missing))
    if conn_id != DEFAULT_CONN_ID:
        raise missing


class ServiceHook:
    """One service, by the amazon provider's hook, which is made when it is needed.

    :param conn_id: connection of type ``aws``.
    :param region: region, when not the connection's.
    """

    def __init__(self, conn_id: str = DEFAULT_CONN_ID, region: str | None = None) -> None:
        self.conn_id = conn_id
        self.region = region

    def provider_hook(self) -> Any:
        """Class of the provider's hook."""
        raise NotImplementedError

    @cached_property
    def hook(self) -> Any:
        """The provider's hook, with a connection that was found."""
        from botocore.config import Config

        hook = self.provider_hook()(
            aws_conn_id=self.conn_id, region_name=self.region, config=Config(**CONFIG)
        )
        check_connection(hook)
        return hook

    def client(self) -> Any:
        """boto3's client of the service."""
        return self.hook.get_conn()


def _refused(response: dict[str, Any], doing: str) -> RunnerError:
    code, words = response.get("Error", {}).get("Code", ""), response.get("Error", {}).get("Message", "")
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    text = f"{doing}: AWS answered {status} {code}: {words}"
    if status >= 500 or status == 429 or "Throttl" in code or "TooManyRequests" in code:
        return EngineUnavailableError(f"{text}. Try again later.")
    if "AccessDenied" in code or "NotAuthorized" in code:
        return RunnerError(f"{text}. Cure: give the connection's user this right.")
    if code in _LOGIN:
        return RunnerError(f"{text}. Cure: check login, password and region_name of the aws connection.")
    return RunnerError(f"{text}.")


def pinned_image(image: str, conn_id: str) -> str:
    """The image by its digest, when it lies in Amazon ECR; otherwise as it was given.

    :param image: reference, with tag or digest.
    :raises ImageNotFoundError: ECR has no such image.
    """
    registry, _, name = image.partition("/")
    found = ECR.fullmatch(registry)
    if found is None or "@" in name:
        return image
    repository, _, tag = name.partition(":")
    from airflow.providers.amazon.aws.hooks.ecr import EcrHook

    wanted = {"repositoryName": repository, "registryId": found["account"]}
    with aws_errors(f"asking for the digest of {image}"):
        hook = EcrHook(aws_conn_id=conn_id, region_name=found["region"])  # type: ignore[no-untyped-call]
        check_connection(hook)
        client = hook.get_conn()
        try:
            answer = client.describe_images(**wanted, imageIds=[{"imageTag": tag or "latest"}])
        except (
            client.exceptions.ImageNotFoundException,
            client.exceptions.RepositoryNotFoundException,
        ) as error:
            raise ImageNotFoundError(
                f"ECR has no image {image}. Cure: push it, or correct code.image."
            ) from error
    return f"{registry}/{repository}@{answer['imageDetails'][0]['imageDigest']}"
