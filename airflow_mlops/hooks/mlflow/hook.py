"""MLflow: runs with what went into them, and the registry of models."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_mlops.exceptions import TrackingError, TrackingUnavailableError
from airflow_mlops.hooks.mlflow.runs import (
    APPLICATION_TAG,
    DATASET_TAG,
    JOB_TAG,
    REASON_TAG,
    MLflowRunsHook,
    RunInfo,
    quoted,
)
from airflow_mlops.hooks.mlflow.session import refused_as, transfer, translated
from airflow_mlops.hooks.mlflow.values import to_tags
from airflow_mlops.hooks.scratch import scratch_folder
from airflow_mlops.primitives.registration.files import differences, file_digests
from airflow_mlops.primitives.registration.record import RECORD_FILE, TrainingRecord
from airflow_mlops.primitives.texts.documents import json_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

__all__ = [
    "APPLICATION_TAG",
    "CHALLENGER",
    "CHAMPION",
    "DATASET_TAG",
    "EVALUATION_FILE",
    "JOB_TAG",
    "JSON_LIMIT",
    "REASON_TAG",
    "THRESHOLD_TAG",
    "MLflowHook",
    "ModelVersionInfo",
    "RunInfo",
]

#: Alias of the version that is used, and of a newer one that waits to take its place.
CHAMPION, CHALLENGER = "champion", "challenger"

#: Where a run keeps its evaluation, exactly as the model code gave it.
EVALUATION_FILE = "evaluation/metrics.json"
#: The probability from which a row counted as positive in that evaluation.
THRESHOLD_TAG = "airflow_mlops.threshold"
#: Bytes of a JSON artifact that are read at most.
JSON_LIMIT = 16 * 1024**2


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


class MLflowHook(MLflowRunsHook):
    """
    Speaks to an MLflow tracking server with model registry.

    Every call may be repeated: what exists already is found again, by tag, by run, or by content. Errors are
    :class:`~airflow_mlops.exceptions.TrackingUnavailableError` (try again) and
    :class:`~airflow_mlops.exceptions.TrackingError`. Settings for TLS are MLflow's own environment variables
    (``MLFLOW_TRACKING_SERVER_CERT_PATH``, …), and so are ``MLFLOW_HTTP_REQUEST_TIMEOUT`` and
    ``MLFLOW_HTTP_REQUEST_MAX_RETRIES`` where the defaults here do not fit.

    :param mlflow_conn_id: connection of type ``mlflow``: the URL as host (or schema, host and port apart), login
        and password for basic authentication, or a password alone as a bearer token.
    """

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

    # Files of runs ----------------------------------------------------------------------------

    def log_evaluation(self, run_id: str, metrics: Sequence[Mapping[str, Any]]) -> None:
        """Keep the metrics of an evaluation exactly (``evaluation/metrics.json``) and log them as metrics too."""
        self.log_json(run_id, EVALUATION_FILE, [dict(metric) for metric in metrics])
        self.log_metrics(run_id, metrics)

    def evaluation(self, run_id: str) -> list[dict[str, Any]]:
        """What :meth:`log_evaluation` was given for this run; empty when it never was."""
        value = self.read_json(run_id, EVALUATION_FILE)
        return value if isinstance(value, list) else []

    def log_directory(self, run_id: str, local: Path, artifact_path: str) -> None:
        """Copy a folder into the artifacts of a run, and read it back.

        :raises TrackingUnavailableError: MLflow gives other files back than it was given; the same call may succeed later.
        """
        given = file_digests(local)
        with self._calling(f"Storing {artifact_path} of run {run_id}") as client, transfer():
            client.log_artifacts(run_id, str(local), artifact_path)
        if not given:
            return
        with scratch_folder() as folder:
            found = file_digests(self.download(run_id, artifact_path, Path(folder)))
        # What an earlier try left there beside these is not of this one.
        if wrong := differences(given, {path: found[path] for path in found.keys() & given.keys()}):
            raise TrackingUnavailableError(
                f"Storing {artifact_path} of run {run_id}: the MLflow server at {self.server.uri} gives back other files "
                f"than it was given: {_few(wrong)}. Cure: look at its log and its artifact store; the task can be retried."
            )

    def log_file(self, run_id: str, local: Path, artifact_path: str | None = None) -> None:
        """Copy a file into a folder of the run's artifacts."""
        with self._calling(f"Storing {local.name} of run {run_id}") as client, transfer():
            client.log_artifact(run_id, str(local), artifact_path)

    def log_json(self, run_id: str, artifact_file: str, value: Any) -> None:
        """Write JSON into an artifact, replacing what was there."""
        self.log_text(run_id, artifact_file, json_text(value, indent=1, sort_keys=True))

    def log_text(self, run_id: str, artifact_file: str, text: str) -> None:
        """Write text into an artifact, replacing what was there."""
        with scratch_folder() as folder:
            path = Path(folder) / artifact_file.rpartition("/")[2]
            path.write_text(text, encoding="utf-8")
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
            with scratch_folder() as scratch:
                path = Path(client.download_artifacts(run_id, artifact_file, scratch))
                try:
                    # Written by our own operators; the bound is for what somebody put there in their place.
                    return json.loads(path.read_bytes())
                except (ValueError, RecursionError) as error:
                    raise TrackingError(f"{artifact_file} of run {run_id} is not JSON: {error}.") from error

    def directory_size(self, run_id: str, artifact_path: str) -> int:
        """Bytes of all files of a folder of the run's artifacts."""
        total, folders = 0, [artifact_path]
        with self._calling(f"Measuring {artifact_path} of run {run_id}") as client, transfer():
            while folders:
                for found in client.list_artifacts(run_id, folders.pop()):
                    if found.is_dir:
                        folders.append(found.path)
                    else:
                        total += int(found.file_size or 0)
        return total

    def download(self, run_id: str, artifact_path: str, destination: Path) -> Path:
        """Copy a folder or file of the run's artifacts below ``destination``; returns where it lies.

        :raises TrackingError: the run has nothing there.
        """
        destination.mkdir(parents=True, exist_ok=True)
        with self._calling(f"Fetching {artifact_path} of run {run_id}") as client, transfer():
            return Path(client.download_artifacts(run_id, artifact_path, str(destination)))

    def record(self, run_id: str) -> TrainingRecord | None:
        """The record of the training that a run is; ``None`` when it keeps none."""
        found = self.read_json(run_id, RECORD_FILE)
        return None if found is None else TrainingRecord.from_dict(found, f"run {run_id}")

    def fetch_model(self, run_id: str, destination: Path) -> Path:
        """Copy the model of a run below ``destination``, held against the digests of its record; returns where it lies.

        A run without a record, or with one of a release that kept no digests, is taken as it is, with a warning.

        :raises TrackingError: the run has no model, or its files are not those of the record.
        """
        record, model = self.record(run_id), self.download(run_id, "model", destination)
        expected = record.stored_files if record else {}
        if not expected:
            self.log.warning("Run %s keeps no digests of its model: what came was not verified", run_id)
        elif wrong := differences(expected, file_digests(model)):
            raise TrackingError(
                f"The model of run {run_id}, from the MLflow server at {self.server.uri}, is not the one that was trained: "
                f"by the digests in {RECORD_FILE}, {_few(wrong)}. Cure: put these files of the run's artifacts back from a "
                "backup, or train again."
            )
        return model

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
        return self.by_alias(model, CHAMPION)

    def by_alias(self, model: str, alias: str) -> ModelVersionInfo | None:
        """The version that an alias names; ``None`` when it names none, or there is no such model."""
        status, answer = self.answering.get("registered-models/alias", name=model, alias=alias)
        if status == 200:
            return _info_of(answer["model_version"])
        code, message = answer.get("error_code"), str(answer.get("message", ""))
        # MLflow calls a missing alias an invalid parameter.
        missing = code == "INVALID_PARAMETER_VALUE" and "alias" in message and "not found" in message
        if missing or code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise TrackingError(
            f"Reading the {alias} of model {model!r} failed: the MLflow server at {self.server.uri} answered "
            f"{status}: {message[:300]}"
        )

    def set_champion(self, model: str, version: str) -> None:
        """Let the alias ``champion`` name this version, whichever it named before."""
        self.set_alias(model, CHAMPION, version)

    def set_alias(self, model: str, alias: str, version: str) -> None:
        """Let an alias name this version, whichever it named before."""
        from mlflow.exceptions import MlflowException

        with self._calling(f"Making version {version} of model {model!r} the {alias}") as client:
            try:
                client.set_registered_model_alias(model, alias, version)
            except MlflowException as error:
                # Of two that make the alias at once, one is refused by MLflow's database. Now there is one to change.
                if "INSERT INTO registered_model_aliases" not in str(error):
                    raise
                client.set_registered_model_alias(model, alias, version)

    def drop_alias(self, model: str, alias: str) -> None:
        """Let an alias name no version; no error when it named none."""
        with self._calling(f"Removing the alias {alias} of model {model!r}") as client:
            client.delete_registered_model_alias(model, alias)

    def set_version_tags(self, model: str, version: str, tags: Mapping[str, Any]) -> None:
        """Set tags of a model version, replacing those of the same name."""
        with self._calling(f"Tagging version {version} of model {model!r}") as client:
            for key, value in to_tags(tags).items():
                client.set_model_version_tag(model, version, key, value)

    def describe_version(self, model: str, version: str, text: str) -> None:
        """Write what the MLflow UI shows on the page of a version, as Markdown."""
        with self._calling(f"Describing version {version} of model {model!r}") as client:
            client.update_model_version(model, version, text)

    def versions(self, model: str) -> list[ModelVersionInfo]:
        """All versions of a model, oldest first; empty when there is no such model."""
        with self._calling(f"Listing the versions of model {model!r}") as client:
            found = _pages(client.search_model_versions, f"name = {quoted(model)}")
            return sorted(map(_info, found), key=lambda version: int(version.version))

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
        for run in self._open():
            for dataset in sorted(run.datasets):
                used.setdefault(dataset, []).append(f"open run {run.run_id}")
        return used

    def model_url(self, model: str, version: str) -> str:
        """Page of a model version in the MLflow UI."""
        return f"{self.server.uri}/#/models/{quote(model, safe='')}/versions/{version}"

    @cached_property
    def _client(self) -> MlflowClient:
        return self.answering.client()

    @contextlib.contextmanager
    def _calling(self, doing: str) -> Iterator[MlflowClient]:
        client = self._client
        with translated(self.server, doing):
            yield client


