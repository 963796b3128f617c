"""A session with a Kubernetes API server: objects as plain JSON, so that no version of a client says what they may hold."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Literal

from airflow_mlops.exceptions import EngineUnavailableError, RunnerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from kubernetes_asyncio.client import ApiClient

Kind = Literal["jobs", "pods", "secrets", "services"]

#: Seconds for one answer, and for the next piece of a followed log before it is asked for anew.
TIMEOUT, SILENCE = 30, 300
#: Bytes of a log that are read at once.
CHUNK = 64 * 1024
#: What the server says, in part, and what a user does about it.
CURES = {
    "exceeded quota": "Cure: raise the namespace's quota, or lower training.resources",
    "must be no more than": "Cure: lower training.resources or raise the namespace's LimitRange",
    "is forbidden": ("Cure: give the account the role in docs/howto/kubernetes.md"),
    "namespaces": "Cure: create the namespace, or correct training.kubernetes.namespace",
}


class ClusterSession:
    """What a runner asks of one namespace. Made by :meth:`KubernetesClusterHook.session`."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._client = client
        self._answered = False
        self.namespace = namespace

    async def get(self, kind: Kind, name: str) -> dict[str, Any] | None:
        """An object; ``None`` when there is none."""
        return await self._ask("GET", f"{self._path(kind)}/{name}", none_for=(404,))

    async def find(self, kind: Kind, **selectors: str) -> list[dict[str, Any]]:
        """Objects by ``labelSelector`` or ``fieldSelector``."""
        found = await self._ask("GET", self._path(kind), query=selectors)
        return list((found or {}).get("items") or [])

    async def create(self, kind: Kind, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """Create an object; ``None`` when its name is taken."""
        return await self._ask("POST", self._path(kind), body=body, none_for=(409,))

    async def patch(self, kind: Kind, name: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """Merge something into an object; ``None`` when there is none."""
        return await self._ask("PATCH", f"{self._path(kind)}/{name}", body=body, none_for=(404,))

    async def delete(self, kind: Kind, name: str, **options: Any) -> None:
        """Delete an object, with its dependents as ``options`` say; no error when it is gone.

        :param options: fields of ``DeleteOptions``.
        """
        body = {"apiVersion": "v1", "kind": "DeleteOptions", **options}
        await self._ask("DELETE", f"{self._path(kind)}/{name}", body=body, none_for=(404, 409))

    async def log(self, pod: str, container: str, since: str, *, follow: bool) -> AsyncIterator[bytes]:
        """A container's output as the server sends it, each line behind its timestamp.

        :param since: RFC 3339, to the second (inclusive); empty for all.
        """
        import aiohttp

        query = {"container": container, "timestamps": "true", "follow": str(follow).lower()}
        if since:
            query["sinceTime"] = since
        # No end in sight, but a connection that is silent for long may be dead.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT, sock_read=SILENCE)
        with self._translated():
            response = await self._request("GET", f"{self._path('pods')}/{pod}/log", query, None, timeout)
            async with response:
                if response.status in (400, 404):  # not started yet, or no longer there
                    return
                if response.status >= 300:
                    raise self._refused(response.status, await response.text(), f"read the log of pod {pod}")
                while chunk := await response.content.read(CHUNK):
                    yield chunk

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        none_for: tuple[int, ...] = (),
    ) -> dict[str, Any] | None:
        with self._translated():
            response = await self._request(method, path, query or {}, body, TIMEOUT)
            async with response:
                content = await response.text(errors="replace")
        self._answered = self._answered or response.status != 401
        if response.status in none_for and not _is_missing_namespace(content):
            return None
        if response.status >= 300:
            raise self._refused(response.status, content, f"{method} {path}")
        try:
            return dict(json.loads(content))
        except ValueError as error:  # a proxy's page
            raise EngineUnavailableError(
                f"Kubernetes answered {method} {path} with no JSON: {content[:200]}"
            ) from error

    async def _request(self, method: str, path: str, query: Mapping[str, str], body: Any, within: Any) -> Any:
        headers = {"Accept": "application/json, */*"}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        return await self._client.call_api(
            path,
            method,
            query_params=list(query.items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
            _preload_content=False,
            _request_timeout=within,
        )

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        import aiohttp

        try:
            yield
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EngineUnavailableError(
                f"The Kubernetes API server {self._client.configuration.host} does not answer: "
                f"{error or type(error).__name__}. Cure: start it, or correct the connection."
            ) from error

    def _refused(self, status: int, content: str, action: str) -> RunnerError:
        if status == 401 and self._answered:
            # Tokens of clouds live for minutes: another session gets another one.
            return EngineUnavailableError(
                f"Kubernetes could not {action}: the login of this session has expired."
            )
        return _refused(status, content, action)

    def _path(self, kind: Kind) -> str:
        group = "/apis/batch/v1" if kind == "jobs" else "/api/v1"
        return f"{group}/namespaces/{self.namespace}/{kind}"


def _is_missing_namespace(content: str) -> bool:
    return '"kind":"namespaces"' in content.replace(" ", "")


def _refused(status: int, content: str, action: str) -> RunnerError:
    try:
        words = str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        words = content[:500]
    if status in (408, 429) or status >= 500:
        return EngineUnavailableError(
            f"Kubernetes could not {action}: {status} {words}; it can be tried again."
        )
    cure = next((cure for part, cure in CURES.items() if part in words), "")
    if status == 401:
        cure = "Cure: renew the credentials of the Kubernetes connection"
    return RunnerError(f"Kubernetes refused to {action}: {status} {words}. {cure}".rstrip())
