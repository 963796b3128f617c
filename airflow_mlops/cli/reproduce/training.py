"""Doing a recorded training again, without a scheduler: the same code, data, parameters and seed."""

from __future__ import annotations

import sys
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_mlops.primitives.registration.record import TrainingRecord
    from airflow_mlops.runners.protocol import LogLine, Runner
    from airflow_mlops.stores.datasets.versions import DatasetStore


class CannotReproduceError(CommandError):
    """Something that the training needs is not there any more."""


@dataclass(frozen=True)
class Place:
    """Where the training is done again.

    :param kind: of the runner.
    :param options: of the runner.
    :param seconds: that each job may take.
    """

    kind: str
    options: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """What came out.

    :param training: metrics of the training.
    :param evaluation: metrics of the evaluation; ``None`` when there was none to compare with.
    :param files: path → SHA-256 of the model.
    :param environment: what the model code says that it ran with.
    """

    training: list[dict[str, Any]]
    evaluation: list[dict[str, Any]] | None
    files: dict[str, str]
    environment: dict[str, Any]


def place_of(
    record: TrainingRecord, run_on: str | None, docker_conn: str | None, root: Path, seconds: float
) -> Place:
    """Where to do it: as it was done, or where the command line says.

    :raises CannotReproduceError: the record has not what that place needs.
    """
    recorded = dict(record.job.get("runner") or {})
    kind = run_on or str(recorded.get("kind") or "docker")
    if kind == "process":
        directory = str(record.code.get("directory") or "")
        if not record.code.get("entrypoint"):
            raise CannotReproduceError(
                f"The training ran in image {record.code.get('image')}, and no command line is recorded for it. "
                "Cure: --run-on docker."
            )
        if not Path(directory).is_dir():
            raise CannotReproduceError(
                f"The model code's folder {directory} is not on this machine. Cure: check it out there again, at "
                f"commit {record.code.get('git_commit') or '(none is recorded)'}."
            )
        return Place("process", {"root": str(root / "jobs")}, seconds)
    if not (record.code.get("image_digest") or record.code.get("image")):
        raise CannotReproduceError(
            "The training ran as a process, without an image. Cure: --run-on process, on a machine that has its folder."
        )
    options = (
        {key: value for key, value in recorded.items() if key != "kind"}
        if kind == recorded.get("kind")
        else {}
    )
    if kind == "docker" and docker_conn is not None:
        options["docker_conn_id"] = docker_conn
    return Place(kind, options, seconds)


class Rerun:
    """
    One training done again.

    :param record: what was done.
    :param datasets: where the dataset version is.
    :param place: where it is done.
    :param scratch: a folder for what comes and goes.
    """

    def __init__(self, record: TrainingRecord, datasets: DatasetStore, place: Place, scratch: Path) -> None:
        self.record = record
        self.datasets = datasets
        self.place = place
        self.scratch = scratch
        self._name = f"mlops-reproduce-{record.application}-{uuid.uuid4().hex[:8]}"

    def run(self, *, threshold: float | None) -> Outcome:
        """Train and, where there is a threshold, evaluate on the test split.

        :param threshold: the probability from which a row counts as positive.
        """
        from airflow_mlops.jobs.files import STEPS_LIMIT, dataset_inputs, read_metrics
        from airflow_mlops.operators.training.record import environment_record
        from airflow_mlops.primitives.registration.files import file_digests

        dataset_id = str(self.record.data["dataset_id"])
        inputs = dataset_inputs(
            self.datasets, dataset_id, ("train", "validation"), self._folder("train-data")
        )
        trained = self._folder("trained")
        self._job("train", inputs, self.record.config, ("model", "output"), trained)
        if not (trained / "model").is_dir():
            raise CannotReproduceError("The training wrote no model.")
        evaluation = None
        if threshold is not None:
            inputs = dataset_inputs(self.datasets, dataset_id, ("test",), self._folder("test-data"))
            evaluated = self._folder("evaluated")
            given = {**inputs, "model": str(trained / "model")}
            self._job("evaluate", given, self.record.config, ("output",), evaluated)
            evaluation = self._measured(evaluated / "output", threshold)
        return Outcome(
            training=read_metrics(trained / "output/metrics.json", STEPS_LIMIT),
            evaluation=evaluation,
            files=file_digests(trained / "model"),
            environment=environment_record(trained / "output/environment"),
        )

    def _measured(self, output: Path, threshold: float) -> list[dict[str, Any]]:
        """The figures of an evaluation, as ``EvaluateModelOperator`` logs them."""
        from airflow_mlops.jobs.files import read_metrics
        from airflow_mlops.primitives.evaluation.measures import with_measured
        from airflow_mlops.primitives.evaluation.predicted import read_predicted
        from airflow_mlops.stores.predictions import test_split

        predictions, config = output / "predictions.parquet", self.record.config
        rows = None
        if predictions.is_file():
            split = test_split(self.datasets, str(self.record.data["dataset_id"]), self._folder("truth"))
            rows = read_predicted(
                split,
                predictions,
                paradigm=str(config.get("paradigm") or "other"),
                threshold=threshold,
                seed=int(config.get("seed") or 0),
            )
        return with_measured(read_metrics(output / "metrics.json"), rows)[0]

    def _job(
        self,
        command: str,
        inputs: Mapping[str, str],
        config: Mapping[str, Any],
        paths: tuple[str, ...],
        into: Path,
    ) -> None:
        """Run one command and collect what it wrote.

        :raises CannotReproduceError: it did not succeed.
        """
        from airflow_mlops.jobs.files import read_text
        from airflow_mlops.primitives.training.outcome import classify
        from airflow_mlops.runners.protocol import ContainerJob, Distribution, Resources

        name, code, how = f"{self._name}-{command}", self.record.code, self.record.job
        image = "" if self.place.kind == "process" else str(code.get("image_digest") or code["image"])
        distributed = (how.get("distribution") or {}) if command == "train" else {}
        config = {key: value for key, value in config.items() if command == "train" or key != "distributed"}
        job = ContainerJob(
            name=name,
            command=command,
            image=image,
            entrypoint=tuple(code.get("entrypoint") or ()),
            directory=str(code.get("directory") or ""),
            config={"contract": 1, "command": command, "run": {"job": name}, **config},
            inputs=inputs,
            labels={"application": self.record.application, "store": str(self.record.data.get("store", ""))},
            resources=Resources(**(how.get("limits") or {})),
            network=str(how.get("network") or "none"),
            secrets=dict(how.get("secrets") or {}),
            distribution=Distribution(**distributed),
        )
        with self._runner(name) as runner:
            runner.submit(job)
            state = runner.wait(name, _say, deadline=time.time() + self.place.seconds)
            if state.status not in ("exited", "gone"):
                raise CannotReproduceError(
                    f"{command} ran longer than {self.place.seconds:.0f} s. Cure: raise --timeout."
                )
            runner.collect(name, paths if state.exit_code == 0 else ("output",), into)
        outcome = classify(state.to_dict(), read_text(into / "output/failure"))
        if outcome.kind != "success":
            raise CannotReproduceError(f"{command} did not succeed this time: {outcome.message}")

    @contextmanager
    def _runner(self, name: str) -> Iterator[Runner]:
        from airflow_mlops.runners import get_runner

        runner = get_runner(self.place.kind, **self.place.options)
        try:
            yield runner
        finally:
            runner.stop(name)
            runner.cleanup(name)

    def _folder(self, name: str) -> Path:
        folder = self.scratch / name
        folder.mkdir()
        return folder


def _say(line: LogLine) -> None:
    print(f"  | {line.text}", file=sys.stderr)
