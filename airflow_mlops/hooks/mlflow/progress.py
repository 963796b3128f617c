"""From a job's lines of progress to the metrics of its MLflow run, while it runs and without holding it up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from airflow_mlops.contract.protocol.progress import parse_progress
from airflow_mlops.exceptions import TrackingError
from airflow_mlops.hooks.connections.find import afind_connection
from airflow_mlops.hooks.mlflow.runs import METRICS_PER_BATCH, REASON_TAG
from airflow_mlops.hooks.mlflow.session import TrackingServer, verification
from airflow_mlops.hooks.mlflow.values import MetricNames, to_pairs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from aiohttp import ClientSession

log = logging.getLogger(__name__)

#: Seconds between two batches, while points come.
FLUSH_EVERY = 2.0
#: Points that wait for MLflow at most; the newest stay.
KEEP = 10_000
#: Different names of one job; a name made of a step number would fill MLflow's page and database.
NAMES = 1_000
#: Seconds for one answer, and for the last batches of a job.
ANSWER, LAST = 10.0, 15.0
LONGEST_PAUSE = 60.0


class MetricSink:
    """
    Takes a job's lines of progress and logs their figures to an MLflow run, in batches.

    Use it as an asynchronous context around the wait: it sends every few seconds, and what is left at the end. It
    never fails the job: while MLflow is away the newest points are kept, and what is lost is said in the log. A
    point that is sent twice counts once, since it carries the time at which it was measured.

    :param mlflow_conn_id: Airflow connection of type ``mlflow``.
    :param run_id: the run; empty for a job without one, whose figures go nowhere.
    :param server: the connection's server, when it is known already.
    """

    def __init__(
        self,
        *,
        mlflow_conn_id: str = "mlflow_default",
        run_id: str = "",
        server: TrackingServer | None = None,
    ) -> None:
        self.mlflow_conn_id = mlflow_conn_id
        self.run_id = run_id
        #: Points that never reached MLflow.
        self.lost = 0
        self._server = server
        self._waiting: deque[dict[str, Any]] = deque()
        self._names: set[str] = set()
        self._called = MetricNames()
        self._warned: set[str] = set()
        self._sending: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, progress: Mapping[str, Any] | None) -> MetricSink:
        """The sink that ``{"mlflow_conn_id": …, "run_id": …}`` describes; one that keeps nothing for ``None``."""
        return cls(**(progress or {}))

    # Taking ------------------------------------------------------------------------------------

    def take(self, text: str, at: str = "") -> None:
        """Take one line of a job's output; what is no progress is left alone.

        :param text: the line; it comes from a container and is not trusted.
        :param at: moment of the line as RFC 3339, for one that does not say when it was measured.
        """
        progress = parse_progress(text) if self.run_id else None
        if not progress:
            return
        moment, step = _moment(progress, at), progress.get("step", 0)
        for name, value in progress["metrics"].items():
            key = self._called.of({"name": name or "_"})
            if key not in self._names and len(self._names) >= NAMES:
                self._warn(
                    f"More than {NAMES} different metrics: further ones are left out, the first is {key!r}."
                )
                continue
            self._names.add(key)
            self._waiting.append({"key": key, "value": value, "timestamp": moment, "step": _bounded(step)})
        while len(self._waiting) > KEEP:
            self._waiting.popleft()
            self.lost += 1

    # Sending -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Begin to send."""
        if self.run_id:
            self._sending = asyncio.create_task(self._keep_sending())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send what is left, for some seconds at most."""
        if self._sending is None:
            return
        self._sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._sending
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._send(), LAST)
        self.lost += len(self._waiting)
        if self.lost:
            log.warning(
                "%d points of metrics of run %s did not reach MLflow: they came faster than it took them, or it was "
                "away. What the job writes to metrics.json is logged at its end.",
                self.lost,
                self.run_id,
            )

    async def end(self, status: str, reason: str) -> None:
        """End the run, for who ends the job and has no worker to do it; a failure is a warning."""
        if not self.run_id:
            return
        now = int(time.time() * 1000)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST), self._session() as session:
                tags = to_pairs({REASON_TAG: reason})
                await self._post(session, "runs/log-batch", {"run_id": self.run_id, "tags": tags})
                body = {"run_id": self.run_id, "status": status, "end_time": now}
                await self._post(session, "runs/update", body)

    async def _keep_sending(self) -> None:
        pause = FLUSH_EVERY
        while True:
            await asyncio.sleep(pause)
            pause = FLUSH_EVERY if await self._send() else min(2 * pause, LONGEST_PAUSE)

    async def _send(self) -> bool:
        """Send what waits; ``False`` when MLflow did not take it."""
        if not self._waiting:
            return True
        async with self._session() as session:
            while self._waiting:
                batch = [self._waiting[place] for place in range(min(len(self._waiting), METRICS_PER_BATCH))]
                if not await self._post(session, "runs/log-batch", {"run_id": self.run_id, "metrics": batch}):
                    return False
                # Newer ones may have pushed some of them out meanwhile.
                for point in batch:
                    if self._waiting and self._waiting[0] is point:
                        self._waiting.popleft()
        return True

    @contextlib.asynccontextmanager
    async def _session(self) -> Any:
        import aiohttp

        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER)) as session:
            yield session

    async def _post(self, session: ClientSession, path: str, body: dict[str, Any]) -> bool:
        """Whether there is nothing left to be done with this body: it was taken, or never will be."""
        try:
            server = await self._find_server()
            async with session.post(
                server.api(path), json=body, headers=server.headers, ssl=_certificates()
            ) as answer:
                if answer.ok:
                    return True
                words = (await answer.text())[:300]
                self._warn(f"MLflow answered {answer.status} to {path} of run {self.run_id}: {words}")
                # The run was deleted or ended, or a value is none: the same call would be refused again.
                if answer.status in (400, 404):
                    self.lost += len(body.get("metrics", ()))
                    return True
        except Exception as error:  # noqa: BLE001  a job must not fail for a chart
            self._warn(f"MLflow does not take the metrics of run {self.run_id}: {error!r}. They wait.")
        return False

    async def _find_server(self) -> TrackingServer:
        if self._server is None:
            connection = await afind_connection(self.mlflow_conn_id, TrackingError, "mlflow")
            self._server = TrackingServer.from_connection(connection)
        return self._server

    def _warn(self, text: str) -> None:
        kind = text[:40]
        if kind not in self._warned:
            self._warned.add(kind)
            log.warning("%s", text)


def _moment(progress: Mapping[str, Any], at: str) -> int:
    """Milliseconds since 1970: of the measurement, else of the line, else now."""
    now = int(time.time() * 1000)
    if 0 < progress.get("time", 0) <= now + 86_400_000:
        return int(progress["time"])
    try:
        return int(datetime.fromisoformat(at.partition("#")[0]).timestamp() * 1000)
    except ValueError:
        return now


def _bounded(step: int) -> int:
    return max(-(2**62), min(2**62, step))


def _certificates() -> bool | ssl.SSLContext:
    verify = verification()
    return ssl.create_default_context(cafile=verify) if isinstance(verify, str) else verify
