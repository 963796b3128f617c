"""From sources to an immutable dataset version."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.exceptions import AssumptionError, EmptyDatasetError, FeatureStoreError, SpecError
from airflow_mlops.hooks.feast import FeastHook
from airflow_mlops.hooks.store import DatasetStore, open_store
from airflow_mlops.operators.errors import airflow_errors
from airflow_mlops.primitives.provisioning.assumptions import check_table, parse_assumptions, report, summary
from airflow_mlops.primitives.provisioning.chunks import merge_features, read_types, write_chunks
from airflow_mlops.primitives.provisioning.examples import ROW, Examples, ExamplesQuery, Window, connect
from airflow_mlops.primitives.provisioning.sources import pin_files
from airflow_mlops.primitives.provisioning.split import (
    cut_by_month,
    parse_split,
    parse_time,
    split_by_time,
    whole,
)
from airflow_mlops.primitives.provisioning.sql import identifier, parquet
from airflow_mlops.primitives.provisioning.version import Column, Manifest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context
    from duckdb import DuckDBPyConnection

    from airflow_mlops.hooks.feast import TrainingSet
    from airflow_mlops.primitives.provisioning.assumptions import Finding
    from airflow_mlops.primitives.provisioning.split import TimeSplit
    from airflow_mlops.primitives.provisioning.version import Purpose, Role

_MEMORY = "2GB"


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
        feast_conn_id: str = FeastHook.default_conn_name,
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
            scratch = Path(folder)
            with connect(scratch / "spill", _MEMORY) as connection:
                manifest, files = self._build(connection, scratch, datasets)
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

    def _build(
        self, connection: DuckDBPyConnection, scratch: Path, datasets: DatasetStore
    ) -> tuple[Manifest, Mapping[str, Path]]:
        rules, query = parse_assumptions(self.assumptions or ()), ExamplesQuery.from_mapping(self.examples)
        shares, gap = parse_split(self.split)
        examples = Examples.open(connection, query)
        window = self._settle_window(connection, examples)
        after, until = window.to_json()
        rows_file, dataset = scratch / "examples.parquet", scratch / "dataset.parquet"
        times, counts = examples.write(connection, self.purpose, window, rows_file)
        rows = sum(counts)
        self.log.info("%d examples after %s up to %s", rows, after, until)

        joined = self._join(examples, rows_file, scratch / "features.parquet")
        roles = _with_features(examples.roles(self.purpose), joined)
        merge_features(connection, rows_file, joined.path if joined else None, roles, rows, dataset)
        types = read_types(dataset)
        findings = check_table(
            connection, rules, dataset, types, order=ROW, shown=[*query.keys, query.timestamp]
        )
        self._judge(findings, datasets, (after, until), rows)

        split = self._split(times, counts, shares, gap, rows)
        chunks, files = write_chunks(
            dataset,
            cut_by_month(times, counts, split),
            query.timestamp,
            scratch,
            lambda digest: datasets.store.exists(datasets.chunk_key(digest)),
        )
        references = joined.references if joined else {}
        manifest = Manifest(
            application=self.application,
            purpose=self.purpose,
            columns=tuple(
                Column(name, types[name], role, references.get(name)) for name, role in roles.items()
            ),
            chunks=chunks,
            window=(after, until),
            as_of=window.as_of_json(),
            split=split.to_json(),
            features=_features(self.features, joined),
            examples=query.to_json(),
            sources=_sources(examples, joined),
            assumptions=tuple(finding.to_json(examples=False) for finding in findings),
        )
        return manifest, files

    def _settle_window(self, connection: DuckDBPyConnection, examples: Examples) -> Window:
        start, end = (
            parse_time(text) if text and text != "None" else None
            for text in (self.window_start, self.window_end)
        )
        return examples.window(connection, self.purpose, _duration(self.window), start, end)

    def _join(self, examples: Examples, rows: Path, destination: Path) -> TrainingSet | None:
        if not self.features:
            return None
        hook, query = FeastHook(self.feast_conn_id), examples.query
        columns = hook.entity_columns(self.features)
        there = [name for name, role in examples.roles(self.purpose).items() if role in ("key", "input")]
        if missing := [name for name in columns if name not in there]:
            raise FeatureStoreError(
                f"feature service {self.features!r} is joined by {', '.join(missing)}, which the examples do not "
                f"give; they give {', '.join(there)}. Add it to {query.name}"
            )
        names = [ROW, *(identifier(name) for name in columns)]
        sql = (
            f"SELECT {', '.join(names)}, {identifier(query.timestamp)} AS event_timestamp "
            f"FROM {parquet((str(rows),))}"
        )
        joined = hook.training_set(self.features, sql, destination)
        taken = {name.lower() for name in examples.columns}
        if twice := [name for name in joined.references if name.lower() in taken]:
            raise FeatureStoreError(
                f"feature(s) {', '.join(twice)} of service {self.features!r} have the name of a column of the "
                f"examples; rename it in {query.name}"
            )
        self.log.info("Joined %d features of %s", len(joined.references), self.features)
        return joined

    def _judge(
        self, findings: list[Finding], datasets: DatasetStore, window: tuple[str, str], rows: int
    ) -> None:
        """Warn of what may be, and stop at what may not."""
        failed = [f for f in findings if not f.passed and f.assumption.severity == "fail"]
        warned = [f for f in findings if not f.passed and f.assumption.severity == "warn"]
        if warned:
            self.log.warning("%d assumption(s) do not hold:\n%s", len(warned), summary(warned))
        if not failed:
            return
        name, content = report(self.application, self.purpose, window, rows, findings)
        key = datasets.key("assumptions", name)
        datasets.store.put_json_if_absent(key, content)
        raise AssumptionError(
            f"{len(failed)} of {len(findings)} assumption(s) about the data of {self.application!r} do not hold "
            f"({rows} rows after {window[0]} up to {window[1]}):\n{summary(failed)}\n"
            f"Nothing was published. Full report: {datasets.store.path(key)}",
            [finding.to_json() for finding in failed],
        )

    def _split(
        self, times: list[int], counts: list[int], shares: dict[str, float], gap: timedelta, rows: int
    ) -> TimeSplit:
        if self.purpose == "prediction":
            return whole("predict", rows)
        return split_by_time(times, counts, shares, gap) if shares else whole("train", rows)


def _with_features(roles: Mapping[str, Role], joined: TrainingSet | None) -> dict[str, Role]:
    """Features stand behind the other inputs and before the targets."""
    answers: tuple[Role, ...] = ("target", "known_at")
    features: dict[str, Role] = dict.fromkeys(joined.references if joined else (), "feature")
    asked = {name: role for name, role in roles.items() if role not in answers}
    return {**asked, **features, **{name: role for name, role in roles.items() if role in answers}}


def _features(service: str | None, joined: TrainingSet | None) -> dict[str, Any] | None:
    if joined is None:
        return None
    return {"service": service, "semantics": joined.semantics, "views": list(joined.views)}


def _sources(examples: Examples, joined: TrainingSet | None) -> tuple[dict[str, Any], ...]:
    pins = [{"of": "examples", **pin} for pin in pin_files(examples.files)]
    pins += [{"of": "features", **pin} for pin in pin_files(joined.files if joined else ())]
    return tuple(pins)


def _duration(text: str | None) -> timedelta | None:
    from airflow_mlops.spec.values import duration

    if not text:
        return None
    try:
        return duration(text)
    except ValueError as error:
        raise SpecError(f"window {text!r} {error}; expected such as 90d, 24h or 30m") from error


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
