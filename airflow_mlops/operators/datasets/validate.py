"""Assumptions about a dataset version that is there, and what compares one version with another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import AssumptionError
from airflow_mlops.hooks.scratch import scratch_folder
from airflow_mlops.operators.errors import MLOpsTask, airflow_errors
from airflow_mlops.primitives.datasets.branches import line_of_reference, line_reference
from airflow_mlops.stores.datasets.reports import put_report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from airflow_mlops.primitives.assumptions import DistributionTest, Finding
    from airflow_mlops.primitives.statistics.drift import ColumnDrift
    from airflow_mlops.stores.datasets.history import History
    from airflow_mlops.stores.datasets.versions import DatasetStore

__all__ = ["ValidateDatasetOperator", "check_version", "distribution_test", "earlier_rows"]

_VERSIONS = 5


class ValidateDatasetOperator(MLOpsTask):
    """
    Hold assumptions against a dataset version that was published before, for DAGs written by hand.

    All findings go to a report in the store, those that do not hold also to the task's log. Fails when a rule does
    not hold whose ``severity`` is ``fail``. Returns ``{"dataset_id", "passed", "checked", "failed", "warned",
    "report": address}``.

    :param application: name of the application.
    :param store: URI of the artifact store.
    :param assumptions: rules, as a YAML file states them below ``provisioning.assumptions``.
    :param dataset: id of the version, its beginning, a reference such as ``latest``, or what
        :class:`~airflow_mlops.operators.datasets.provision.ProvisionDatasetOperator` returned.
    :param folder: relative paths of files that rules name are below it.
    :param aws_conn_id: Airflow connection for files that begin with ``s3://``.
    """

    template_fields: Sequence[str] = ("application", "store", "dataset", "assumptions", "folder")
    ui_color = "#d8e8dc"

    def __init__(
        self,
        *,
        application: str,
        store: str,
        assumptions: list[dict[str, Any]],
        dataset: Any = "latest",
        folder: str | None = None,
        aws_conn_id: str = "aws_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.application = application
        self.store = store
        self.assumptions = assumptions
        self.dataset = dataset
        self.folder = folder
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """Check the version and write the report."""
        from airflow_mlops.hooks.store.open import open_store
        from airflow_mlops.primitives.assumptions import failed, report, summary, warned
        from airflow_mlops.stores.datasets.versions import DatasetStore

        with airflow_errors():
            datasets = DatasetStore(open_store(self.store), self.application)
            wanted, line = self._wanted()
            dataset_id = datasets.find(wanted)
            findings = check_version(
                datasets,
                dataset_id,
                self.assumptions,
                line=line,
                folder=self.folder,
                aws_conn_id=self.aws_conn_id,
            )
            result = {"dataset_id": dataset_id, **report(findings)}
            address = put_report(datasets, f"dataset-{dataset_id[:12]}", result)
            if warnings := warned(findings):
                self.log.warning("%d assumption(s) do not hold:\n%s", len(warnings), summary(warnings))
            if broken := failed(findings):
                raise AssumptionError(
                    f"{len(broken)} of {len(findings)} assumption(s) about dataset {dataset_id} of "
                    f"{self.application!r} do not hold:\n{summary(broken)}\nFull report: {address}",
                    result["findings"],
                )
        self.log.info("%d assumption(s) hold for dataset %s; report: %s", len(findings), dataset_id, address)
        figures = {key: result[key] for key in ("dataset_id", "passed", "checked", "failed", "warned")}
        return {**figures, "report": address}

    def _wanted(self) -> tuple[str, str | None]:
        """The version's id or reference, and its line if that follows from what is wanted."""
        wanted = self.dataset
        if isinstance(wanted, dict):
            return str(wanted["dataset_id"]), wanted.get("line")
        return str(wanted), line_of_reference(str(wanted))


