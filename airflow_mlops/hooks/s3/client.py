"""S3 and what speaks its protocol, by Airflow's ``aws`` connection: clients, file systems, errors."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_mlops.exceptions import (
    EngineUnavailableError,
    MLOpsError,
    RunnerError,
    SourceError,
    SourceUnavailableError,
    StoreError,
    StoreUnavailableError,
)
from airflow_mlops.hooks.aws.service import check_connection
from airflow_mlops.hooks.connections.find import not_found
from airflow_mlops.hooks.s3.deadline import BoundedClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyarrow.fs import S3FileSystem

__all__ = ["S3Location", "s3_client", "s3_errors", "s3_filesystem", "s3_presigner", "split_s3"]

DEFAULT_CONN_ID = "aws_default"
#: Seconds until a connection must be there, and until a server must say something.
CONNECT_TIMEOUT, READ_TIMEOUT = 10, 30
#: Tries of one request by boto3 and by pyarrow, the waits between them growing: some ten seconds in all.
ATTEMPTS, ARROW_ATTEMPTS = 10, 5
#: Connections kept open to the server, and so the requests of one process at a time.
CONNECTIONS = 32

_UNAVAILABLE: dict[type[MLOpsError], type[MLOpsError]] = {
    StoreError: StoreUnavailableError,
    SourceError: SourceUnavailableError,
}
_DENIED = {"AccessDenied", "AllAccessDisabled", "AccountProblem", "403", "Forbidden"}
_LOGIN = {"SignatureDoesNotMatch", "InvalidAccessKeyId", "InvalidToken", "ExpiredToken", "401"}
_BUSY = {
    "SlowDown",
    "ServiceUnavailable",
    "RequestTimeout",
    "InternalError",
    "Throttling",
}


@dataclass(frozen=True)
class S3Location:
    """A bucket and a key in it, and the connection that opens it.

    :param key: key or prefix without slashes around it; empty for the whole bucket.
    """

    conn_id: str
    bucket: str
    key: str

    @property
    def url(self) -> str:
        """``s3://bucket/key``, as DuckDB, pyarrow and Feast take it."""
        return f"s3://{self.bucket}/{self.key}" if self.key else f"s3://{self.bucket}"


def split_s3(uri: str, default_conn_id: str = DEFAULT_CONN_ID) -> S3Location:
    """Take ``s3://[conn_id@]bucket/key`` apart.

    :param default_conn_id: the connection when the address names none.
    :raises SourceError: it is no such address, or holds a password.
    """
    scheme, _, rest = uri.partition("://")
    place, _, key = rest.partition("/")
    conn_id, at, bucket = place.rpartition("@")
    if ":" in conn_id:
        # The text is not repeated: what follows the colon may be a secret.
        raise SourceError(
            "an S3 address holds a login: name an Airflow connection instead, as s3://conn_id@bucket/prefix"
        )
    if scheme != "s3" or not bucket or (at and not conn_id):
        raise SourceError(
            f"{uri!r} is no S3 address: expected s3://bucket/prefix or s3://conn_id@bucket/prefix"
        )
    return S3Location(conn_id or default_conn_id, bucket, key.strip("/"))


def s3_client(conn_id: str = DEFAULT_CONN_ID, kind: type[MLOpsError] = StoreError) -> Any:
    """A boto3 client for the connection, safe to share between threads, each of whose requests has an end.

    Timeouts and retries are those of this module, or what the connection's ``config_kwargs`` says.

    :param kind: of its errors, as :func:`s3_errors` takes it.
    :raises StoreError: there is no such connection.
    """
    with s3_errors(f"opening connection {conn_id}", kind):
        return BoundedClient(_hook(conn_id).get_conn(), _UNAVAILABLE[kind])


def s3_presigner(conn_id: str = DEFAULT_CONN_ID) -> Any:
    """A boto3 client that signs addresses for others, in the way that every server and region knows.

    :raises StoreError: there is no such connection.
    """
    from botocore.config import Config

    with s3_errors(f"opening connection {conn_id}"):
        # Whoever gets the address sends the bytes alone, without a checksum of boto3's.
        return _hook(
            conn_id, Config(signature_version="s3v4", request_checksum_calculation="when_required")
        ).get_conn()


def s3_filesystem(conn_id: str = DEFAULT_CONN_ID) -> S3FileSystem:
    """File system of pyarrow with the credentials, endpoint and region of the connection.

    Temporary credentials are those of this moment: open it anew for each task.

    :raises SourceError: there is no such connection, or it holds no credentials.
    """
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    with s3_errors(f"opening connection {conn_id}", SourceError):
        hook = _hook(conn_id)
        client = hook.get_conn()
        found = hook.get_session().get_credentials()
        options: dict[str, Any] = {"anonymous": True}
        if found is not None:
            frozen = found.get_frozen_credentials()
            options = {
                "access_key": frozen.access_key,
                "secret_key": frozen.secret_key,
                "session_token": frozen.token,
            }
        if endpoint := hook.conn_config.get_service_endpoint_url("s3"):
            parts = urlsplit(endpoint)
            options |= {"scheme": parts.scheme, "endpoint_override": parts.netloc}
        if isinstance(hook.verify, str):
            options["tls_ca_file_path"] = hook.verify
        return S3FileSystem(
            region=client.meta.region_name,
            connect_timeout=CONNECT_TIMEOUT,
            request_timeout=READ_TIMEOUT,
            retry_strategy=AwsStandardS3RetryStrategy(max_attempts=ARROW_ATTEMPTS),
            **options,
        )


