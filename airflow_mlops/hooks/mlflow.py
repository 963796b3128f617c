"""MLflow: runs with what went into them, and the registry of models."""

from __future__ import annotations

import contextlib
import json
import tempfile
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from airflow.sdk import BaseHook

from airflow_mlops.exceptions import TrackingError
from airflow_mlops.hooks.mlflow_session import TrackingServer, refused_as, transfer, translated
from airflow_mlops.hooks.mlflow_values import batches, to_column, to_metric, to_tags, to_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

#: Tag that finds a run again, whoever created it.
JOB_TAG = "airflow_mlops.job"
CHAMPION = "champion"
#: Tags of runs, of their dataset inputs and of model versions: see primitives/registration/lineage.py.
DATASET_TAG, APPLICATION_TAG = "airflow_mlops.dataset_id", "airflow_mlops.application"

#: Where a run keeps its evaluation, exactly as the model code gave it.
EVALUATION_FILE = "evaluation/metrics.json"
#: Bytes of a JSON artifact that are read at most.
JSON_LIMIT = 16 * 1024**2

_EXPERIMENTS_PER_SEARCH = 100
_OPEN = ("RUNNING", "SCHEDULED")
_METRICS_PER_BATCH = 1000
_PARAMETERS_PER_BATCH = 100
_DIGEST_LENGTH = 36
_SCHEMA_LENGTH = 1_000_000