def check_version(
    datasets: DatasetStore,
    dataset_id: str,
    assumptions: Sequence[Mapping[str, Any]],
    *,
    line: str | None = None,
    folder: str | None = None,
    aws_conn_id: str = "aws_default",
    memory: str = "2GB",
) -> list[Finding]:
    """Hold rules against a published version.

    :param assumptions: rules, as a YAML file states them.
    :param line: the line whose earlier versions it is compared with; by default the one on which it was
        provisioned last.
    :param folder: relative paths of files that rules name are below it.
    :param memory: what DuckDB may hold in memory before it uses the disk.
    :raises SpecError: a rule says something that is no check, or that does not fit its column.
    :raises StoreError: there is no such version.
    """
    from airflow_mlops.hooks.sources.examples import AirflowSources
    from airflow_mlops.primitives.assumptions import check_table, parse_assumptions
    from airflow_mlops.primitives.datasets.making.stored import open_version
    from airflow_mlops.primitives.sources.session import connect, disk_errors
    from airflow_mlops.primitives.sql.words import literal
    from airflow_mlops.stores.datasets.history import History

    rules = parse_assumptions(assumptions)
    manifest, history = datasets.manifest(dataset_id), History(datasets, dataset_id)
    line = line or history.line
    with scratch_folder() as scratch:
        home = Path(scratch)
        with connect(home / "spill", memory) as connection, disk_errors("the rows to check"):
            if folder:
                connection.execute(f"SET file_search_path={literal(folder)}")
            AirflowSources(aws_conn_id).register(connection)  # a rule may name a file on S3
            version = open_version(
                connection, manifest, lambda split: datasets.paths(dataset_id, split, home)
            )
            context = version.context(
                previous_rows=earlier_rows(datasets, history, line_reference(line, manifest.purpose)),
                distribution=distribution_test(
                    datasets,
                    latest=line_reference(line),
                    serving=line_reference(line, "prediction"),
                    history=history,
                ),
            )
            return check_table(
                connection,
                rules,
                version.files,
                version.columns,
                order=version.order,
                shown=version.shown,
                context=context,
                relation=version.relation,
            )


def distribution_test(
    datasets: DatasetStore,
    *,
    latest: str = "latest",
    serving: str = "latest-prediction",
    history: History | None = None,
) -> DistributionTest:
    """What the rule ``distribution`` compares by: the monitor's own test, column by column.

    :param latest: the reference that ``against: latest`` means.
    :param serving: the reference that ``against: serving`` means.
    :param history: of the version that the rows are, if they are published: a reference that has come to
        point to it means the one before.
    """
    named = {"latest": latest, "serving": serving}

    def compare(files: Sequence[Path], rule: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
        against = str(rule["against"])
        reference = named.get(against, against)
        if history is not None and history.had(reference):
            dataset_id = next(iter(history.before(reference)), None)
        else:
            dataset_id = datasets.resolve(reference) if against in named else datasets.find(against)
        if dataset_id is None:
            return {"against": None, "reference_rows": 0, "judged": False, "columns": []}
        manifest = datasets.manifest(dataset_id)
        with scratch_folder() as scratch:
            paths = {
                path: None
                for split in manifest.splits
                for path in datasets.paths(dataset_id, split, Path(scratch))
            }
            there = {column.name for column in manifest.columns}
            found = _compare(files, list(paths), columns, there, rule)
        return {"against": dataset_id, **found}

    return compare


def earlier_rows(datasets: DatasetStore, history: History, reference: str) -> tuple[int, ...]:
    """Rows of the last versions that a reference pointed to before this one, newest first."""
    return tuple(datasets.manifest(name).rows for name in history.before(reference)[:_VERSIONS])


def _compare(
    files: Sequence[Path],
    reference: Sequence[Path],
    columns: Sequence[str],
    there: set[str],
    rule: Mapping[str, Any],
) -> dict[str, Any]:
    import pyarrow.parquet as pq

    from airflow_mlops.exceptions import SourceError
    from airflow_mlops.primitives.statistics.bins import UncomparedColumn, count_column, count_like
    from airflow_mlops.primitives.statistics.columns import iterate_columns
    from airflow_mlops.primitives.statistics.drift import compare_column

    rows, before_rows = (sum(pq.read_metadata(file).num_rows for file in each) for each in (files, reference))
    here = set(pq.read_schema(files[0]).names)
    both = [name for name in columns if name in there and name in here]
    found = [_plain(name, "absent") for name in columns if name not in both]
    judged = min(rows, before_rows) >= rule["min_rows"]
    if not judged or not both:
        return {"reference_rows": before_rows, "judged": judged, "columns": found}
    before = {name: count_column(values) for name, values in iterate_columns(reference, both)}
    compared = sum(not isinstance(column, UncomparedColumn) for column in before.values())
    threshold = rule["false_alarm_rate"] / max(1, compared)
    for name, values in iterate_columns(files, both):
        try:
            now = count_like(before[name], name, values)
        except SourceError:
            found.append(_plain(name, "another type", drifted=True))
        else:
            found.append(_drift(compare_column(name, before[name], now, threshold)))
    return {"reference_rows": before_rows, "judged": True, "columns": found}


def _drift(column: ColumnDrift) -> dict[str, Any]:
    return {
        "column": column.column,
        "kind": column.kind,
        "drifted": column.drifted,
        "p_value": column.p_value,
        "effects": dict(column.effects),
        "note": column.note,
    }


def _plain(name: str, kind: str, *, drifted: bool = False) -> dict[str, Any]:
    return {"column": name, "kind": kind, "drifted": drifted, "p_value": None, "effects": {}, "note": None}
