"""`created: published_at`: a row that came late was not known at its own time."""

from __future__ import annotations

import time

import pytest

from tests.fixtures.features import Pipeline, observed

KNOWN_AT_ITS_TIME = "hour(seen), published_at = seen"


def rows(*hours: int) -> str:
    return ", ".join(
        f"('a', timestamptz '2026-01-01 {hour:02}:00:00+00', {n}, {hour})" for n, hour in enumerate(hours)
    )


def late(tmp_path, watermark: str = "seen", **source) -> Pipeline:
    """Rows of 8 and 10 o'clock are published, and then that of 9 arrives."""
    files = tmp_path / "in" / "1.parquet"
    pipeline = Pipeline(
        str(tmp_path / "store"),
        {"files": str(files), "watermark": watermark, **source},
        created="published_at",
    )
    observed(files, rows(8, 10), "station, seen, number, temp")
    pipeline.run()
    observed(files, rows(8, 10, 9), "station, seen, number, temp")
    return pipeline


@pytest.mark.parametrize("source", [{"late": "2d"}, {"watermark": "number"}], ids=["by-time", "by-number"])
def test_a_late_row_was_not_known_before_it_was_read(tmp_path, source):
    pipeline = late(tmp_path, **source)
    begin = time.time()
    assert pipeline.run()["new_rows"] == 1
    assert pipeline.rows(KNOWN_AT_ITS_TIME) == [(8, True), (9, False), (10, True)]
    [(known,)] = pipeline.rows("max(epoch(published_at))")
    assert begin <= known <= time.time()
    assert pipeline.run()["new_rows"] == 0


@pytest.mark.parametrize(
    ("run_type", "history"), [("manual", True), ("backfill", True), ("scheduled", False)]
)
def test_what_somebody_asked_for_is_history(tmp_path, run_type, history):
    """The data interval of a schedule comes by itself, and what lies behind the watermark in it came late."""
    pipeline = late(tmp_path)
    pipeline.run(start="2026-01-01", end="2026-01-02", run_type=run_type)
    assert pipeline.rows(KNOWN_AT_ITS_TIME) == [(8, True), (9, history), (10, True)]


def test_where_everything_is_read_each_time_nobody_can_tell(tmp_path):
    pipeline = late(tmp_path, watermark=None)
    pipeline.run()
    assert pipeline.rows(KNOWN_AT_ITS_TIME) == [(8, True), (9, True), (10, True)]
