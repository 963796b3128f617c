"""From a source that others own to staged rows."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.exceptions import EmptyDatasetError
from airflow_mlops.hooks.scratch import scratch_folder
from airflow_mlops.operators.errors import MLOpsTask, airflow_errors
from airflow_mlops.primitives.texts.documents import json_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_mlops.hooks.sources.extraction import Source
    from airflow_mlops.primitives.features.watermark import ReadWindow
    from airflow_mlops.stores.features.handover import Staging

STEP = "extracted"


class ExtractFeaturesOperator(MLOpsTask):
    """
    Read what is new in a source, and stage it as Parquet in the artifact store.

    With a ``watermark`` column only rows from the watermark on are read (``late`` earlier, so that late rows
    are found), up to now; what is read is fixed by the first try, and the watermark moves when the rows are
    published. Without one everything is read every time. Returns ``{"staged", "files", "rows", "columns",
    "window", "watermark", "started"}``.

    :param features: name of the feature pipeline.
    :param store: URI of the artifact store.
    :param source: exactly one of ``connection`` with ``sql``, ``files`` (a path or pattern, also on S3) and
        ``http`` (``connection``, ``endpoint``, ``format``, ``params``, ``records``, ``next``); beside it
        ``watermark``, ``late`` (a duration) and ``batch_rows``.
    :param start: lower end instead of the watermark, as in a backfill: ISO 8601, or what the column holds. A
        window that does not join up with what was read before leaves the watermark where it is.
    :param end: upper end instead of now.
    :param when_empty: what to do when there is no row: ``skip`` this task and those behind it, or ``fail``.
    :param memory: how much may be held in memory, such as ``2GB``.
    """

    template_fields: Sequence[str] = ("features", "store", "source", "start", "end")
    template_fields_renderers: ClassVar[dict[str, str]] = {"source": "json"}
    ui_color = "#d8e8dc"

    def __init__(
        self,
        *,
        features: str,
        store: str,
        source: dict[str, Any],
        start: str | int | None = None,
        end: str | int | None = None,
        when_empty: Literal["skip", "fail"] = "skip",
        memory: str = "2GB",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.features = features
        self.store = store
        self.source = source
        self.start = start
        self.end = end
        self.when_empty = when_empty
        self.memory = memory

    def execute(self, context: Context) -> dict[str, Any]:
        """Read the window and stage its rows."""
        from airflow_mlops.hooks.store.open import open_store
        from airflow_mlops.stores.features.handover import Staging

        with airflow_errors(), scratch_folder() as folder:
            staging = Staging(open_store(self.store), self.features, run_name(context, self.retries))
            if staging.record(STEP) is not None:
                self.log.info("An earlier try has staged the rows: %s/%s", staging.root, STEP)
                return staging.result(STEP)
            staging.check_writable()
            try:
                return self._extract(staging, Path(folder), context)
            except EmptyDatasetError as error:
                staging.clean()
                if self.when_empty == "skip":
                    raise AirflowSkipException(str(error)) from error
                raise

    def _extract(self, staging: Staging, scratch: Path, context: Context) -> dict[str, Any]:
        from airflow_mlops.hooks.sources.extraction import Source

        source, now = Source(self.source, self.memory), datetime.now(UTC)
        if gone := staging.clean_older(now):
            self.log.info("Removed what %d run(s) had staged and never published", gone)
        window, started = self._window(source, staging, scratch, now, self._is_backfill(context))
        self.log.info("Reading %s %s", source.name, _in_words(window))
        if window.empty:
            raise EmptyDatasetError(
                f"{source.name}: the window {_in_words(window)} is empty: this machine's clock ({now.isoformat()}) is "
                "behind the watermark, or end lies before start"
            )
        found = source.read(window, scratch)
        if not found.rows:
            raise EmptyDatasetError(f"{source.name} has no row {_in_words(window)}: nothing to publish")
        self.log.info("Read %d rows of %s", found.rows, source.name)
        facts = {
            "rows": found.rows,
            "columns": dict(found.columns or {}),
            "window": window.to_json(),
            "watermark": found.watermark.to_json() if found.watermark else None,
            "started": started,
        }
        return staging.keep(STEP, found.files, facts)

    def _window(
        self, source: Source, staging: Staging, scratch: Path, now: datetime, backfill: bool
    ) -> tuple[ReadWindow, str]:
        """What this run reads, as its first try has settled it."""
        from airflow_mlops.primitives.features.watermark import ReadWindow
        from airflow_mlops.stores.features.table import FeatureTable

        settled = staging.settled()
        if settled is None:
            previous = FeatureTable(staging.store, self.features).watermark()
            start, end = (_given(value) for value in (self.start, self.end))
            window = source.plan(previous, scratch, start=start, end=end, now=now)
            if window is None:
                raise EmptyDatasetError(f"{source.name} has no row at all: nothing to publish")
            settled = staging.settle(replace(window, backfill=backfill).to_json(), now)
        return ReadWindow.from_json(settled["window"]), str(settled["started"])

    def _is_backfill(self, context: Context) -> bool:
        """Whether somebody asked for this window; the data interval of a schedule comes by itself."""
        kind = getattr(context.get("dag_run"), "run_type", None)
        return _given(self.start) is not None and kind != "scheduled"


def run_name(context: Context, retries: int | None) -> str:
    """Name of what this task stages: the same for a retry, another after a Clear."""
    ti = context["ti"]
    generation = (ti.max_tries or 0) - (retries or 0)
    raw = json_text([ti.dag_id, ti.run_id, ti.task_id, ti.map_index, generation])
    return hashlib.sha256(raw.encode()).hexdigest()[:16]


def _given(value: str | int | None) -> str | int | None:
    # A template that finds nothing renders to one of these.
    return None if value in ("", "None") else value


def _in_words(window: ReadWindow) -> str:
    if window.column is None:
        return "whole"
    after = "the beginning" if window.after is None else window.after
    until = "the end" if window.until is None else window.until
    return f"where {window.column} lies from {after} to {until}"
