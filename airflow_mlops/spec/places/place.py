"""What a place where jobs run declares: what it needs, and what it can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

from airflow_mlops.spec.values import Section, complaint

__all__ = ["AnyGpus", "CountedGpus", "Gpus", "Place"]


@dataclass(frozen=True)
class Gpus:
    """How GPUs of a place may be asked for.

    :param kinds: Python types of the requests that it takes, beside 0.
    :param problem: what is wrong with any other request.
    :param expected: what a right request looks like.
    :param cure: what to write.
    """

    kinds: tuple[type, ...]
    problem: str
    expected: str = ""
    cure: str = "write gpus: 1"

    def check(self, gpus: Any, run_on: str, *above: str) -> None:
        """Refuse a request that the place cannot meet.

        :param gpus: the request as a JSON value; 0 asks for none.
        :param above: keys between the section that is checked and the request.
        :raises PydanticCustomError: it cannot.
        """
        if gpus != 0 and not isinstance(gpus, self.kinds):
            problem = self.problem.format(run_on=run_on)
            raise complaint(problem, expected=self.expected, cure=self.cure, at=(*above, "gpus"))


#: A number, all, UUIDs, or a type.
AnyGpus = Gpus((int, str, list, tuple, dict), "")
#: A number alone.
CountedGpus = Gpus(
    (int,), "must be a number with run_on: {run_on}", "a number; their type comes with the machines"
)


class Place(Section):
    """A place where jobs run: the keys of its section, and what it declares.

    A new place is one such class and one line in :data:`airflow_mlops.spec.places.PLACES`.
    """

    #: One sentence about its section.
    about: ClassVar[str] = ""
    #: The key of ``code`` that it runs: ``image``, or ``process`` for a command on the machine itself.
    runs: ClassVar[str] = "image"
    #: Keys of its section that must be given, each with an example.
    needs: ClassVar[Mapping[str, str]] = {}
    gpus: ClassVar[Gpus] = AnyGpus
    #: Whether several machines may train one model.
    machines: ClassVar[bool] = False
    #: Whether it hands secrets over so that only the job sees them; if not, what to do instead.
    keeps_secrets: ClassVar[bool] = True
    #: Whether data goes in and out through a bucket; such a section has the key ``staging``.
    staged: ClassVar[bool] = False

    def runner(self, jobs: str, time_limit: timedelta) -> dict[str, Any]:
        """Kind and options of the runner, as :func:`airflow_mlops.runners.get_runner` takes them.

        :param jobs: folder of jobs, for places that run them on the worker's machine.
        :param time_limit: longest time of one job.
        """
        raise NotImplementedError

    def job_network(self) -> str:
        """Network that containers of jobs are in; ``none`` where the place itself decides."""
        return "none"

    def check_needs(self, run_on: str) -> None:
        """Refuse a section that lacks what the place needs.

        :raises PydanticCustomError: it lacks a key.
        """
        for key, example in self.needs.items():
            if getattr(self, key) is None:
                raise complaint(f"is needed for run_on: {run_on}", cure=f"add {example}", at=(key,))

    def staged_at(self, store: str, run_on: str) -> Place:
        """The place with the address through which data goes in and out: the store, if no other is given.

        :param store: URI of the artifact store.
        :raises PydanticCustomError: neither is on S3.
        """
        staging = getattr(self, "staging") or store  # noqa: B009  the key of staged places alone
        if not staging.startswith("s3://"):
            raise complaint(
                f"must be on S3, through which jobs of {run_on} get their data",
                expected="s3://bucket/prefix, or s3://connection@bucket/prefix",
                cure="add staging: s3://my-bucket/staging, or put the store on S3",
                at=(run_on, "staging"),
            )
        return self.model_copy(update={"staging": staging})

    @classmethod
    def check_secrets(cls, secrets: Mapping[str, str], run_on: str) -> None:
        """Refuse secrets where they would be seen by everybody who may look at a job.

        :raises PydanticCustomError: there are some.
        """
        if secrets and not cls.keeps_secrets:
            raise complaint(
                f"cannot be handed over with run_on: {run_on}",
                expected="nothing: everybody who may describe a job there sees all that it was given",
                cure="let the model code read them from AWS Secrets Manager, by its role",
            )

    @classmethod
    def check_machines(cls, nodes: int, run_on: str, others: Sequence[str]) -> None:
        """Refuse several machines where there is one.

        :param nodes: machines that one training asks for.
        :param others: places that have several.
        :raises PydanticCustomError: there is one.
        """
        if nodes > 1 and not cls.machines:
            raise complaint(
                f"is {nodes}, and run_on: {run_on} has one machine",
                expected=f"1, or run_on: {', '.join(others[:-1])} or {others[-1]}",
                cure="write nodes: 1 and processes_per_node",
                at=("nodes",),
            )