@dataclass(frozen=True)
class ModelVersionInfo:
    """One version of a registered model.

    :param version: number as text, as MLflow writes it in ``models:/<model>/<version>``.
    :param run_id: the run that trained it.
    :param source: where its files are.
    :param tags: lineage, see :class:`~airflow_mlops.primitives.registration.lineage.Lineage`.
    """

    model: str
    version: str
    run_id: str
    source: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The version as JSON values."""
        return asdict(self)


class MLflowHook(BaseHook):
    """
    Speaks to an MLflow tracking server with model registry.

    Every call may be repeated: what exists already is found again, by tag, by run, or by content. Errors are
    :class:`~airflow_mlops.exceptions.TrackingUnavailable` (try again) and
    :class:`~airflow_mlops.exceptions.TrackingError`. Settings for TLS are MLflow's own environment variables
    (``MLFLOW_TRACKING_SERVER_CERT_PATH``, …), and so are ``MLFLOW_HTTP_REQUEST_TIMEOUT`` and
    ``MLFLOW_HTTP_REQUEST_MAX_RETRIES`` where the defaults here do not fit.

    :param mlflow_conn_id: connection of type ``mlflow``: the URL as host (or schema, host and port apart), login
        and password for basic authentication, or a password alone as a bearer token.
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
        return TrackingServer.from_connection(self.get_connection(self.mlflow_conn_id))

    def get_conn(self) -> MlflowClient:
        """MLflow's own client for this connection, after a look whether the server is there."""
        return self._client

    def test_connection(self) -> tuple[bool, str]:
        """Whether the server answers and takes the login, for the button in the Airflow UI."""
        try:
            with self._calling("Testing the connection") as client:
                client.search_experiments(max_results=1)
        except TrackingError as error:
            return False, str(error)
        return True, f"The MLflow server at {self.server.uri} answers."

    # Runs --------------------------------------------------------------------------------------

    def find_or_create_run(
        self, experiment: str, key: str, *, name: str | None = None, tags: Mapping[str, str] | None = None
    ) -> str:
        """Return the id of the run that carries ``key``, making run and experiment when there is none.

        A run that had failed is set to running again. When two processes make a run at once, both keep the
        oldest; MLflow has no unique key for runs, so within some 50 ms both may survive.

        :param key: what the run stands for: the name of the training job.
        :param tags: set at creation, and again when the run is found.
        """
        with self._calling(f"Finding the run of {key} in experiment {experiment!r}") as client:
            experiment_id = _experiment_id(client, experiment)
            run = _find_run(client, experiment_id, key)
            if run is None:
                created = client.create_run(
                    experiment_id, tags={**to_tags(tags), JOB_TAG: key}, run_name=name
                )
                run = _find_run(client, experiment_id, key) or created
                if run.info.run_id != created.info.run_id:
                    client.delete_run(created.info.run_id)
            else:
                _log_tags(client, run.info.run_id, tags)
            if run.info.status in ("FAILED", "KILLED"):
                client.update_run(run.info.run_id, status="RUNNING")
            return str(run.info.run_id)

    def log_parameters(self, run_id: str, parameters: Mapping[str, Any]) -> None:
        """Log parameters; anything but text is written as JSON.

        :raises TrackingError: the run has a parameter of this name with another value already.
        """
        from mlflow.entities import Param

        values = [Param(key, to_text(value)) for key, value in sorted(parameters.items())]
        with self._calling(f"Logging parameters of run {run_id}") as client:
            for batch in batches(values, _PARAMETERS_PER_BATCH):
                client.log_batch(run_id, params=batch)

    def log_metrics(self, run_id: str, metrics: Sequence[Mapping[str, Any]]) -> None:
        """Log entries as the model code writes them to ``metrics.json``, named by :func:`~airflow_mlops.hooks.mlflow_values.metric_name`.

        Without ``timestamp`` (milliseconds) an entry takes the start of the run, so that logging the same entries
        again adds nothing.
        """
        with self._calling(f"Logging metrics of run {run_id}") as client:
            start = client.get_run(run_id).info.start_time
            for batch in batches([to_metric(entry, start) for entry in metrics], _METRICS_PER_BATCH):
                client.log_batch(run_id, metrics=batch)

    def log_evaluation(self, run_id: str, metrics: Sequence[Mapping[str, Any]]) -> None:
        """Keep the metrics of an evaluation exactly (``evaluation/metrics.json``) and log them as metrics too."""
        self.log_json(run_id, EVALUATION_FILE, [dict(metric) for metric in metrics])
        self.log_metrics(run_id, metrics)

    def evaluation(self, run_id: str) -> list[dict[str, Any]]:
        """What :meth:`log_evaluation` was given for this run; empty when it never was."""
        value = self.read_json(run_id, EVALUATION_FILE)
        return value if isinstance(value, list) else []

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
        from mlflow.entities import Dataset, DatasetInput, InputTag

        kind = "s3" if source.startswith("s3://") else "local"
        columns = json.dumps({"mlflow_colspec": [to_column(column) for column in schema]})
        dataset = Dataset(
            name=name,
            digest=digest[:_DIGEST_LENGTH],
            source_type=kind,
            source=json.dumps({"uri": source.removeprefix("file://")}),
            schema=columns if schema and len(columns) <= _SCHEMA_LENGTH else None,
            profile=None if rows is None else json.dumps({"num_rows": rows}),
        )
        marks = {"mlflow.data.context": context, "airflow_mlops.dataset_id": digest, **to_tags(tags)}
        with self._calling(f"Logging dataset {digest} of run {run_id}") as client:
            client.log_inputs(
                run_id,
                datasets=[DatasetInput(dataset, [InputTag(key, value) for key, value in marks.items()])],
            )

    def set_tags(self, run_id: str, tags: Mapping[str, Any]) -> None:
        """Set tags of a run, replacing those of the same name."""
        with self._calling(f"Tagging run {run_id}") as client:
            _log_tags(client, run_id, tags)

    def log_directory(self, run_id: str, local: Path, artifact_path: str) -> None:
        """Copy a folder into the artifacts of a run."""
        with self._calling(f"Storing {artifact_path} of run {run_id}") as client, transfer():
            client.log_artifacts(run_id, str(local), artifact_path)

    def log_file(self, run_id: str, local: Path, artifact_path: str | None = None) -> None:
        """Copy a file into a folder of the run's artifacts."""
        with self._calling(f"Storing {local.name} of run {run_id}") as client, transfer():
            client.log_artifact(run_id, str(local), artifact_path)

    def log_json(self, run_id: str, artifact_file: str, value: Any) -> None:
        """Write JSON into an artifact, replacing what was there."""
        with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
            path = Path(folder) / artifact_file.rpartition("/")[2]
            path.write_text(json.dumps(value, indent=1, sort_keys=True))
            self.log_file(run_id, path, artifact_file.rpartition("/")[0] or None)

    def read_json(self, run_id: str, artifact_file: str) -> Any:
        """The JSON of an artifact; ``None`` when the run has no such artifact."""
        folder = artifact_file.rpartition("/")[0]
        with self._calling(f"Reading {artifact_file} of run {run_id}") as client:
            found = next(
                (f for f in client.list_artifacts(run_id, folder or None) if f.path == artifact_file), None
            )
            if found is None:
                return None
            if (found.file_size or 0) > JSON_LIMIT:
                raise TrackingError(
                    f"{artifact_file} of run {run_id} has {found.file_size} bytes; at most {JSON_LIMIT} are read."
                )
            with tempfile.TemporaryDirectory(prefix="mlops-") as scratch:
                path = Path(client.download_artifacts(run_id, artifact_file, scratch))
                try:
                    return json.loads(path.read_bytes())
                except ValueError as error:
                    raise TrackingError(f"{artifact_file} of run {run_id} is not JSON: {error}.") from error

    def download(self, run_id: str, artifact_path: str, destination: Path) -> Path:
        """Copy a folder or file of the run's artifacts below ``destination``; returns where it lies.

        :raises TrackingError: the run has nothing there.
        """
        destination.mkdir(parents=True, exist_ok=True)
        with self._calling(f"Fetching {artifact_path} of run {run_id}") as client, transfer():
            return Path(client.download_artifacts(run_id, artifact_path, str(destination)))

    def finish_run(self, run_id: str, status: str = "FINISHED") -> None:
        """End the run as ``FINISHED``, ``FAILED`` or ``KILLED``."""
        with self._calling(f"Finishing run {run_id}") as client:
            client.set_terminated(run_id, status)

    # Registry ----------------------------------------------------------------------------------

    def register_model(
        self, model: str, run_id: str, *, artifact_path: str = "model", tags: Mapping[str, Any] | None = None
    ) -> str:
        """Make the model of a run a version of a registered model; returns the version.

        One run gives one version, however often and from however many processes it is registered: whoever finds
        an older version of the same run after creating its own removes its own.

        :raises TrackingError: the run holds no MLflow model at ``artifact_path``.
        """
        with self._calling(f"Registering run {run_id} as model {model!r}") as client:
            found = _version_of_run(client, model, run_id)
            if found is None:
                run = client.get_run(run_id)
                files = {Path(file.path).name for file in client.list_artifacts(run_id, artifact_path)}
                if "MLmodel" not in files:
                    raise TrackingError(
                        f"Run {run_id} has no MLflow model at {artifact_path}/ to register as {model!r}: expected a "
                        f"file MLmodel there, got {', '.join(sorted(files)) or 'nothing'}."
                    )
                _create_registered_model(client, model)
                own = client.create_model_version(
                    model,
                    f"{run.info.artifact_uri}/{artifact_path}",
                    run_id,
                    tags=to_tags(tags),
                    await_creation_for=0,
                )
                found = _version_of_run(client, model, run_id) or own
                if found.version != own.version:
                    client.delete_model_version(model, own.version)
            else:
                for key, value in to_tags(tags).items():
                    client.set_model_version_tag(model, found.version, key, value)
            return str(found.version)

    def model_version(self, model: str, version: str) -> ModelVersionInfo:
        """One version of a model.

        :raises TrackingError: there is none.
        """
        with self._calling(f"Reading version {version} of model {model!r}") as client:
            return _info(client.get_model_version(model, version))

    def champion(self, model: str) -> ModelVersionInfo | None:
        """The version with the alias ``champion``; ``None`` when there is none, or no such model."""
        self.server.probe()
        status, answer = self.server.get("registered-models/alias", name=model, alias=CHAMPION)
        if status == 200:
            found = answer["model_version"]
            tags = {tag["key"]: tag.get("value", "") for tag in found.get("tags") or ()}
            return ModelVersionInfo(
                model=found["name"],
                version=str(found["version"]),
                run_id=found.get("run_id") or "",
                source=found.get("source") or "",
                tags=tags,
            )
        code, message = answer.get("error_code"), str(answer.get("message", ""))
        # MLflow calls a missing alias an invalid parameter.
        missing = code == "INVALID_PARAMETER_VALUE" and "alias" in message and "not found" in message
        if missing or code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise TrackingError(
            f"Reading the champion of model {model!r} failed: the MLflow server at {self.server.uri} answered "
            f"{status}: {message[:300]}"
        )

    def set_champion(self, model: str, version: str) -> None:
        """Let the alias ``champion`` name this version, whichever it named before."""
        with self._calling(f"Making version {version} of model {model!r} the champion") as client:
            client.set_registered_model_alias(model, CHAMPION, version)

    def datasets_in_use(self, application: str = "") -> dict[str, list[str]]:
        """Dataset versions that registered models were trained on, or that a run uses which is open now.

        :param application: only models that this application registered; all by default.
        :return: dataset id → who uses it, such as ``version 3 of model flight_delay``.
        """
        used: dict[str, list[str]] = {}
        with self._calling("Looking for the datasets in use") as client:
            for version in _pages(client.search_model_versions):
                tags = version.tags or {}
                if (dataset := tags.get(DATASET_TAG)) and application in ("", tags.get(APPLICATION_TAG, "")):
                    used.setdefault(dataset, []).append(f"version {version.version} of model {version.name}")
            experiments = [found.experiment_id for found in _pages(client.search_experiments)]
            for group, status in product(batches(experiments, _EXPERIMENTS_PER_SEARCH), _OPEN):
                for run in _pages(client.search_runs, group, f"attributes.status = '{status}'"):
                    for dataset in _datasets_of(run):
                        used.setdefault(dataset, []).append(f"open run {run.info.run_id}")
        return used

    def model_url(self, model: str, version: str) -> str:
        """Page of a model version in the MLflow UI."""
        return f"{self.server.uri}/#/models/{quote(model, safe='')}/versions/{version}"

    @cached_property
    def _client(self) -> MlflowClient:
        self.server.probe()
        return self.server.client()

    @contextlib.contextmanager
    def _calling(self, doing: str) -> Iterator[MlflowClient]:
        client = self._client
        with translated(self.server, doing):
            yield client


