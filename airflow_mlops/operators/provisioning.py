"""From sources to an immutable dataset version."""

from __future__ import annotations

import hashlib
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.exceptions import AssumptionError, EmptyDatasetError
from airflow_mlops.hooks.datasets import DatasetStore
from airflow_mlops.hooks.store import open_store
from airflow_mlops.operators.errors import airflow_errors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from airflow_mlops.primitives.provisioning.version import Manifest, Purpose


class ProvisionDatasetOperator(BaseOperator):
    """
    Join examples with their features as they were known at the time, check them, and publish a dataset version.

    The same inputs give the same version, and no second copy of it. Nothing is visible before all of it
    is. Returns ``{"dataset_id", "rows", "window": [after, until], "splits": {name: rows}, "created",
    "store", "application"}``.

    :param application: name of the application.
    :param store: URI of the artifact store.
    :param examples: ``sql`` or ``parquet``, ``keys``, ``timestamp``, ``targets``, ``targets_known_at``, and
        ``folder``, which relative paths are below. Rows without time are left out.
    :param features: Feast feature service; ``None`` when the examples bring all inputs along.
    :param feast_conn_id: Airflow connection of type ``feast``.
    :param window: how far back from its end the window reaches, such as ``365d``; ``None`` for everything.
    :param split: shares of ``train``, ``validation``, ``test`` and the ``gap`` between them; ``None`` for one
        split ``train``. A prediction has one split ``predict``.
    :param assumptions: rules about the joined rows, as a YAML file states them.
    :param purpose: ``training`` takes examples whose targets are known by the end of the window;
        ``prediction`` takes all, and leaves the targets out.
    :param window_start: ISO 8601 time after which examples count, stronger than ``window``.
    :param window_end: ISO 8601 time up to which they count; the newest example by default.
    :param when_empty: what to do when there is no example: ``fail`` or ``skip``.
    """

    template_fields: Sequence[str] = (
        "application",
        "store",
        "examples",
        "features",
        "window",
        "window_start",
        "window_end",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"examples": "json"}
    ui_color = "#d8e8dc"

    def __init__(
        self,
        *,
        application: str,
        store: str,
        examples: dict[str, Any],
        features: str | None = None,
        feast_conn_id: str = "feast_default",
        window: str | None = None,
        split: dict[str, Any] | None = None,
        assumptions: list[dict[str, Any]] | None = None,
        purpose: Purpose = "training",
        window_start: Any = None,
        window_end: str | None = None,
        when_empty: Literal["fail", "skip"] = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.application = application
        self.store = store
        self.examples = examples
        self.features = features
        self.feast_conn_id = feast_conn_id
        self.window = window
        self.split = split
        self.assumptions = assumptions
        self.purpose = purpose
        self.window_start = window_start
        self.window_end = window_end
        self.when_empty = when_empty

    def execute(self, context: Context) -> dict[str, Any]:
        """Provision the dataset version of the window."""
        with airflow_errors():
            try:
                return self._provision(context)
            except EmptyDatasetError as error:
                if self.when_empty == "skip":
                    raise AirflowSkipException(str(error)) from error
                raise

    def _provision(self, context: Context) -> dict[str, Any]:
        datasets = DatasetStore(open_store(self.store), self.application)
        with tempfile.TemporaryDirectory(prefix="airflow-mlops-") as folder:
            try:
                manifest, files = self._build(datasets, Path(folder))
            except AssumptionError as error:
                raise self._reported(error, datasets) from error
            ref = "latest" if self.purpose == "training" else "latest-prediction"
            created = datasets.publish(manifest, files, _commit(context), ref)
        self.log.info(
            "%s dataset version %s of %s: %s in %d chunk(s), %d of them new",
            "Published" if created else "Found again",
            manifest.id,
            self.application,
            ", ".join(f"{rows} {name}" for name, rows in manifest.splits.items()),
            len(manifest.chunks),
            len(files),
        )
        return {
            "dataset_id": manifest.id,
            "rows": manifest.rows,
            "window": list(manifest.window),
            "splits": manifest.splits,
            "created": created,
            "store": self.store,
            "application": self.application,
        }

    def _build(self, datasets: DatasetStore, scratch: Path) -> tuple[Manifest, Mapping[str, Path]]:
        # Here and not above: a DAG file that only names this operator needs none of it.
        from airflow_mlops.hooks.feast import FeastHook
        from airflow_mlops.primitives.provisioning.dataset import DatasetRequest, build_dataset

        request = DatasetRequest.parse(
            application=self.application,
            purpose=self.purpose,
            examples=self.examples,
            features=self.features,
            window=self.window,
            window_start=self.window_start,
            window_end=self.window_end,
            split=self.split,
            assumptions=self.assumptions,
        )
        return build_dataset(
            request,
            FeastHook(self.feast_conn_id),
            scratch,
            lambda digest: datasets.store.exists(datasets.chunk_key(digest)),
        )

    def _reported(self, error: AssumptionError, datasets: DatasetStore) -> AssumptionError:
        """The error with the place of its full report, which it writes."""
        name = hashlib.sha256(str(error).encode()).hexdigest()[:16]
        key = datasets.key("assumptions", f"{self.purpose}-{name}.json")
        report = {"application": self.application, "message": str(error), "findings": error.failures}
        datasets.store.put_json_if_absent(key, report)
        return AssumptionError(f"{error} Full report: {datasets.store.address(key)}", error.failures)


def _commit(context: Context) -> dict[str, Any]:
    """Who makes this version, when, and with what."""
    task = context.get("ti")
    libraries = ("airflow-mlops", "duckdb", "feast", "pyarrow")
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "dag_id": getattr(task, "dag_id", None),
        "task_id": getattr(task, "task_id", None),
        "run_id": getattr(task, "run_id", None),
        "try_number": getattr(task, "try_number", None),
        "libraries": {name: version(name) for name in libraries},
    }
