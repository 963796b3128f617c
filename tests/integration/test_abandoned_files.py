"""Files of killed publications, for engines that read the folder and no snapshot."""

from __future__ import annotations

import os
import time
from datetime import timedelta

import pytest

from tests.fixtures.features import Pipeline, observed

ROWS = "('a', timestamptz '2026-01-01 00:00:00+00', 1.5::DOUBLE), ('b', timestamptz '2026-01-01 06:00:00+00', 2.5)"
DATA = "features/weather/data"
LEFT = f"{DATA}/event_day=2026-01-05/left.parquet"


@pytest.fixture
def weather(tmp_path) -> Pipeline:
    observed(tmp_path / "in" / "1.parquet", ROWS)
    return Pipeline(str(tmp_path / "store"), {"files": str(tmp_path / "in" / "*.parquet")})


def age(pipeline: Pipeline, key: str, hours: float) -> None:
    then = time.time() - 3600 * hours
    os.utime(pipeline.table.store.path(key), (then, then))


def test_they_are_removed_after_a_day_and_nothing_else_is(weather):
    store = weather.table.store
    weather.run()
    (published,) = store.list(DATA)
    young, foreign = LEFT.replace("left", "young"), f"{DATA}/_SUCCESS"
    for key, hours in ((LEFT, 25), (young, 23), (foreign, 25)):
        store.put_if_absent(key, b"left")
        age(weather, key, hours)
    age(weather, published, 1000)
    weather.run()
    assert set(store.list(DATA)) == {published, young, foreign}


@pytest.mark.parametrize(("hours", "taken_over"), [(1, True), (13, False), (30, False)])
def test_a_retry_takes_over_only_what_nobody_is_about_to_remove(weather, hours, taken_over):
    """Else another publication might remove the file that this one is about to name."""
    store = weather.table.store
    weather.run()
    (left,) = store.list(DATA)
    store.delete("features/weather/snapshot.json")
    age(weather, left, hours)
    weather.run()
    (part,) = weather.table.snapshot().parts
    assert (f"{DATA}/{part.file}" == left) is taken_over
    assert len(weather.rows()) == 2
    assert store.exists(left) is (hours < 24)


def test_on_s3(s3_bucket, tmp_path, monkeypatch):
    observed(tmp_path / "1.parquet", ROWS)
    pipeline = Pipeline(f"s3://{s3_bucket}/mlops", {"files": str(tmp_path / "*.parquet")})
    pipeline.run()
    pipeline.table.store.put_if_absent(LEFT, b"left")
    pipeline.run()
    assert pipeline.table.store.exists(LEFT)
    monkeypatch.setattr("airflow_mlops.stores.features.table.ABANDONED", timedelta(hours=-1))
    pipeline.run()
    assert not pipeline.table.store.exists(LEFT)
    assert len(pipeline.rows(scratch=tmp_path / "scratch")) == 2