def _log_tags(client: MlflowClient, run_id: str, tags: Mapping[str, Any] | None) -> None:
    from mlflow.entities import RunTag

    for batch in batches([RunTag(key, value) for key, value in to_tags(tags).items()], _PARAMETERS_PER_BATCH):
        client.log_batch(run_id, tags=batch)


def _quoted(value: str) -> str:
    mark = '"' if "'" in value else "'"
    if mark in value:
        raise TrackingError(f"MLflow cannot search for {value!r}: it holds both kinds of quotation marks.")
    return f"{mark}{value}{mark}"


def _experiment_id(client: MlflowClient, name: str) -> str:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException as error:
            if not refused_as(error, "RESOURCE_ALREADY_EXISTS"):
                raise
            experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage != "active":
        raise TrackingError(
            f"Experiment {name!r} was deleted in MLflow, and its name is taken until it is purged. "
            "Cure: restore it, or name another one under tracking.experiment."
        )
    return str(experiment.experiment_id)


def _find_run(client: MlflowClient, experiment_id: str, key: str) -> Run | None:
    runs = client.search_runs([experiment_id], f"tags.`{JOB_TAG}` = {_quoted(key)}", max_results=100)
    return min(runs, key=lambda run: (run.info.start_time, run.info.run_id), default=None)


