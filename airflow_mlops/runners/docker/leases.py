"""Who has which GPU of an engine: one never-started container of a unique name for each GPU that a job holds.

The engine gives a name to one creator only, however many ask at once, and it forgets nothing when a worker dies.
A lease is over when its job is: when the job's container has ended, or when there is none although the lease is
older than any creator needs. Who finds such a lease takes it over. A job starts only after a second look that its
leases are still its own and that no other live container has one of its GPUs: two jobs can therefore never have
the same GPU, whoever was slow or died at which moment.
"""

from __future__ import annotations

import logging
import random
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import GpusTakenError
from airflow_mlops.hooks.docker.gpus import gpus_of_engine
from airflow_mlops.primitives.training.gpus import GpuRequest, choose_gpus
from airflow_mlops.runners.docker.config import GPUS, LABEL, LEASE, lease_config

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_mlops.hooks.docker.hook import DockerEngineHook, EngineImage
    from airflow_mlops.runners.protocol import ContainerJob

log = logging.getLogger(__name__)

#: How often a job looks again after somebody else was faster.
TRIES = 20
#: States of a container that no process has, or will have again.
OVER = ("exited", "dead", "removing")


@dataclass(frozen=True)
class Lease:
    """One GPU as it is held.

    :param id: id of the lease's container: a name may be somebody else's the next moment.
    :param age: seconds since it was made, by this machine's clock.
    """

    id: str
    gpu: str
    job: str
    age: float


@dataclass(frozen=True)
class Bookings:
    """All leases of an engine, and the jobs with GPUs.

    :param live: GPUs of every job that is not over.
    :param ended: names of jobs whose container has ended.
    """

    leases: tuple[Lease, ...]
    live: Mapping[str, tuple[str, ...]]
    ended: frozenset[str]

    @classmethod
    def read(cls, containers: Iterable[Mapping[str, Any]]) -> Bookings:
        """Out of the engine's list of containers with the label of GPUs."""
        leases, live, ended, now = [], {}, set(), time.time()
        for container in containers:
            labels = container["Labels"]
            name, gpus = labels.get(f"{LABEL}name", ""), labels[GPUS]
            if LEASE in labels:
                leases.append(Lease(container["Id"], gpus, labels[LEASE], now - container["Created"]))
            elif container["State"] in OVER:
                ended.add(name)
            else:
                live[name] = tuple(gpus.split(","))
        return cls(tuple(leases), live, frozenset(ended))

    def held(self, lease: Lease, patience: float) -> bool:
        """Whether the lease's job is there, or may be about to come.

        :param patience: seconds that a job may need from its lease to its container.
        """
        return lease.job in self.live or (lease.job not in self.ended and lease.age < patience)

    def taken(self, job: str, patience: float) -> set[str]:
        """UUIDs of the GPUs that other jobs have."""
        running = {gpu for name, gpus in self.live.items() if name != job for gpu in gpus}
        return running | {each.gpu for each in self.leases if each.job != job and self.held(each, patience)}

    def own(self, job: str) -> set[str]:
        """UUIDs of the GPUs that a job has a lease of."""
        return {lease.gpu for lease in self.leases if lease.job == job}

    def on(self, gpu: str) -> Lease | None:
        """The lease of a GPU."""
        return next((lease for lease in self.leases if lease.gpu == gpu), None)


class GpuLeases:
    """
    Leases of the GPUs of one engine.

    :param patience: seconds after which a lease without a job's container is taken for one whose creator died.
    """

    def __init__(self, hook: DockerEngineHook, patience: float) -> None:
        self.hook = hook
        self.patience = patience

    def take(self, job: ContainerJob, image: EngineImage) -> tuple[str, ...]:
        """Take the GPUs that a job asks for, all of them or none.

        :return: their UUIDs, in order; none when it asks for none.
        :raises GpusTakenError: when other jobs hold too many.
        :raises GpusMissingError: when the engine has not so many, or not these.
        """
        request = GpuRequest.parse(job.resources.gpus)
        if not request:
            return ()
        inventory = gpus_of_engine(self.hook, image.id)
        for _ in range(TRIES):
            bookings = self.look()
            taken = bookings.taken(job.name, self.patience)
            chosen = choose_gpus(request, inventory, taken, bookings.own(job.name))
            if chosen is None:
                break
            if self._take_all(job, image, chosen, bookings):
                return chosen
            # Others may be choosing at the same moments.
            time.sleep(random.uniform(0.01, 0.1))  # noqa: S311  no secret
        raise self._busy(request, job.name)

    def check(self, name: str) -> None:
        """Make sure that a job, whose container exists by now, has its GPUs for itself.

        :raises GpusTakenError: when somebody else came in between.
        """
        bookings = self.look()
        gpus = set(bookings.live.get(name, ()))
        if not gpus <= bookings.own(name) or gpus & bookings.taken(name, 0):
            raise GpusTakenError(
                f"Job {name} has lost its lease of {', '.join(sorted(gpus))} to another job."
            )

    def release(self, name: str) -> None:
        """Give back all GPUs of a job."""
        for lease in self.hook.containers([f"{LABEL}name={name}", LEASE]):
            self.hook.remove(lease["Id"])

    def look(self) -> Bookings:
        """Who holds what at this moment."""
        return Bookings.read(self.hook.containers([GPUS]))

    def free(self, name: str, gpus: Any, image: str) -> bool:
        """Whether a job could have its GPUs at this moment."""
        taken = self.look().taken(name, self.patience)
        return choose_gpus(GpuRequest.parse(gpus), gpus_of_engine(self.hook, image), taken) is not None

    def _take_all(
        self, job: ContainerJob, image: EngineImage, gpus: tuple[str, ...], bookings: Bookings
    ) -> bool:
        taken: list[str] = []
        for gpu in gpus:
            lease = bookings.on(gpu)
            if lease is not None and lease.job == job.name:
                continue
            if lease is not None:
                log.info("GPU %s was left by job %s, which is over: taking it over", gpu, lease.job)
                self.hook.remove(lease.id)
            made = self.hook.create(lease_name(gpu), lease_config(job, image, gpu))
            if not made:
                for container in taken:
                    self.hook.remove(container)
                return False
            taken.append(made)
        return True

    def _busy(self, request: GpuRequest, name: str) -> GpusTakenError:
        holders = sorted({lease.job for lease in self.look().leases if lease.job != name})
        return GpusTakenError(
            f"Docker Engine {self.hook.address.url} has not {request} free: held by {', '.join(holders) or 'others'}."
        )


def lease_name(gpu: str) -> str:
    """Name of the container that is the lease of a GPU: the same for everybody who asks this engine."""
    return "mlops-gpu-" + re.sub(r"[^a-zA-Z0-9_.-]", "-", gpu)
