"""Container registries: which digest is behind a tag. The HTTP API of the OCI distribution specification, version 1.1."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.request import parse_http_list, parse_keqv_list

from airflow.sdk import BaseHook

from airflow_mlops.exceptions import (
    EngineUnavailableError,
    ImageNotFoundError,
    ModelCodeUnavailableError,
    RunnerError,
)
from airflow_mlops.hooks.aws.service import ECR, check_connection
from airflow_mlops.hooks.connections.find import afind_connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp

__all__ = ["ImageName", "RegistryHook", "RegistrySession"]

_LOCAL = re.compile(r"^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$")
_MANIFESTS = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in (
        "oci.image.index.v1",
        "oci.image.manifest.v1",
        "docker.distribution.manifest.list.v2",
        "docker.distribution.manifest.v2",
    )
)
#: Seconds for one answer.
TIMEOUT = 20
#: Seconds before its end at which a token is not used any more.
_MARGIN = 30


@dataclass(frozen=True)
class ImageName:
    """An image as a registry knows it.

    :param registry: host, with port where one is said.
    :param repository: path in the registry.
    :param tag: ``latest`` where none is said.
    """

    registry: str
    repository: str
    tag: str

    @classmethod
    def parse(cls, reference: str) -> ImageName:
        """Read ``registry.example.com/team/image:tag``.

        :raises RunnerError: it names no registry, or a digest, which never changes.
        """
        host, slash, path = reference.partition("/")
        if not slash or not ("." in host or ":" in host or host == "localhost"):
            raise RunnerError(
                f"Image {reference!r} names no registry that could be asked for its digest. Cure: write it as "
                f"registry.example.com/{reference}."
            )
        if "@" in path:
            raise RunnerError(
                f"Image {reference!r} is named by its digest, behind which nothing changes. Cure: name it by a tag."
            )
        repository, _, tag = path.partition(":")
        return cls(host, repository, tag or "latest")

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}:{self.tag}"


class RegistryHook(BaseHook):
    """
    One container registry.

    Amazon's ECR is logged in to by an ``aws`` connection, all others by one of type ``docker`` (host, login,
    password), with basic or token authentication as the registry asks for. Without such a connection it is asked
    anonymously. Registries on this machine are spoken to by HTTP, all others by HTTPS.

    :param registry: host, with port where one is said.
    :param conn_id: connection of type ``docker`` or, for ECR, ``aws``.
    """

    conn_name_attr = "conn_id"
    default_conn_name = "docker_default"
    conn_type = "docker"
    hook_name = "Docker"

    def __init__(self, registry: str, conn_id: str | None = None) -> None:
        super().__init__()
        self.registry = registry
        self.conn_id = conn_id

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[RegistrySession]:
        """A session for many questions; logged in when the first one is asked."""
        import aiohttp

        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=TIMEOUT), trust_env=True
        ) as client:
            yield RegistrySession(self, client)

    @property
    def url(self) -> str:
        """Where the registry listens."""
        return f"{'http' if _LOCAL.match(self.registry) else 'https'}://{self.registry}/v2"

    async def login(self) -> tuple[tuple[str, str] | None, float]:
        """User and password, and the Unix time until which they hold.

        :raises ModelCodeUnavailableError: AWS gives no token.
        """
        if ecr := ECR.fullmatch(self.registry):
            return await asyncio.to_thread(self._ecr_login, ecr["account"], ecr["region"])
        return await self._connection_login(), float("inf")

    async def _connection_login(self) -> tuple[str, str] | None:
        if not self.conn_id:
            return None
        try:
            connection = await afind_connection(self.conn_id, ModelCodeUnavailableError, "docker")
        except ModelCodeUnavailableError as error:
            if error.retriable:
                raise
            return None  # as for an image that everybody may pull
        host = (connection.host or "").removeprefix("https://").removeprefix("http://").rstrip("/")
        host = f"{host}:{connection.port}" if connection.port else host
        # A login is for the registry that its connection names, and no other one gets to see it.
        if connection.login and host.partition("/")[0] == self.registry:
            return connection.login, connection.password or ""
        return None

    def _ecr_login(self, account: str, region: str) -> tuple[tuple[str, str], float]:
        from airflow.providers.amazon.aws.hooks.ecr import EcrHook
        from botocore.exceptions import BotoCoreError, ClientError

        hook = EcrHook(aws_conn_id=self.conn_id or "aws_default", region_name=region)  # type: ignore[no-untyped-call]
        try:
            check_connection(hook)
            given = hook.get_temporary_credentials(registry_ids=account)[0]
        except (BotoCoreError, ClientError, EngineUnavailableError) as error:
            raise ModelCodeUnavailableError(
                f"AWS gives no login to {self.registry}: {error}. Cure: connection {hook.aws_conn_id!r} needs the right "
                "ecr:GetAuthorizationToken."
            ) from error
        return (given.username, given.password), given.expires_at.timestamp()


class RegistrySession:
    """Questions to one registry over one connection pool."""

    def __init__(self, hook: RegistryHook, client: aiohttp.ClientSession) -> None:
        self._hook, self._client = hook, client
        self._login: tuple[str, str] | None = None
        self._login_until = 0.0
        #: Repository → the header that it asks for, and until when it holds.
        self._headers: dict[str, tuple[str, float]] = {}

    async def digest(self, image: ImageName) -> str:
        """The digest behind the image's tag, ``sha256:…``.

        :raises ImageNotFoundError: there is no such tag.
        :raises ModelCodeUnavailableError: the registry does not answer, refuses the login, or wants fewer questions.
        """
        import aiohttp

        url = f"{self._hook.url}/{image.repository}/manifests/{image.tag}"
        try:
            answer = await self._head(url, image.repository)
            if answer.status == 401:
                await self._authorise(image.repository, answer.headers.get("WWW-Authenticate", ""))
                answer = await self._head(url, image.repository)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ModelCodeUnavailableError(
                f"Registry {image.registry} does not answer: {type(error).__name__}: {error}."
            ) from error
        return self._digest_of(answer, image)

    async def _head(self, url: str, repository: str) -> aiohttp.ClientResponse:
        header, until = self._headers.get(repository, ("", 0.0))
        headers = {"Accept": _MANIFESTS}
        if header and time.time() < until:
            headers["Authorization"] = header
        async with self._client.head(url, headers=headers) as answer:
            return answer

    def _digest_of(self, answer: aiohttp.ClientResponse, image: ImageName) -> str:
        found = answer.headers.get("Docker-Content-Digest", "")
        if answer.status == 200 and found.startswith("sha256:"):
            return found
        if answer.status == 404:
            raise ImageNotFoundError(
                f"Registry {image.registry} has no image {image}. Cure: push it, or correct its name."
            )
        if answer.status in (401, 403):
            self._headers.pop(image.repository, None)
            # Somebody may correct the connection: it is read again for the next question.
            self._login_until = 0.0
            login = f"connection {self._hook.conn_id!r}" if self._hook.conn_id else "no connection"
            raise ModelCodeUnavailableError(
                f"Registry {image.registry} refuses to show {image} (HTTP {answer.status}, {login}). Cure: a connection "
                f"with host {image.registry} and a login that may pull it."
            )
        wait = answer.headers.get("Retry-After", "")
        wrong = ModelCodeUnavailableError(
            f"Registry {image.registry} answered HTTP {answer.status} when asked for {image}."
        )
        wrong.retry_after = float(wait) if wait.isdigit() else None
        raise wrong

    async def _authorise(self, repository: str, challenge: str) -> None:
        scheme, _, words = challenge.partition(" ")
        if self._login_until <= time.time():
            self._login, self._login_until = await self._hook.login()
        basic = f"Basic {b64encode(':'.join(self._login).encode()).decode()}" if self._login else ""
        if scheme.lower() == "basic":
            self._headers[repository] = (basic, self._login_until - _MARGIN)
        elif scheme.lower() == "bearer":
            self._headers[repository] = await self._token(
                repository, parse_keqv_list(parse_http_list(words)), basic
            )

    async def _token(self, repository: str, said: dict[str, str], basic: str) -> tuple[str, float]:
        realm = said.get("realm", "")
        if not realm.startswith(("https://", "http://" if _LOCAL.match(self._hook.registry) else "https://")):
            raise ModelCodeUnavailableError(
                f"Registry {self._hook.registry} sends logins to {realm!r}, which is no place for a password."
            )
        asked = {"scope": said.get("scope") or f"repository:{repository}:pull"}
        if service := said.get("service"):
            asked["service"] = service
        async with self._client.get(
            realm, params=asked, headers={"Authorization": basic} if basic else {}
        ) as answer:
            if answer.status != 200:
                return "", 0.0  # the registry itself says then that the login is wrong
            content: dict[str, Any] = await answer.json(content_type=None)
        token = content.get("token") or content.get("access_token") or ""
        return f"Bearer {token}", time.time() + float(content.get("expires_in") or 60) - _MARGIN
