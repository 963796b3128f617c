"""From sources to an immutable dataset version."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.exceptions import AssumptionError, EmptyDatasetError
from airflow_mlops.hooks.scratch import scratch_folder
from airflow_mlops.operators.datasets.commit import commit_record, result_of
from airflow_mlops.operators.errors import MLOpsTask, airflow_errors
from airflow_mlops.primitives.datasets.branches import MAIN, line_reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_mlops.primitives.datasets.making.make import BuiltDataset, DatasetRequest
    from airflow_mlops.primitives.datasets.manifest import Purpose
    from airflow_mlops.stores.datasets.frozen import FrozenTest
    from airflow_mlops.stores.datasets.versions import DatasetStore

__all__ = ["ProvisionDatasetOperator"]


class ProvisionDatasetOperator(MLOpsTask):
    """
    Join examples with their features as they were known at the time, check them, and publish a dataset version.

    The same inputs give the same version, and no second copy of it. Nothing is visible before all of it
    is. Rows that an earlier version joined already, from the same sources by the same rules, are taken from
    it. Returns ``{"dataset_id", "rows", "window": [after, until], "splits": {name: rows}, "created",
    "store", "application", "line"}``, and ``report``, the address of it, where assumptions that only warn do not hold.

    :param application: name of the application.
    :param store: URI of the artifact store.
    :param examples: ``sql`` or ``parquet``, ``keys``, ``timestamp``, ``targets``, ``targets_known_at``, and
        ``folder``, which relative paths are below. Rows without time are left out.
    :param features: Feast feature service; ``None`` when the examples bring all inputs along.
    :param feast_conn_id: Airflow connection of type ``feast``.
    :param window: how far back from its end the window reaches, such as ``365d``; ``None`` for everything.
    :param split: how examples are divided, as a YAML file states it; ``None`` for one split ``train``. A
        prediction has one split ``predict``.
    :param assumptions: rules about the joined rows, as a YAML file states them.
    :param warn_only: no rule stops the dataset, whatever its severity; what does not hold is reported.
    :param purpose: ``training`` takes examples whose targets are known by the end of the window;
        ``prediction`` takes all, and leaves the targets out.
    :param window_start: ISO 8601 time after which examples count, stronger than ``window``.
    :param window_end: ISO 8601 time up to which they count; the newest example by default.
    :param when_empty: what to do when there is no example: ``fail`` or ``skip``.
    :param line: line of development; ``main`` trains for production. Another line has references of its own
        (``<line>/latest``), sends no asset event, and is kept as an experiment.
    :param code: the code version that the dataset is for, such as ``{"image": …}``; it is only written down.
    """

    template_fields: Sequence[str] = (
        "application",
        "store",
        "examples",
        "features",
        "window",
        "window_start",
        "window_end",
        "line",
        "code",
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
        warn_only: bool = False,
        purpose: Purpose = "training",
        window_start: Any = None,
        window_end: str | None = None,
        when_empty: Literal["fail", "skip"] = "fail",
        line: str = MAIN,
        code: dict[str, Any] | None = None,
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
        self.warn_only = warn_only
        self.purpose = purpose
        self.window_start = window_start
        self.window_end = window_end
        self.when_empty = when_empty
        self.line = line
        self.code = code

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
        # Here and not above: a DAG file that only names this operator needs none of it.
        from airflow_mlops.hooks.store.open import open_store
        from airflow_mlops.stores.datasets.frozen import frozen_test
        from airflow_mlops.stores.datasets.joins import JoinStore
        from airflow_mlops.stores.datasets.reports import report_failure, report_warnings
        from airflow_mlops.stores.datasets.versions import DatasetStore

        reference, request = line_reference(self.line, self.purpose), self._request()
        datasets = DatasetStore(open_store(self.store), self.application)
        datasets.check_writable()
        joins = JoinStore(datasets)
        with scratch_folder() as folder:
            frozen = frozen_test(datasets, request.division, Path(folder) / "frozen")
            try:
                built = self._build(request, datasets, joins, frozen, Path(folder))
            except AssumptionError as error:
                raise report_failure(error, datasets, self.purpose) from error
            manifest = built.manifest
            said = {**frozen.record, **report_warnings(datasets, manifest, built.findings)}
            commit = self._commit(context, built, **said)
            created = datasets.publish(manifest, built.files, commit, reference)
            if built.join and built.complete:
                joins.remember(built.join, manifest)
        if self.line != MAIN:
            self.log.info(
                "Line %s: the version is under %s, and no asset event is sent", self.line, reference
            )
            self.outlets = []
        self.log.info(
            "%s dataset version %s of %s: %s in %d chunk(s), %d of them new",
            "Published" if created else "Found again",
            manifest.id,
            self.application,
            ", ".join(f"{rows} {name}" for name, rows in manifest.splits.items()),
            len(manifest.chunks),
            len(built.files),
        )
        result = result_of(manifest, created=created, store=self.store, line=self.line)
        return {**result, "report": said["report"]} if "report" in said else result

    def _build(
        self, request: DatasetRequest, datasets: DatasetStore, joins: Any, frozen: FrozenTest, scratch: Path
    ) -> BuiltDataset:
        from airflow_mlops.hooks.feast.hook import FeastHook
        from airflow_mlops.hooks.sources.examples import AirflowSources
        from airflow_mlops.operators.datasets.validate import distribution_test
        from airflow_mlops.primitives.datasets.making.finish import Facts
        from airflow_mlops.primitives.datasets.making.make import make_dataset
        from airflow_mlops.stores.datasets.history import previous_rows

        facts = Facts(
            now=datetime.now(UTC),
            previous_rows=previous_rows(datasets, line_reference(self.line, self.purpose)),
            distribution=distribution_test(
                datasets,
                latest=line_reference(self.line),
                serving=line_reference(self.line, "prediction"),
            ),
            frozen=frozen.files,
        )
        return make_dataset(
            request,
            FeastHook(self.feast_conn_id),
            scratch,
            lambda digest: datasets.store.exists(datasets.chunk_key(digest)),
            sources=AirflowSources(self._aws_conn_id),
            facts=facts,
            joins=joins,
        )

    def _request(self) -> DatasetRequest:
        from airflow_mlops.primitives.datasets.making.make import DatasetRequest

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
        if not self.warn_only:
            return request
        return replace(request, assumptions=tuple(replace(r, severity="warn") for r in request.assumptions))

    @property
    def _aws_conn_id(self) -> str:
        return str(self.examples.get("connection") or "aws_default")

    def _commit(self, context: Context, built: BuiltDataset, **said: str) -> dict[str, Any]:
        code = {name: value for name, value in (self.code or {}).items() if value}
        where = {
            "folder": self.examples.get("folder"),
            "feast_conn_id": self.feast_conn_id,
            "aws_conn_id": self._aws_conn_id,
        }
        return commit_record(
            context,
            line=self.line,
            rows=built.rows,
            where=where,
            findings=built.volatile,
            **({"code": code} if code else {}),
            **said,
        )
