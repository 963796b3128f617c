"""Speaks to a Kubernetes API server, by the connection type of the Kubernetes provider."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException

from airflow_mlops.exceptions import EngineUnavailableError, RunnerError
from airflow_mlops.hooks.connections.find import missing_connection
from airflow_mlops.hooks.connections.masking import hide_connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator

    from airflow.sdk import Connection

    from airflow_mlops.hooks.kubernetes.session import ClusterSession

T = TypeVar("T")

#: Where a pod's own account lies.
IN_CLUSTER = "KUBERNETES_SERVICE_HOST"


class KubernetesClusterHook(BaseHook):
    """
    Objects of one namespace of a Kubernetes cluster.

    :param kubernetes_conn_id: connection of type ``kubernetes`` (in-cluster, path or content of a kube config, by its
        extra). Where ``kubernetes_default`` does not exist, it is the account of the pod that Airflow runs in, else
        the kube config of its machine.
    :param namespace: namespace of all objects; empty for the connection's, else ``default``.
    """

    conn_name_attr = "kubernetes_conn_id"
    default_conn_name = "kubernetes_default"
    conn_type = "kubernetes"
    hook_name = "Kubernetes"

    def __init__(self, kubernetes_conn_id: str = default_conn_name, namespace: str = "") -> None:
        super().__init__()
        self.kubernetes_conn_id = kubernetes_conn_id
        self._namespace = namespace
        self._extra: dict[str, Any] | None = None
        self._provider: Any = None

    def run(self, ask: Callable[[ClusterSession], Awaitable[T]]) -> T:
        """Ask the cluster and wait for its answer, from wherever: a signal handler may be called amid an event loop.

        :param ask: gets a session, and its answer is returned.
        """
        if self._extra is None:
            try:
                self._extra = _extra(hide_connection(self.get_connection(self.kubernetes_conn_id)))
            except AirflowNotFoundException as error:
                self._extra = self._without_connection(error)
        return _run_to_end(self._asked(ask))

    async def _asked(self, ask: Callable[[ClusterSession], Awaitable[T]]) -> T:
        async with self.session() as cluster:
            return await ask(cluster)

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[ClusterSession]:
        """Asynchronous session with the cluster; each request of it raises.

        :raises EngineUnavailableError: when the API server does not answer, or goes away.
        :raises RunnerError: for a connection that says nothing of use, or a request that is refused.
        """
        from airflow_mlops.hooks.kubernetes.session import ClusterSession

        if self._extra is None:
            try:
                self._extra = _extra(hide_connection(await self.aget_connection(self.kubernetes_conn_id)))
            except AirflowNotFoundException as error:
                # In a thread: the question blocks.
                self._extra = await asyncio.to_thread(self._without_connection, error)
        # In a thread: the first session of a triggerer imports the provider.
        provider = await asyncio.to_thread(self._provider_hook, self._extra)
        async with contextlib.AsyncExitStack() as stack:
            with _config_errors(self.kubernetes_conn_id):
                client = await stack.enter_async_context(provider.get_conn())
            yield ClusterSession(client, self._namespace or self._extra.get("namespace") or "default")

    def _provider_hook(self, extra: dict[str, Any]) -> Any:
        if self._provider is not None:
            return self._provider
        try:
            from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook
            from kubernetes_asyncio.client import Configuration
        except ImportError as error:
            raise RunnerError(
                f"run_on: kubernetes needs Airflow's Kubernetes provider, which is not installed ({error}). Cure: "
                "pip install 'airflow-mlops[kubernetes]' in the image of Airflow's workers and triggerers."
            ) from error
        says_where = any(extra.get(key) for key in ("in_cluster", "kube_config_path", "kube_config"))
        # A configuration of its own: the package's default one is shared by all clusters of a process.
        configuration = Configuration()
        if str(extra.get("disable_verify_ssl", "")).lower() == "true":
            configuration.verify_ssl = False
        self._provider = AsyncKubernetesHook(
            conn_id=self.kubernetes_conn_id,
            connection_extras=extra,
            client_configuration=configuration,
            in_cluster=True if not says_where and os.environ.get(IN_CLUSTER) else None,
        )
        return self._provider

    def _without_connection(self, error: AirflowNotFoundException) -> dict[str, Any]:
        """The extra of the default connection that is not there; the jobs of any other one are elsewhere."""
        name = self.kubernetes_conn_id
        missing = missing_connection(name, RunnerError, "kubernetes")
        if missing.retriable:
            raise EngineUnavailableError(str(missing)) from error
        if name == self.default_conn_name:
            return {}
        raise missing from error


def _run_to_end(asked: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine; in a thread of its own where a loop runs in this one already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(asked)
    answers: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(asyncio.run(asked))
        except BaseException as error:  # noqa: BLE001  it is raised where it was asked
            errors.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return answers[0]


def _extra(connection: Connection) -> dict[str, Any]:
    # Forms of old Airflows wrote a prefix before each key.
    return {
        key.removeprefix("extra__kubernetes__"): value
        for key, value in connection.extra_dejson.items()
        if value not in (None, "")
    }


@contextlib.contextmanager
def _config_errors(conn_id: str) -> Iterator[None]:
    from kubernetes_asyncio.config import ConfigException

    try:
        yield
    except (ConfigException, AirflowException, FileNotFoundError) as error:
        raise RunnerError(
            f"Connection {conn_id!r} does not say how to reach a Kubernetes cluster: {error}. Cure: set in_cluster, "
            "kube_config_path or kube_config in its extra."
        ) from error
