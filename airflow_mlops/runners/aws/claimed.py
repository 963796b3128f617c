"""What runners of services have in common that can only be asked, and that do not refuse a name that is taken."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from airflow_mlops.exceptions import EngineUnavailableError, MLOpsError, RunnerError
from airflow_mlops.runners.aws.claims import Claim, Claims
from airflow_mlops.runners.aws.cloudwatch_lines import new_lines
from airflow_mlops.runners.aws.requests import refuse
from airflow_mlops.runners.files.staging import Staging
from airflow_mlops.runners.lines import LOGS_LIMIT
from airflow_mlops.runners.polling import poll
from airflow_mlops.runners.protocol import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_mlops.hooks.aws.cloudwatch import CloudWatchHook
    from airflow_mlops.runners.protocol import ContainerJob, FoundJob, LogLine, OnLog

log = logging.getLogger(__name__)


class ClaimedRunner(ABC):
    """
    Runs jobs in a service of AWS, with data in a bucket and output in CloudWatch.

    Who submits first writes a claim beside the job's data. Each attempt has a name of its own in the service, so that
    the job of a claim is found again, and no other one, whenever its submitter died.

    :param staging: ``s3://[conn_id@]bucket/prefix`` through which data goes.
    :param aws_conn_id: connection of type ``aws``.
    :param region: region, when not the connection's.
    :param limit_bytes: bytes that :meth:`collect` takes over at most, for each path.
    :param time_limit: seconds after which the service ends a job by itself, and its addresses in the bucket end.
    :param adopt_after: seconds after which a claim without a job is taken for one whose submitter died.
    """

    kind: ClassVar[str]
    place: ClassVar[str]
    log_group: ClassVar[str]
    #: Seconds that :meth:`stop` waits for the end.
    longest_stop: ClassVar[float]

    def __init__(
        self,
        staging: str,
        aws_conn_id: str,
        region: str | None,
        limit_bytes: int,
        time_limit: float,
        adopt_after: float,
    ) -> None:
        self.aws_conn_id = aws_conn_id
        self.region = region
        self.time_limit = time_limit
        self.staging = Staging(staging, limit_bytes, time_limit)
        self.claims = Claims(self.staging, adopt_after)
        self._known: dict[str, Claim] = {}
        self._streams: dict[str, str] = {}

    # What a service adds -----------------------------------------------------------------------

    @abstractmethod
    def name_of(self, name: str, claim: Claim) -> str:
        """The service's name of one attempt at a job."""

    @abstractmethod
    def prepare(self, job: ContainerJob, image: str, claim: Claim) -> dict[str, object]:
        """Stage the job's data and make the request."""

    @abstractmethod
    def send(self, request: dict[str, object]) -> str:
        """Start the job; its id."""

    @abstractmethod
    def find(self, name: str) -> str:
        """Id of the job of this name in the service; empty when there is none."""

    @abstractmethod
    def state(self, claim: Claim) -> JobState:
        """State of a job that has an id."""

    @abstractmethod
    def stream(self, claim: Claim) -> str:
        """The log stream of a job that has an id; empty while there is none."""

    @abstractmethod
    def end(self, service_id: str, reason: str) -> None:
        """Ask for the end of a job."""

    # Starting ----------------------------------------------------------------------------------

    def submit(self, job: ContainerJob) -> JobState:
        """Start the job, or adopt the one of its name."""
        refuse(job, self.place)
        claim = self.claims.obtain(
            job.name, job.labels, lambda claim: self.find(self.name_of(job.name, claim))
        )
        if not claim.service_id:
            claim = self._start(job, claim)
        self._known[job.name] = claim
        return self.inspect(job.name)

    def _start(self, job: ContainerJob, claim: Claim) -> Claim:
        from airflow_mlops.hooks.aws.service import pinned_image

        try:
            image = pinned_image(job.image, self.aws_conn_id)
            request = self.prepare(job, image, claim)
        except Exception:
            self._forget(job.name, claim)
            raise
        if not self.claims.is_still(job.name, claim):
            raise EngineUnavailableError(
                f"Job {job.name}: another worker submits it now. Trying again adopts its job."
            )
        try:
            service_id = self.send(request)
        except RunnerError as error:
            # After an answer that was lost there may be a job: the claim finds it.
            if not error.retriable:
                self._forget(job.name, claim)
            raise
        log.info("Submitted job %s to %s as %s", job.name, self.place, service_id)
        kept = self.claims.complete(job.name, claim, service_id, image)
        if kept.token != claim.token:
            self.end(service_id, "Another worker submitted the same job")
        return kept

    def _forget(self, name: str, claim: Claim) -> None:
        """Remove what a submit that failed has left, unless another worker submits it now; its error is what counts."""
        with contextlib.suppress(MLOpsError):
            if self.claims.give_up(name, claim):
                self.staging.cleanup(name)

    # Watching ----------------------------------------------------------------------------------

    def inspect(self, name: str) -> JobState:
        """State of the job."""
        claim = self.claim(name)
        if claim is None:
            return JobState("gone")
        return self.state(claim) if claim.service_id else JobState("created")

    def logs(self, name: str, since: str = "") -> list[LogLine]:
        """Lines after the cursor; of several machines, those of the first."""
        return list(deque(self._lines(name, since), maxlen=LOGS_LIMIT))

    def _lines(self, name: str, since: str) -> Iterator[LogLine]:
        """The same, one after the other and without a limit."""
        if stream := self._stream(name):
            yield from new_lines(self.cloudwatch, stream, since)

    def _stream(self, name: str) -> str:
        claim = self.claim(name)
        if claim is None or not claim.service_id:
            return ""
        known = self._streams.get(claim.service_id, "") or self.stream(claim)
        if known:
            self._streams[claim.service_id] = known
        return known

    def wait(self, name: str, on_log: OnLog, since: str = "", deadline: float | None = None) -> JobState:
        """Block until the job is over, or the deadline."""
        return asyncio.run(self.wait_async(name, on_log, since, deadline))

    async def wait_async(
        self, name: str, on_log: OnLog, since: str = "", deadline: float | None = None
    ) -> JobState:
        """Look until the job is over, or the deadline; AWS that does not answer is waited for."""
        return await poll(
            lambda: self.inspect(name), lambda cursor: self._lines(name, cursor), on_log, since, deadline
        )

    # Ending ------------------------------------------------------------------------------------

    def stop(self, name: str, grace: int = 4) -> None:  # noqa: ARG002
        """End the job and wait for it; the time between SIGTERM and SIGKILL is the service's own."""
        if claim := self._ask_for_end(name, "Stopped by airflow-mlops"):
            self._wait_for_end(claim, self.longest_stop)

    def _ask_for_end(self, name: str, reason: str) -> Claim | None:
        """The claim of a job that had not ended."""
        claim = self.claim(name)
        if claim is None or not claim.service_id or self.state(claim).status in ("exited", "gone"):
            return None
        self.end(claim.service_id, reason)
        return claim

    def _wait_for_end(self, claim: Claim, within: float) -> None:
        limit, pause = time.monotonic() + within, 0.5
        while self.state(claim).status in ("created", "running") and time.monotonic() < limit:
            time.sleep(pause)
            pause = min(1.5 * pause, 5.0)

    async def stop_async(self, name: str, grace: int = 4) -> None:
        """As :meth:`stop`, for the triggerer."""
        await asyncio.to_thread(self.stop, name, grace)

    def jobs(self) -> list[FoundJob]:
        """Jobs whose data is in the staging."""
        return self.claims.jobs()

    def discard(self, name: str, within: float) -> None:
        """End the job and remove its data. The service may give it longer than ``within``, and nobody waits for that."""
        claim = self._ask_for_end(name, "Removed by airflow-mlops")
        if claim and within > 0:
            # It was asked for: what fails now delays nothing but this.
            with contextlib.suppress(EngineUnavailableError):
                self._wait_for_end(claim, within)
        # First of all: without it, nobody takes this job for one to be adopted.
        self.claims.remove(name)
        self._known.pop(name, None)
        self.staging.cleanup(name)

    def cleanup(self, name: str) -> None:
        """End the job if it has not, and remove its data; the service keeps its record of it."""
        self.discard(name, 0)

    @cached_property
    def cloudwatch(self) -> CloudWatchHook:
        """Who speaks to CloudWatch."""
        from airflow_mlops.hooks.aws.cloudwatch import CloudWatchHook

        return CloudWatchHook(self.aws_conn_id, self.region, self.log_group)

    def claim(self, name: str) -> Claim | None:
        """The claim of a job, completed where its submitter could not."""
        known = self._known.get(name)
        if known is None:
            known = self.claims.read(name)
            if known and not known.service_id and (found := self.find(self.name_of(name, known))):
                known = self.claims.complete(name, known, found)
            if known and known.service_id:
                self._known[name] = known
        return known
