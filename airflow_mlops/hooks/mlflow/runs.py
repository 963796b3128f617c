"""MLflow's runs by its REST API alone: MLflow's own package takes seconds to import, and a job waits for them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

from airflow.sdk import BaseHook

from airflow_mlops.exceptions import TrackingError
from airflow_mlops.hooks.connections.find import find_connection
from airflow_mlops.hooks.mlflow.session import TrackingServer, refused_as
from airflow_mlops.hooks.mlflow.values import (
    MetricNames,
    batches,
    to_column,
    to_metric,
    to_pairs,
    to_parameters,
)
from airflow_mlops.primitives.texts.documents import json_text

#: Tag that finds a run again, whoever created it.
JOB_TAG = "airflow_mlops.job"
#: Why a run ended without a model.
REASON_TAG = "airflow_mlops.reason"
#: Tags of runs, of their dataset inputs and of model versions: see primitives/registration/lineage.py.
DATASET_TAG, APPLICATION_TAG = "airflow_mlops.dataset_id", "airflow_mlops.application"
#: What the gate said of a run's model: ``passed``, ``failed`` or ``dry_run_failed``.
GATE_TAG = "airflow_mlops.gate"
#: MLflow's page opens an experiment without it as one of GenAI, with traces in place of runs and models.
EXPERIMENT_KIND = {"mlflow.experimentKind": "custom_model_development"}

RunStatus = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
OPEN: tuple[str, ...] = ("RUNNING", "SCHEDULED")

METRICS_PER_BATCH = 1000
_PARAMETERS_PER_BATCH = 100
_EXPERIMENTS_PER_SEARCH = 100
_RUNS_PER_PAGE = 1000
_DIGEST_LENGTH = 36
_SCHEMA_LENGTH = 1_000_000


@dataclass(frozen=True)
class RunInfo:
    """One run.

    :param status: ``RUNNING``, ``SCHEDULED``, ``FINISHED``, ``FAILED`` or ``KILLED``.
    :param start_time: milliseconds since 1970.
    """

    run_id: str
    experiment_id: str
    status: str
    start_time: int
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    datasets: frozenset[str] = frozenset()

    @classmethod
    def from_json(cls, run: Mapping[str, Any]) -> RunInfo:
        """Read what the server says; ``datasets`` are the ids of our dataset versions among the inputs."""
        info, data = run["info"], run.get("data") or {}
        inputs = (run.get("inputs") or {}).get("dataset_inputs") or ()
        named = {
            tag["value"] for entry in inputs for tag in entry.get("tags") or () if tag["key"] == DATASET_TAG
        }
        tags = _pairs(data.get("tags"))
        return cls(
            run_id=info["run_id"],
            experiment_id=str(info["experiment_id"]),
            status=info.get("status") or "",
            start_time=int(info.get("start_time") or 0),
            tags=tags,
            params=_pairs(data.get("params")),
            datasets=frozenset(named | ({tags[DATASET_TAG]} if DATASET_TAG in tags else set())),
        )


class MLflowRunsHook(BaseHook):
    """
    The runs of an MLflow tracking server. Every call may be repeated.

    :param mlflow_conn_id: connection of type ``mlflow``, see :class:`~airflow_mlops.hooks.mlflow.hook.MLflowHook`.
    """

    conn_name_attr: ClassVar[str] = "mlflow_conn_id"
    default_conn_name: ClassVar[str] = "mlflow_default"
    conn_type: ClassVar[str] = "mlflow"
    hook_name: ClassVar[str] = "MLflow"

    def __init__(self, mlflow_conn_id: str = "mlflow_default", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mlflow_conn_id = mlflow_conn_id

    @cached_property
    def server(self) -> TrackingServer:
        """The server that the connection names."""
        return TrackingServer.from_connection(find_connection(self.mlflow_conn_id, TrackingError, "mlflow"))

    @cached_property
    def answering(self) -> TrackingServer:
        """The server, after a look whether it is there."""
        self.server.probe()
        return self.server

    # Beginning and ending ----------------------------------------------------------------------

    def find_or_create_run(
        self, experiment: str, key: str, *, name: str | None = None, tags: Mapping[str, Any] | None = None
    ) -> str:
        """Return the id of the run that carries ``key``, making run and experiment when there is none.

        A run that had failed or was killed is set to running again. When two processes make a run at once, both
        keep the oldest; MLflow has no unique key for runs, so within some 50 ms both may survive.

        :param key: what the run stands for: the name of the training job.
        :param tags: set at creation, and again when the run is found.
        """
        doing = f"Finding the run of {key} in experiment {experiment!r}"
        experiment_id = self._experiment_id(doing, experiment)
        run = self._oldest(doing, experiment_id, key)
        if run is None:
            created = self._create(doing, experiment_id, name, {**(tags or {}), JOB_TAG: key})
            run = self._oldest(doing, experiment_id, key) or created
            if run.run_id != created.run_id:
                self.answering.call(doing, "runs/delete", run_id=created.run_id)
        else:
            self.set_tags(run.run_id, tags or {})
        if run.status in ("FAILED", "KILLED"):
            self.answering.call(doing, "runs/update", run_id=run.run_id, status="RUNNING")
            if REASON_TAG in run.tags:
                self.answering.call(doing, "runs/delete-tag", run_id=run.run_id, key=REASON_TAG)
        return run.run_id

    def find_run(self, experiment: str, key: str) -> RunInfo | None:
        """The run that carries ``key``; ``None`` when there is none."""
        doing = f"Looking for the run of {key} in experiment {experiment!r}"
        found = self._experiment(doing, experiment)
        return self._oldest(doing, str(found["experiment_id"]), key) if found else None

    def run(self, run_id: str) -> RunInfo:
        """One run.

        :raises TrackingError: there is none.
        """
        return RunInfo.from_json(self._read(f"Reading run {run_id}", "runs/get", run_id=run_id)["run"])

    def finish_run(self, run_id: str, status: RunStatus = "FINISHED", reason: str = "") -> None:
        """End the run as ``FINISHED``, ``FAILED`` or ``KILLED``.

        :param reason: why, when it did not finish; becomes the tag ``airflow_mlops.reason``.
        """
        if reason:
            self.set_tags(run_id, {REASON_TAG: reason})
        now = int(time.time() * 1000)
        self.answering.call(
            f"Finishing run {run_id}", "runs/update", run_id=run_id, status=status, end_time=now
        )

    def open_runs(self, application: str = "") -> list[RunInfo]:
        """Runs of ours that are open now.

        :param application: only of this application; of all by default.
        """
        marked = f"tags.`{JOB_TAG}` LIKE '%'"
        mine = f" AND tags.`{APPLICATION_TAG}` = {quoted(application)}" if application else ""
        return list(self._open(f" AND {marked}{mine}"))

    def refused_runs(self, experiment: str, application: str, dag_run_id: str) -> list[RunInfo]:
        """Runs of a DAG run whose model the gate has refused.

        :param dag_run_id: Airflow's ``run_id``.
        """
        doing = f"Looking for the trainings of run {dag_run_id}"
        found = self._experiment(doing, experiment)
        wanted = (
            f"tags.`{APPLICATION_TAG}` = {quoted(application)} AND tags.`airflow_mlops.run_id` = {quoted(dag_run_id)} "
            f"AND tags.`{GATE_TAG}` = 'failed'"
        )
        return list(self._search(doing, [str(found["experiment_id"])], wanted)) if found else []

    def run_url(self, run: RunInfo) -> str:
        """Page of a run in the MLflow UI."""
        return f"{self.server.uri}/#/experiments/{run.experiment_id}/runs/{run.run_id}"

    # What belongs to a run ---------------------------------------------------------------------

    def set_tags(self, run_id: str, tags: Mapping[str, Any]) -> None:
        """Set tags of a run, replacing those of the same name."""
        for batch in batches(to_pairs(tags), _PARAMETERS_PER_BATCH):
            self.answering.call(f"Tagging run {run_id}", "runs/log-batch", run_id=run_id, tags=batch)

    def log_parameters(self, run_id: str, parameters: Mapping[str, Any]) -> None:
        """Log parameters; anything but text is written as JSON, and each has a name that MLflow takes.

        :raises TrackingError: the run has a parameter of this name with another value already.
        """
        for batch in batches(to_parameters(parameters), _PARAMETERS_PER_BATCH):
            doing = f"Logging parameters of run {run_id}"
            self.answering.call(doing, "runs/log-batch", run_id=run_id, params=batch)

    def log_metrics(self, run_id: str, metrics: Sequence[Mapping[str, Any]]) -> None:
        """Log entries as the model code writes them to ``metrics.json``, named by :class:`~airflow_mlops.hooks.mlflow.values.MetricNames`.

        Without ``timestamp`` (milliseconds) an entry takes the start of the run, so that logging the same entries
        again adds nothing. A step that was logged while the job ran is not logged a second time.
        """
        names = MetricNames()
        named = [(names.of(entry), entry) for entry in metrics]
        start, seen = self.run(run_id).start_time, self._steps(run_id, named)
        new = [(name, entry) for name, entry in named if (name, entry.get("step")) not in seen]
        for batch in batches([to_metric(name, entry, start) for name, entry in new], METRICS_PER_BATCH):
            self.answering.call(
                f"Logging metrics of run {run_id}", "runs/log-batch", run_id=run_id, metrics=batch
            )

    def log_dataset(
        self,
        run_id: str,
        *,
        name: str,
        digest: str,
        source: str,
        context: str = "training",
        schema: Sequence[Mapping[str, str]] = (),
        rows: int | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log a dataset version as input of the run.

        MLflow knows a dataset by name and the first 36 characters of its digest, and one context for each: log
        a second context of the same version under another name.

        :param digest: id of the dataset version; kept whole in the tag ``airflow_mlops.dataset_id``.
        :param source: URI of the manifest.
        :param context: ``training``, ``validation`` or ``testing``.
        :param schema: ``name`` and ``type`` of each column.
        """
        columns = json_text({"mlflow_colspec": [to_column(column) for column in schema]})
        dataset = {
            "name": name,
            "digest": digest[:_DIGEST_LENGTH],
            "source_type": "s3" if source.startswith("s3://") else "local",
            "source": json_text({"uri": source.removeprefix("file://")}),
        }
        if schema and len(columns) <= _SCHEMA_LENGTH:
            dataset["schema"] = columns
        if rows is not None:
            dataset["profile"] = json_text({"num_rows": rows})
        marks = {"mlflow.data.context": context, DATASET_TAG: digest, **(tags or {})}
        self.answering.call(
            f"Logging dataset {digest} of run {run_id}",
            "runs/log-inputs",
            run_id=run_id,
            datasets=[{"tags": to_pairs(marks), "dataset": dataset}],
        )

    def metric_history(self, run_id: str, key: str) -> list[dict[str, Any]]:
        """All points of one metric, each with ``value``, ``step`` and ``timestamp``."""
        doing, points, token = f"Reading metric {key!r} of run {run_id}", list[dict[str, Any]](), ""
        while True:
            query = {"run_id": run_id, "metric_key": key, "max_results": "25000"}
            answer = self._read(
                doing, "metrics/get-history", **query, **({"page_token": token} if token else {})
            )
            points += answer.get("metrics") or []
            token = answer.get("next_page_token") or ""
            if not token:
                return points

    # The server --------------------------------------------------------------------------------

    def _steps(self, run_id: str, named: Sequence[tuple[str, Mapping[str, Any]]]) -> set[tuple[str, Any]]:
        """Name and step of what the run has already, of the names that are about to be logged by step."""
        names = {name for name, entry in named if entry.get("step") is not None}
        return {
            (name, int(point.get("step") or 0))
            for name in names
            for point in self.metric_history(run_id, name)
        }

    def _read(self, doing: str, path: str, **query: str) -> dict[str, Any]:
        status, answer = self.answering.get(path, **query)
        if status != 200:
            raise self.server.refusal(doing, status, answer)
        return dict(answer)

    def _experiment(self, doing: str, name: str) -> dict[str, Any] | None:
        status, answer = self.answering.get("experiments/get-by-name", experiment_name=name)
        if status == 200:
            return dict(answer["experiment"])
        error = self.server.refusal(doing, status, answer)
        if refused_as(error.__cause__, "RESOURCE_DOES_NOT_EXIST"):
            return None
        raise error

    def _experiment_id(self, doing: str, name: str) -> str:
        found = self._experiment(doing, name)
        if found is None:
            try:
                created = self.answering.call(
                    doing, "experiments/create", name=name, tags=to_pairs(EXPERIMENT_KIND)
                )
                return str(created["experiment_id"])
            except TrackingError as error:
                if not refused_as(error.__cause__, "RESOURCE_ALREADY_EXISTS"):
                    raise
                found = self._experiment(doing, name)
        if found is None or found.get("lifecycle_stage", "active") != "active":
            raise TrackingError(
                f"Experiment {name!r} was deleted in MLflow, and its name is taken until it is purged. "
                "Cure: restore it, or name another one under tracking.experiment."
            )
        experiment_id, known = str(found["experiment_id"]), _pairs(found.get("tags"))
        for key, value in EXPERIMENT_KIND.items():
            if key not in known:
                body = {"experiment_id": experiment_id, "key": key, "value": value}
                self.answering.call(doing, "experiments/set-experiment-tag", **body)
        return experiment_id

    def _create(self, doing: str, experiment_id: str, name: str | None, tags: Mapping[str, Any]) -> RunInfo:
        body: dict[str, Any] = {"experiment_id": experiment_id, "start_time": int(time.time() * 1000)}
        body |= {"tags": to_pairs(tags), **({"run_name": name} if name else {})}
        return RunInfo.from_json(self.answering.call(doing, "runs/create", **body)["run"])

    def _oldest(self, doing: str, experiment_id: str, key: str) -> RunInfo | None:
        wanted = f"tags.`{JOB_TAG}` = {quoted(key)}"
        runs = self._search(doing, [experiment_id], wanted)
        return min(runs, key=lambda run: (run.start_time, run.run_id), default=None)

    def _search(self, doing: str, experiment_ids: Sequence[str], wanted: str) -> Iterator[RunInfo]:
        body: dict[str, Any] = {"experiment_ids": list(experiment_ids), "filter": wanted}
        body["max_results"] = _RUNS_PER_PAGE
        while True:
            answer = self.answering.call(doing, "runs/search", **body)
            yield from map(RunInfo.from_json, answer.get("runs") or ())
            if not answer.get("next_page_token"):
                return
            body["page_token"] = answer["next_page_token"]

    def _open(self, also: str = "") -> Iterator[RunInfo]:
        doing = "Looking for open runs"
        for group in batches(list(self._experiments(doing)), _EXPERIMENTS_PER_SEARCH):
            for status in OPEN:
                yield from self._search(doing, group, f"attributes.status = '{status}'{also}")

    def _experiments(self, doing: str) -> Iterator[str]:
        body: dict[str, Any] = {"max_results": _RUNS_PER_PAGE}
        while True:
            answer = self.answering.call(doing, "experiments/search", **body)
            yield from (str(found["experiment_id"]) for found in answer.get("experiments") or ())
            if not answer.get("next_page_token"):
                return
            body["page_token"] = answer["next_page_token"]


def quoted(value: str) -> str:
    """A text as a filter of MLflow's search takes it.

    :raises TrackingError: it holds both kinds of quotation marks.
    """
    mark = '"' if "'" in value else "'"
    if mark in value:
        raise TrackingError(f"MLflow cannot search for {value!r}: it holds both kinds of quotation marks.")
    return f"{mark}{value}{mark}"


def _pairs(values: Sequence[Mapping[str, str]] | None) -> dict[str, str]:
    return {pair["key"]: pair.get("value", "") for pair in values or ()}
