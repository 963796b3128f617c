"""Another division of a dataset version that is there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_mlops.exceptions import AssumptionError
from airflow_mlops.hooks.scratch import scratch_folder
from airflow_mlops.operators.datasets.commit import commit_record, result_of
from airflow_mlops.operators.errors import MLOpsTask, airflow_errors
from airflow_mlops.primitives.datasets.branches import line_reference
from airflow_mlops.stores.datasets.reports import report_failure, report_warnings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_mlops.primitives.datasets.making.finish import Division, Tail
    from airflow_mlops.stores.datasets.frozen import FrozenTest
    from airflow_mlops.stores.datasets.versions import DatasetStore

__all__ = ["SplitDatasetOperator"]


class SplitDatasetOperator(MLOpsTask):
    """
    Divide a dataset version otherwise, and publish the outcome as another version, without joining anything.

    The rows are those of the version; what its own split left out (a gap) is not among them. Divided as it
    would have been at first, a version that left nothing out gives the same id as
    :class:`~airflow_mlops.operators.datasets.provision.ProvisionDatasetOperator`. Sends no asset event of its own.
    Returns the same as that operator.

    :param application: name of the application.
    :param store: URI of the artifact store.
    :param dataset: the version: its id or the beginning of it, a reference such as ``latest``, or what a task
        that provisions returned.
    :param split: how examples are divided, as a YAML file states it below ``provisioning.split``.
    :param assumptions: rules about the rows, as a YAML file states them; by default those that the version
        was checked for are taken over.
    :param line: line of development whose reference points to the outcome; ``main`` trains for production.
    """

    template_fields: Sequence[str] = ("application", "store", "dataset", "split", "line")
    template_fields_renderers: ClassVar[dict[str, str]] = {"split": "json"}
    ui_color = "#d8e8dc"

    def __init__(
        self,
        *,
        application: str,
        store: str,
        dataset: Any,
        split: dict[str, Any],
        line: str,
        assumptions: list[dict[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.application = application
        self.store = store
        self.dataset = dataset
        self.split = split
        self.line = line
        self.assumptions = assumptions

    def execute(self, context: Context) -> dict[str, Any]:
        """Divide the version and publish the outcome."""
        from airflow_mlops.hooks.store.open import open_store
        from airflow_mlops.stores.datasets.frozen import frozen_test
        from airflow_mlops.stores.datasets.versions import DatasetStore

        with airflow_errors():
            reference = line_reference(self.line)
            datasets = DatasetStore(open_store(self.store), self.application)
            datasets.check_writable()
            with scratch_folder() as folder:
                parent, division = datasets.find(self._wanted()), self._division()
                frozen = frozen_test(datasets, division.rule, Path(folder) / "frozen")
                try:
                    done, rows = self._divide(datasets, parent, division, frozen, Path(folder))
                except AssumptionError as error:
                    raise report_failure(error, datasets, "split") from error
                volatile = [found.to_json() for found in done.findings if found.volatile]
                commit = commit_record(
                    context,
                    line=self.line,
                    rows=rows,
                    parents=[parent],
                    where=_where(datasets, parent),
                    findings=volatile,
                    **frozen.record,
                    **report_warnings(datasets, done.manifest, done.findings),
                )
                created = datasets.publish(done.manifest, done.files, commit, reference)
            self.log.info(
                "Divided dataset version %s of %s into %s: version %s",
                parent,
                self.application,
                ", ".join(f"{rows} {name}" for name, rows in done.manifest.splits.items()),
                done.manifest.id,
            )
            return result_of(done.manifest, created=created, store=self.store, line=self.line)

    def _divide(
        self, datasets: DatasetStore, parent: str, division: Division, frozen: FrozenTest, scratch: Path
    ) -> tuple[Tail, int]:
        from airflow_mlops.hooks.sources.examples import AirflowSources
        from airflow_mlops.operators.datasets.validate import distribution_test
        from airflow_mlops.primitives.datasets.making.finish import Facts, finish
        from airflow_mlops.primitives.datasets.making.join_cache import StoredRows, rows_of
        from airflow_mlops.primitives.sources.session import connect, disk_errors
        from airflow_mlops.stores.datasets.history import History, previous_rows

        manifest, reference = datasets.manifest(parent), line_reference(self.line)
        files = tuple(
            path for split in manifest.splits for path in datasets.paths(parent, split, scratch / "parent")
        )
        facts = Facts(
            now=datetime.now(UTC),
            previous_rows=previous_rows(datasets, reference),
            distribution=distribution_test(
                datasets,
                latest=reference,
                serving=line_reference(self.line, "prediction"),
                history=History(datasets, parent),
            ),
            frozen=frozen.files,
        )
        where = _where(datasets, parent) or {}
        with connect(scratch / "spill", "2GB") as connection, disk_errors("the rows"):
            # An assumption may name a file on S3.
            AirflowSources(where.get("aws_conn_id") or "aws_default").register(connection)
            rows = rows_of(connection, StoredRows(manifest, files), division.rule)
            done = finish(
                connection,
                manifest,
                rows,
                division,
                scratch,
                lambda digest: datasets.store.exists(datasets.chunk_key(digest)),
                facts,
            )
        if self.assumptions is None:
            done = replace(done, manifest=replace(done.manifest, assumptions=manifest.assumptions))
        return done, rows.count

    def _division(self) -> Division:
        from airflow_mlops.exceptions import SpecError
        from airflow_mlops.primitives.assumptions import parse_assumptions
        from airflow_mlops.primitives.datasets.making.finish import Division
        from airflow_mlops.primitives.datasets.splits.rule import parse_split

        rule = parse_split(self.split)
        if rule is None:
            raise SpecError("split: nothing is said; expected such as {by: hash, train: 0.8, test: 0.2}")
        return Division(self.application, rule, parse_assumptions(self.assumptions or ()))

    def _wanted(self) -> str:
        return str(self.dataset["dataset_id"] if isinstance(self.dataset, dict) else self.dataset)


def _where(datasets: DatasetStore, dataset_id: str) -> Any:
    """Where the sources of a version are, so that what comes of it can be rebuilt as well."""
    return next((record["where"] for record in datasets.commits(dataset_id) if record.get("where")), None)
