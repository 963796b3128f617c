"""From staged rows to published ones."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow_mlops.exceptions import AssumptionError
from airflow_mlops.hooks.scratch import scratch_folder
from airflow_mlops.operators.errors import MLOpsTask, airflow_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context
    from duckdb import DuckDBPyConnection

    from airflow_mlops.primitives.assumptions import Finding
    from airflow_mlops.primitives.features.publication import Rows
    from airflow_mlops.primitives.features.snapshot import Batch, FeatureSnapshot
    from airflow_mlops.stores.features.handover import Staging
    from airflow_mlops.stores.features.table import FeatureTable, Publication


class PublishFeaturesOperator(MLOpsTask):
    """
    Check the staged rows, and add those of them that are not published yet to the feature table.

    Published files never change. A late row is added; a correction is added as a row of its own with a later
    ``created``, so that the past stays what it was. All of the batch becomes visible at once, together with
    the watermark. A retry, or a window that overlaps another, publishes nothing twice. Returns ``{"snapshot",
    "partitions", "rows", "new_rows", "files", "watermark", "path"}``: ``rows`` of the whole table,
    ``files`` and ``new_rows`` of this batch; they are the ``extra`` of the outlets' asset events, too.

    :param features: name of the feature pipeline.
    :param store: URI of the artifact store.
    :param transformed: what the extraction or the transformation returned.
    :param timestamp: column of the time from which a row holds.
    :param keys: columns that name what the row is about.
    :param created: column of the time at which the row came to be known. ``published_at`` has the publication
        fill it: a first row counts as known at its own time; a correction, and a row that came late, from
        their reading on. Without it a correction is refused.
    :param partition: ``day``, ``month`` or ``year`` (UTC) of a folder.
    :param assumptions: rules about the staged rows, as a YAML file states them.
    :param late: how long behind the newest published row a row may come without a warning, such as ``2d``.
    :param memory: how much may be held in memory, such as ``2GB``; the rest is spilled to disk.
    """

    template_fields: Sequence[str] = ("features", "store", "transformed")
    template_fields_renderers: ClassVar[dict[str, str]] = {"transformed": "json"}
    ui_color = "#d8e8dc"

    def __init__(
        self,
        *,
        features: str,
        store: str,
        transformed: Any,
        timestamp: str,
        keys: list[str],
        created: str | None = None,
        partition: Literal["day", "month", "year"] = "month",
        assumptions: list[dict[str, Any]] | None = None,
        late: str | None = None,
        memory: str = "2GB",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.features = features
        self.store = store
        self.transformed = transformed
        self.timestamp = timestamp
        self.keys = keys
        self.created = created
        self.partition = partition
        self.assumptions = assumptions
        self.late = late
        self.memory = memory

    def execute(self, context: Context) -> dict[str, Any]:
        """Check, publish, and clean up what was staged."""
        from airflow_mlops.hooks.store.open import open_store
        from airflow_mlops.stores.features.handover import Staging
        from airflow_mlops.stores.features.table import FeatureTable

        with airflow_errors(), scratch_folder() as folder:
            staging = Staging.at(open_store(self.store), self.transformed["staged"])
            table = FeatureTable(staging.store, self.features)
            publication = self._publication(table, staging)
            before = table.snapshot()
            snapshot, batch = publication.done() or self._publish(publication, staging, Path(folder))
            result = self._result(table, snapshot, batch)
            staging.clean()
        self.log.info(
            "%d of %d rows were new, in %d file(s) of %s; %d rows are published as snapshot %s",
            batch.new_rows,
            batch.rows,
            batch.files,
            ", ".join(batch.partitions) or "no partition",
            snapshot.rows,
            snapshot.id,
        )
        self._warn_if_late(before, batch)
        for outlet in self.outlets or ():
            context["outlet_events"][outlet].extra = result
        return result

    def _publication(self, table: FeatureTable, staging: Staging) -> Publication:
        from airflow_mlops.primitives.features.snapshot import TableRule
        from airflow_mlops.primitives.features.watermark import ReadWindow, Watermark
        from airflow_mlops.stores.features.table import Publication

        window = self.transformed.get("window")
        started = self.transformed.get("started")
        return Publication(
            table,
            TableRule(self.timestamp, tuple(self.keys), self.created, self.partition),
            staged=staging.root,
            window=ReadWindow.from_json(window) if window else ReadWindow(),
            reached=Watermark.from_json(self.transformed.get("watermark")),
            moment=datetime.fromisoformat(started) if started else datetime.now(UTC),
        )

    def _publish(
        self, publication: Publication, staging: Staging, scratch: Path
    ) -> tuple[FeatureSnapshot, Batch]:
        from airflow_mlops.hooks.sources.examples import AirflowSources
        from airflow_mlops.hooks.sources.files import duckdb_errors
        from airflow_mlops.primitives.datasets.examples import connect

        step = str(self.transformed["staged"]).rpartition("/")[2]
        with (
            contextlib.closing(connect(scratch / "spill", self.memory)) as connection,
            duckdb_errors("publish"),
        ):
            AirflowSources().register(connection)  # an assumption may name a file on S3
            return publication.publish(
                connection,
                staging.files(step, scratch / "staged"),
                scratch,
                lambda rows: self._check(connection, publication, rows),
            )

    def _warn_if_late(self, before: FeatureSnapshot | None, batch: Batch) -> None:
        from airflow_mlops.spec.values import duration

        allowed = duration(self.late) if self.late else None
        if not allowed or before is None or not before.parts or not batch.first:
            return
        newest = datetime.fromisoformat(max(part.last for part in before.parts))
        if newest - datetime.fromisoformat(batch.first) > allowed:
            self.log.warning(
                "New rows reach back to %s, more than late (%s) behind the newest row before them, %s. They are "
                "published; what was made of these features before does not know them",
                batch.first,
                self.late,
                newest.isoformat(),
            )

    def _check(self, connection: DuckDBPyConnection, publication: Publication, rows: Rows) -> None:
        """Hold the assumptions against the batch.

        :raises AssumptionError: one that is to fail does not hold.
        """
        import pyarrow.parquet as pq

        from airflow_mlops.primitives.assumptions import (
            CheckContext,
            check_table,
            parse_assumptions,
            summary,
        )
        from airflow_mlops.primitives.datasets.examples import ROW

        if not self.assumptions:
            return
        before = publication.table.snapshot()
        seen = [batch.rows for batch in reversed(before.batches)] if before is not None else []
        named = [self.timestamp, *self.keys]
        findings = check_table(
            connection,
            parse_assumptions(self.assumptions),
            rows.file,
            {field.name: str(field.type) for field in pq.read_schema(rows.file)},
            order=ROW,
            shown=named,
            context=CheckContext(
                timestamp=self.timestamp,
                keys=tuple(self.keys),
                features=tuple(name for name in rows.columns if name not in (*named, self.created)),
                moment=publication.moment,
                now=datetime.now(UTC),
                previous_rows=tuple(seen),
            ),
        )
        failed = [finding for finding in findings if not finding.passed]
        place = self._report(publication, findings)
        if any(finding.assumption.severity == "fail" for finding in failed):
            raise AssumptionError(
                f"publish: {len(failed)} of {len(findings)} assumptions about features {self.features} do not hold; "
                f"nothing was published:\n{summary(findings)}\nFull report: {place}. Cure: correct the assumption and "
                "clear this task, or correct the source and clear the extraction",
                [finding.to_json() for finding in failed],
            )
        if failed:
            self.log.warning(
                "Assumptions that only warn do not hold:\n%s\nFull report: %s", summary(findings), place
            )

    def _report(self, publication: Publication, findings: Sequence[Finding]) -> str:
        """Write the report on all assumptions, and say where."""
        import hashlib

        from airflow_mlops.hooks.store.base import json_bytes
        from airflow_mlops.primitives.assumptions import report

        content = {"features": self.features, "staged": publication.staged, **report(findings)}
        table = publication.table
        data = json_bytes(content)
        run = publication.staged.rpartition("/")[2]
        key = table.key("assumptions", f"{run}-{hashlib.sha256(data).hexdigest()[:12]}.json")
        table.store.put_if_absent(key, data)
        return table.store.address(key)

    def _result(self, table: FeatureTable, snapshot: FeatureSnapshot, batch: Batch) -> dict[str, Any]:
        watermark = snapshot.watermark
        return {
            "snapshot": snapshot.id,
            "partitions": list(batch.partitions),
            "rows": snapshot.rows,
            "new_rows": batch.new_rows,
            "files": batch.files,
            "watermark": None if watermark is None else watermark.to_json(),
            "path": table.store.address(table.key("data")),
        }
