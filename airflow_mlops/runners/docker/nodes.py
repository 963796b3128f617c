"""Jobs as containers on the one of several Docker Engines that has room; from then on the job stays there."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import EngineUnavailableError, GpusMissingError, GpusTakenError, RunnerError
from airflow_mlops.runners.docker.config import LABEL
from airflow_mlops.runners.docker.runner import ROOT, DockerRunner
from airflow_mlops.runners.docker.stage import is_staged
from airflow_mlops.runners.protocol import ContainerJob, FoundJob, JobState, LogLine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from airflow_mlops.runners.protocol import OnLog

log = logging.getLogger(__name__)


class _NotStagedError(RunnerError):
    """A node has not the data that a job shares with others."""


class DockerNodesRunner:
    """
    Runs each job on one of several Docker Engines: where its GPUs are free, and there where the fewest jobs are.

    The state that :meth:`submit` returns says which one. Who gives it back as ``node`` speaks to that engine alone;
    without it, every engine is asked for the job's name. A job of which an engine that is away may know is never
    started anew.

    :param nodes: connections of type ``docker``.
    :param node: the connection of the engine that has the job, once it is known.
    :param options: options of :class:`~airflow_mlops.runners.docker.runner.DockerRunner` for each.
    """

    kind = "docker_nodes"

    def __init__(self, nodes: Sequence[str], node: str = "", **options: Any) -> None:
        if not nodes:
            raise RunnerError(
                "There is no node. Cure: name at least one connection in training.docker.nodes."
            )
        self.nodes = {each: DockerRunner(each, **options) for each in ([node] if node else nodes)}

    # Starting ----------------------------------------------------------------------------------

    def submit(self, job: ContainerJob) -> JobState:
        """Start the job where there is room, or adopt it where it is."""
        found, away = self._find(job.name)
        if found:
            return self._on(found, job)
        if away and job.labels.get("try", "1") != "1":
            raise self._unknown(job.name, away)
        errors: list[RunnerError] = list(away.values())
        for node in self._by_room(away):
            try:
                self._check_staged(node, job)
                return self._on(node, job)
            except (GpusTakenError, GpusMissingError, _NotStagedError, EngineUnavailableError) as error:
                log.info("Not on %s: %s", node, error)
                errors.append(error)
        raise _worth_waiting_for(errors)

    def stage(self, job: ContainerJob) -> None:
        """Keep the job's inputs on every node that answers: a job that names it as ``shared`` runs on one of them."""
        away: list[RunnerError] = []
        for node, runner in self.nodes.items():
            try:
                runner.stage(job)
            except EngineUnavailableError as error:
                log.warning("Node %s is left out: %s", node, error)
                away.append(error)
        if len(away) == len(self.nodes):
            raise _worth_waiting_for(away)

    def _check_staged(self, node: str, job: ContainerJob) -> None:
        if job.shared and not is_staged(self.nodes[node].hook, job.shared, ROOT):
            raise _NotStagedError(
                f"Job {job.name} shares data of {job.shared}, which is not on {node}: it did not answer when the data was "
                "brought, or somebody removed it."
            )

    def gpus_free(self, name: str, gpus: Any, image: str) -> bool:
        """Whether any node could give the job its GPUs at this moment."""
        errors: list[RunnerError] = []
        for runner in self.nodes.values():
            try:
                if runner.gpus_free(name, gpus, image):
                    return True
                errors.append(GpusTakenError(f"{runner.hook.docker_conn_id}: taken"))
            except (GpusMissingError, EngineUnavailableError) as error:
                errors.append(error)
        wrong = _worth_waiting_for(errors)
        if not isinstance(wrong, GpusTakenError):
            raise wrong
        return False

    def _on(self, node: str, job: ContainerJob) -> JobState:
        return replace(self.nodes[node].submit(job), node=node)

    def _by_room(self, away: Mapping[str, EngineUnavailableError]) -> list[str]:
        """Nodes that answer, the emptiest first."""
        busy: dict[str, int] = {}
        for node in self.nodes.keys() - away.keys():
            try:
                busy[node] = _live_jobs(self.nodes[node])
            except EngineUnavailableError as error:
                log.warning("Node %s is left out: %s", node, error)
        return sorted(busy, key=lambda node: (busy[node], list(self.nodes).index(node)))

    # Finding -----------------------------------------------------------------------------------

    def _find(self, name: str) -> tuple[str, dict[str, EngineUnavailableError]]:
        away: dict[str, EngineUnavailableError] = {}
        for node, runner in self.nodes.items():
            try:
                if runner.inspect(name).status != "gone":
                    return node, away
            except EngineUnavailableError as error:
                away[node] = error
        return "", away

    def _runner(self, name: str) -> DockerRunner:
        first = next(iter(self.nodes.values()))
        if len(self.nodes) == 1:
            return first
        found, away = self._find(name)
        if not found and away:
            raise self._unknown(name, away)
        return self.nodes[found] if found else first

    def _unknown(self, name: str, away: Mapping[str, EngineUnavailableError]) -> EngineUnavailableError:
        return EngineUnavailableError(
            f"Job {name} may be on a node that does not answer: {'; '.join(map(str, away.values()))} Or take "
            f"{', '.join(away)} out of training.docker.nodes, when it will not come back."
        )

    # The protocol, on the job's own node -------------------------------------------------------

    def inspect(self, name: str) -> JobState:
        """State of the job, with the node that has it."""
        runner = self._runner(name)
        state = runner.inspect(name)
        node = next(node for node, each in self.nodes.items() if each is runner)
        return state if state.status == "gone" else replace(state, node=node)

    def logs(self, name: str, since: str = "") -> list[LogLine]:
        """Lines after the cursor."""
        return self._runner(name).logs(name, since)

    def wait(self, name: str, on_log: OnLog, since: str = "", deadline: float | None = None) -> JobState:
        """Block until the job is over, or the deadline."""
        return self._runner(name).wait(name, on_log, since, deadline)

    async def wait_async(
        self, name: str, on_log: OnLog, since: str = "", deadline: float | None = None
    ) -> JobState:
        """Wait until the job is over, or the deadline."""
        return await (await self._runner_async(name)).wait_async(name, on_log, since, deadline)

    def stop(self, name: str, grace: int = 4) -> None:
        """SIGTERM, then SIGKILL after ``grace`` seconds."""
        self._runner(name).stop(name, grace)

    async def stop_async(self, name: str, grace: int = 4) -> None:
        """As :meth:`stop`, for the triggerer."""
        await (await self._runner_async(name)).stop_async(name, grace)

    def collect(self, name: str, paths: tuple[str, ...], destination: Path) -> None:
        """Copy what the job wrote into ``destination``."""
        self._runner(name).collect(name, paths, destination)

    def jobs(self) -> list[FoundJob]:
        """Jobs of all nodes; one that is away has the next turn."""
        found: list[FoundJob] = []
        for node, runner in self.nodes.items():
            try:
                found += runner.jobs()
            except EngineUnavailableError as error:
                log.warning("Node %s is left out: %s", node, error)
        return found

    def cleanup(self, name: str) -> None:
        """Remove the container, and leases of its GPUs wherever it has some."""
        away: dict[str, EngineUnavailableError] = {}
        found = False
        for node, runner in self.nodes.items():
            try:
                found = runner.inspect(name).status != "gone" or found
                runner.cleanup(name)
            except EngineUnavailableError as error:
                away[node] = error
        if away and not found:
            raise self._unknown(name, away)

    async def _runner_async(self, name: str) -> DockerRunner:
        if len(self.nodes) == 1:
            return next(iter(self.nodes.values()))
        away: dict[str, EngineUnavailableError] = {}
        for node, runner in self.nodes.items():
            try:
                async with runner.hook.session() as engine:
                    if await engine.inspect(name) is not None:
                        return runner
            except EngineUnavailableError as error:
                away[node] = error
        if away:
            raise self._unknown(name, away)
        return next(iter(self.nodes.values()))


def _live_jobs(runner: DockerRunner) -> int:
    containers = runner.hook.containers([f"{LABEL}name"])
    return sum(each["State"] == "running" for each in containers)


def _worth_waiting_for(errors: Sequence[RunnerError]) -> RunnerError:
    """The error of the node on which the job can run soonest."""
    for kind in (GpusTakenError, EngineUnavailableError, GpusMissingError, _NotStagedError):
        same = [error for error in errors if isinstance(error, kind)]
        if same:
            return kind("\n".join(dict.fromkeys(map(str, same))))
    return RunnerError("No node answered.")