@contextlib.contextmanager
def s3_errors(doing: str, kind: type[MLOpsError] = StoreError) -> Iterator[None]:
    """Say what failed in the words of this package, for boto3, pyarrow and DuckDB alike.

    :param doing: what is done, such as ``reading s3://bucket/key``.
    :param kind: ``StoreError`` or ``SourceError``; when a retry may help, their retriable kind.
    """
    from airflow.sdk.exceptions import AirflowNotFoundException
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    try:
        yield
    except AirflowNotFoundException as error:
        raise not_found(error, kind, "aws") from error
    except EngineUnavailableError as error:
        raise _UNAVAILABLE[kind](f"{doing}: {error}") from error
    except RunnerError as error:
        raise kind(f"{doing}: {error}") from error
    except ClientError as error:
        raise _refused(error, doing, kind) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise kind(f"{doing}: no credentials. Put login and password into the aws connection") from error
    except BotoCoreError as error:
        raise _UNAVAILABLE[kind](f"{doing}: {error}. The server does not answer; try again later") from error
    except OSError as error:
        raise _arrow_refused(error, doing, kind) from error
    except Exception as error:
        # DuckDB hands on what pyarrow said as an error of its own.
        if "AWS Error" not in str(error):
            raise
        raise _arrow_refused(error, doing, kind) from error


def is_conflict(error: BaseException | None) -> bool:
    """Whether a conditional write may have lost against another one, or against itself repeated.

    412: the condition does not hold. 409: another write of the key ran at the same time. 404: what should be
    replaced is gone, or an upload in parts was completed before.
    """
    return _status(error) in (409, 412) or is_missing(error)


def is_missing(error: BaseException | None) -> bool:
    """Whether the object, and not its bucket, is absent."""
    return _status(error) == 404 and _code(error) != "NoSuchBucket"


def _hook(conn_id: str, more: Any = None) -> Any:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from botocore.config import Config

    own = Config(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=CONNECTIONS,
        user_agent_extra="airflow-mlops",
    )
    found = S3Hook(aws_conn_id=conn_id)
    check_connection(found)
    given = found.conn_config.botocore_config
    config = own.merge(given) if given else own
    return S3Hook(aws_conn_id=conn_id, config=config.merge(more) if more else config)


def _status(error: BaseException | None) -> int:
    response = getattr(error, "response", None) or {}
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(error: BaseException | None) -> str:
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _refused(error: Exception, doing: str, kind: type[MLOpsError]) -> MLOpsError:
    status, code = _status(error), _code(error)
    if code in _BUSY or status >= 500 or status in (409, 412, 429):
        return _UNAVAILABLE[kind](f"{doing}: the server answered {status} {code}; try again later")
    return kind(f"{doing}: the server answered {status} {code}. {_cure(code, status)}")


def _cure(code: str, status: int) -> str:
    if code == "RequestTimeTooSkewed":
        return "Set the clock of this machine"
    if code in _LOGIN:
        return "Check login and password of the aws connection"
    if code in _DENIED or status == 403:
        return "Give its user the right to do this (s3:GetObject, PutObject, DeleteObject, ListBucket)"
    if code == "NoSuchBucket" or status == 404:
        return "Check the name of the bucket; it must exist"
    if status in (301, 307, 400):
        return "Check region_name and endpoint_url of the aws connection"
    return "See the server's documentation of this code"


def _arrow_refused(error: Exception, doing: str, kind: type[MLOpsError]) -> MLOpsError:
    text = str(error).split("\n", 1)[0]
    if getattr(error, "filename", None):  # a file of this machine
        return kind(f"{doing}: {text}")
    if "ACCESS_DENIED" in text or "HTTP status 403" in text or "Forbidden" in text:
        return kind(f"{doing}: the server answered 403. {_cure('', 403)}, and check its login and password")
    if isinstance(error, FileNotFoundError) or "HTTP status 404" in text or "NO_SUCH" in text:
        return kind(f"{doing}: not found. {_cure('', 404)}, and the name of the file")
    if "AWS Error" in text or "curl" in text.lower() or isinstance(error, (ConnectionError, TimeoutError)):
        return _UNAVAILABLE[kind](f"{doing}: {text[:300]}; try again later")
    return kind(f"{doing}: {text[:300]}")
