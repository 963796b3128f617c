"""Speaks to a Docker Engine. Only this package knows ``docker`` and ``aiodocker``."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_mlops.contract.protocol.paths import CONTRACT_VERSION
from airflow_mlops.exceptions import ContractError, EngineUnavailableError, ImageNotFoundError, RunnerError
from airflow_mlops.hooks.connections.find import missing_connection
from airflow_mlops.hooks.connections.masking import hide_connection
from airflow_mlops.hooks.docker.address import EngineAddress, engine_address
from airflow_mlops.hooks.docker.images import pull_image, registry_of
from airflow_mlops.hooks.docker.ssh import forwarded
from airflow_mlops.quirks.connections import is_missing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Sequence

    from airflow_mlops.hooks.docker.session import EngineSession
    from docker import APIClient

#: Every image of model code carries it.
CONTRACT_LABEL = "ai.airflow-mlops.contract"
#: Seconds for one answer of the engine.
TIMEOUT = 60
#: Seconds for the answer that follows an upload or a removal: the engine writes or deletes gigabytes first.
LONG_TIMEOUT = 600
#: What an engine, or a proxy in front of it, answers while it is away.
AWAY = (502, 503, 504)
#: What the engine says, in part, and what a user does about it.
CURES = {
    "could not select device driver": (
        "the engine has no GPU to give. Cure: install the NVIDIA container toolkit on that machine, "
        "choose another engine, or ask for no GPU"
    ),
    "no space left on device": "Cure: free disk space on the engine's machine (docker system prune)",
    "Range of CPUs": "Cure: lower resources.cpus",
    "Minimum memory limit": "Cure: raise resources.memory",
    "memory limit": "Cure: change resources.memory",
    "executable file not found": "Cure: the image's ENTRYPOINT must exist in it",
    "No command specified": "Cure: give the image an ENTRYPOINT that takes one word (the model-code contract)",
}


@dataclass(frozen=True)
class EngineImage:
    """An image as one engine holds it.

    :param id: content id, ``sha256:…``; running by it runs exactly these bytes.
    :param digest: ``repository@sha256:…`` when a registry knows the image, else ``id``. Can be run too.
    :param labels: labels of the image.
    :param entrypoint: what takes the contract's word.
    """

    id: str
    digest: str
    labels: dict[str, str]
    entrypoint: tuple[str, ...] = ()


class DockerEngineHook(BaseHook):
    """
    Containers and images of one Docker Engine.

    :param docker_conn_id: connection of type ``docker``: its host, login and password are the registry's
        (as in the Docker provider), its extra may hold ``engine`` and TLS files. Where ``docker_default`` does
        not exist, or for an empty id, it is ``DOCKER_HOST`` or the local engine; no other name ever means that.
    """

    conn_name_attr = "docker_conn_id"
    default_conn_name = "docker_default"
    conn_type = "docker"
    hook_name = "Docker"

    def __init__(self, docker_conn_id: str | None = default_conn_name) -> None:
        super().__init__()
        self.docker_conn_id = docker_conn_id

    # Connecting --------------------------------------------------------------------------------

    @cached_property
    def address(self) -> EngineAddress:
        """Where the engine is.

        :raises EngineUnavailableError: when Airflow does not say.
        """
        if not self.docker_conn_id:
            return engine_address(None)
        try:
            return engine_address(hide_connection(self.get_connection(self.docker_conn_id)))
        except AirflowNotFoundException as error:
            return self._without_connection(error)

    async def find_address(self) -> EngineAddress:
        """As :attr:`address`, for the triggerer's event loop."""
        if "address" not in self.__dict__:
            self.__dict__["address"] = await self._found_address()
        return self.address

    async def _found_address(self) -> EngineAddress:
        if not self.docker_conn_id:
            return engine_address(None)
        try:
            return engine_address(hide_connection(await self.aget_connection(self.docker_conn_id)))
        except AirflowNotFoundException as error:
            # In a thread: the question blocks.
            return await asyncio.to_thread(self._without_connection, error)

    def _without_connection(self, error: AirflowNotFoundException) -> EngineAddress:
        """The local engine, for the default connection alone: the jobs of any other one are elsewhere."""
        name = self.docker_conn_id or ""
        if name == self.default_conn_name and is_missing(name):
            return engine_address(None)
        missing = missing_connection(name, RunnerError, "docker")
        if not missing.retriable:
            raise missing from error
        raise EngineUnavailableError(f"Where the Docker Engine is cannot be found out. {missing}") from error

    def get_conn(self) -> APIClient:
        """Client of the Docker SDK.

        :raises EngineUnavailableError: when the engine does not answer.
        """
        return self._client

    @cached_property
    def _client(self) -> APIClient:
        from docker import APIClient, TLSConfig

        class _Client(APIClient):
            # The environment's proxies and certificate authorities are for the web; with them, the requests package
            # would not look at the authority that the connection names. The asynchronous client ignores them too.
            trust_env = property(lambda _: False, lambda *_: None)

        address, tls = self.address, None
        with self._translated("answer"):
            if address.tls:
                files = address.tls
                tls = TLSConfig(client_cert=(files.certificate, files.key), ca_cert=files.ca, verify=True)
            url = forwarded(address) if address.url.startswith("ssh://") else address.url
            return _Client(base_url=url, version="auto", timeout=TIMEOUT, tls=tls or False)

    @contextlib.contextmanager
    def _translated(self, action: str) -> Iterator[None]:
        from docker.errors import APIError, DockerException
        from requests.exceptions import RequestException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except APIError as error:
            if error.status_code in AWAY:
                raise self._unavailable(error) from error
            refused = self._refused(action, str(error.explanation or error))
            # An error inside the engine may pass, unless it is one that somebody must cure.
            refused.retriable = error.status_code == 500 and not _cure(str(error.explanation))
            raise refused from error
        except (DockerException, RequestException, HTTPError, TimeoutError) as error:
            raise self._unavailable(error) from error

    def _refused(self, action: str, words: str) -> RunnerError:
        return RunnerError(
            f"Docker Engine {self.address.url} could not {action}: {words.strip()}. {_cure(words)}".strip()
        )

    def _unavailable(self, error: BaseException) -> EngineUnavailableError:
        cure = "Cure: start it, or correct DOCKER_HOST or the connection's extra"
        if "Permission denied" in str(error) or "PermissionError" in str(error):
            cure = "Cure: add the user that runs Airflow to the group of its socket (usually docker)"
        return EngineUnavailableError(f"Docker Engine {self.address.url} does not answer: {error}. {cure}.")

    # Images ------------------------------------------------------------------------------------

    def image(self, reference: str) -> EngineImage:
        """Find an image on the engine; pull it first when its name says a registry.

        A name without a registry is never looked for in a public one: somebody else could own it there.

        :raises ImageNotFoundError: when it is neither there nor to be had.
        """
        info = self._inspect_image(reference)
        if info is None and registry_of(reference):
            self.log.info("Pulling %s", reference)
            client = self.get_conn()
            with self._translated(f"pull {reference!r}"):
                pull_image(client, self.address, reference, self.docker_conn_id)
            info = self._inspect_image(reference)
        if info is None:
            raise ImageNotFoundError(
                f"Image {reference!r} is not on the Docker Engine {self.address.url}. Cure: build it there "
                f"(docker build -t {reference} …), or name its registry (registry.example.com/{reference})."
            )
        repository = _repository(reference)
        digests = [digest for digest in info.get("RepoDigests") or [] if _repository(digest) == repository]
        return EngineImage(
            id=info["Id"],
            digest=reference if "@" in reference else (digests[0] if digests else info["Id"]),
            labels=dict((info.get("Config") or {}).get("Labels") or {}),
            entrypoint=tuple((info.get("Config") or {}).get("Entrypoint") or ()),
        )

    def model_code_image(self, reference: str) -> EngineImage:
        """As :meth:`image`, and the image must say that it keeps the model-code contract.

        :raises ContractError: when it lacks the label, or has it for another version, or no entrypoint.
        """
        image = self.image(reference)
        version = image.labels.get(CONTRACT_LABEL)
        if version != str(CONTRACT_VERSION):
            found = f"has {version!r}" if version else "has no such label"
            raise ContractError(
                f"Image {reference!r} must carry the label {CONTRACT_LABEL}={CONTRACT_VERSION}; it {found}. Cure: "
                f"when it keeps the model-code contract, add 'LABEL {CONTRACT_LABEL}={CONTRACT_VERSION}' to its "
                "Dockerfile and build it again."
            )
        if not image.entrypoint:
            raise ContractError(
                f"Image {reference!r} has no ENTRYPOINT, so that nothing takes the contract's word. Cure: add one to its "
                'Dockerfile, as ENTRYPOINT ["python", "-m", "my_model"].'
            )
        return image

    def _inspect_image(self, reference: str) -> dict[str, Any] | None:
        from docker.errors import NotFound

        client: Any = self.get_conn()
        with self._translated(f"inspect image {reference!r}"):
            try:
                return dict(client.inspect_image(reference))
            except NotFound:
                return None

    # Containers --------------------------------------------------------------------------------

    def create(self, name: str, config: dict[str, Any]) -> str:
        """Create a container; its id, or nothing when the name is taken.

        :param config: body of the engine's ``POST /containers/create``.
        """
        from docker.errors import APIError

        client: Any = self.get_conn()
        with self._translated(f"create container {name}"):
            try:
                return str(client.create_container_from_config(config, name)["Id"])
            except APIError as error:
                if error.status_code == 409:
                    return ""
                raise

    def start(self, name: str) -> None:
        """Start a container; no error when it runs already."""
        client = self.get_conn()
        with self._translated(f"start container {name}"):
            client.start(name)

    def inspect(self, name: str) -> dict[str, Any] | None:
        """What the engine knows of a container; ``None`` when there is none."""
        from docker.errors import NotFound

        client = self.get_conn()
        with self._translated(f"inspect container {name}"):
            try:
                return dict(client.inspect_container(name))
            except NotFound:
                return None

    def written(self, name: str) -> int | None:
        """Bytes that a container has written: its layer, and the volumes that it may write to; ``None`` when it is gone.

        The engine measures it file by file, whatever its storage driver is.
        """
        client: Any = self.get_conn()
        with self._translated(f"measure container {name}"):
            found = client.containers(all=True, size=True, filters={"name": f"^/{name}$"})
            if not found:
                return None
            volumes = {
                mount.get("Name")
                for mount in found[0].get("Mounts") or ()
                if mount.get("Type") == "volume" and mount.get("RW")
            }
            known = (client.df().get("Volumes") or ()) if volumes else ()
            sizes = [
                (each.get("UsageData") or {}).get("Size") or 0 for each in known if each["Name"] in volumes
            ]
            return int(found[0].get("SizeRw") or 0) + sum(max(0, int(size)) for size in sizes)

    def containers(self, labels: Sequence[str]) -> list[dict[str, Any]]:
        """What the engine lists of all containers, running or not, that have all of these labels.

        :param labels: ``name`` or ``name=value``.
        """
        client = self.get_conn()
        with self._translated("list containers"):
            return [dict(each) for each in client.containers(all=True, filters={"label": list(labels)})]

    def info(self) -> dict[str, Any]:
        """What the engine says of itself and its machine."""
        client = self.get_conn()
        with self._translated("tell about itself"):
            return dict(client.info())

    def output(self, name: str) -> str:
        """All that a short container has printed."""
        client: Any = self.get_conn()
        with self._translated(f"read what container {name} printed"):
            return bytes(client.logs(name)).decode(errors="replace")

    def put(self, name: str, archive: Iterable[bytes]) -> None:
        """Unpack a tar stream at the root of a container."""
        client = self.get_conn()
        with self._translated(f"copy inputs into container {name}"), _patience(client):
            client.put_archive(name, "/", archive)

    def get(self, name: str, path: str) -> Generator[bytes, None, None] | None:
        """A file or folder of a container as a tar stream, to be closed; ``None`` when it is not there."""
        from docker.errors import NotFound

        client = self.get_conn()
        with self._translated(f"copy {path} out of container {name}"):
            try:
                stream, _ = client.get_archive(name, path)
            except NotFound:
                return None
        return self._chunks(stream, f"copy {path} out of container {name}")

    def _chunks(self, stream: Iterable[bytes], action: str) -> Generator[bytes, None, None]:
        with self._translated(action):
            yield from stream

    def stop(self, name: str, grace: int) -> None:
        """SIGTERM, then SIGKILL after ``grace`` seconds; no error when it is over or gone."""
        from docker.errors import NotFound

        client = self.get_conn()
        with self._translated(f"stop container {name}"), contextlib.suppress(NotFound):
            client.stop(name, timeout=grace)

    def remove(self, name: str) -> None:
        """Remove a container with its volumes, running or not; no error when it is gone."""
        from docker.errors import APIError

        client = self.get_conn()
        with self._translated(f"remove container {name}"), _patience(client):
            try:
                client.remove_container(name, v=True, force=True)
            except APIError as error:
                # 409: somebody else is removing it at this moment.
                if error.status_code not in (404, 409):
                    raise

    # The same for the triggerer's event loop ---------------------------------------------------

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[EngineSession]:
        """Asynchronous session with the engine; its errors are translated like all others.

        :raises EngineUnavailableError: when the engine does not answer, or goes away.
        """
        import aiodocker
        import aiohttp

        from airflow_mlops.hooks.docker.session import EngineSession

        address = await self.find_address()
        url, context = address.url, None
        if url.startswith("ssh://"):
            url = await asyncio.to_thread(forwarded, address)
        if address.tls:
            url, context = url.replace("tcp://", "https://", 1), address.tls.context()
        try:
            async with aiodocker.Docker(
                url=url, ssl_context=context, timeout=aiohttp.ClientTimeout(total=TIMEOUT)
            ) as client:
                yield EngineSession(client)
        except aiodocker.DockerError as error:
            if error.status in (500, 502, 503, 504, 900):
                raise self._unavailable(error) from error
            raise self._refused("answer", error.message) from error
        except (aiohttp.ClientError, asyncio.IncompleteReadError, OSError) as error:
            raise self._unavailable(error) from error


def _cure(words: str) -> str:
    return next((cure for part, cure in CURES.items() if part in words), "")


def _repository(reference: str) -> str:
    name = reference.partition("@")[0]
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(":")[0]


@contextlib.contextmanager
def _patience(client: APIClient) -> Iterator[None]:
    # The SDK takes its timeout from the client, for every request alike.
    usual, client.timeout = client.timeout, LONG_TIMEOUT
    try:
        yield
    finally:
        client.timeout = usual