def _create_registered_model(client: MlflowClient, model: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(model)
    except MlflowException as error:
        if not refused_as(error, "RESOURCE_ALREADY_EXISTS"):
            raise


def _version_of_run(client: MlflowClient, model: str, run_id: str) -> ModelVersion | None:
    # Version numbers are given one after another in a transaction: whoever sees its own sees all lower ones.
    versions = client.search_model_versions(f"name = {_quoted(model)} and run_id = {_quoted(run_id)}")
    return min(versions, key=lambda version: int(version.version), default=None)


def _pages(search: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(*arguments, page_token=token, **options)
        yield from page
        token = page.token
        if not token:
            return


def _datasets_of(run: Run) -> set[str]:
    """Ids of the dataset versions that a run says it uses, by its tags or as its inputs."""
    inputs = run.inputs.dataset_inputs if run.inputs else ()
    named = {tag.value for entry in inputs for tag in entry.tags if tag.key == DATASET_TAG}
    return named | ({run.data.tags[DATASET_TAG]} if DATASET_TAG in run.data.tags else set())


def _info(version: ModelVersion) -> ModelVersionInfo:
    return ModelVersionInfo(
        model=version.name,
        version=str(version.version),
        run_id=version.run_id or "",
        source=version.source or "",
        tags=dict(version.tags or {}),
    )