def _few(words: Sequence[str]) -> str:
    more = f", and {len(words) - 5} more" if len(words) > 5 else ""
    return ", ".join(words[:5]) + more


def _create_registered_model(client: MlflowClient, model: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(model)
    except MlflowException as error:
        if not refused_as(error, "RESOURCE_ALREADY_EXISTS"):
            raise


def _version_of_run(client: MlflowClient, model: str, run_id: str) -> ModelVersion | None:
    # Version numbers are given one after another in a transaction: whoever sees its own sees all lower ones.
    versions = client.search_model_versions(f"name = {quoted(model)} and run_id = {quoted(run_id)}")
    return min(versions, key=lambda version: int(version.version), default=None)


def _pages(search: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(*arguments, page_token=token, **options)
        yield from page
        token = page.token
        if not token:
            return


def _info(version: ModelVersion) -> ModelVersionInfo:
    return ModelVersionInfo(
        model=version.name,
        version=str(version.version),
        run_id=version.run_id or "",
        source=version.source or "",
        tags=dict(version.tags or {}),
    )


def _info_of(version: Mapping[str, Any]) -> ModelVersionInfo:
    return ModelVersionInfo(
        model=version["name"],
        version=str(version["version"]),
        run_id=version.get("run_id") or "",
        source=version.get("source") or "",
        tags={tag["key"]: tag.get("value", "") for tag in version.get("tags") or ()},
    )
