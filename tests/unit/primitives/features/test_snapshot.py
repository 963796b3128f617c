"""The document that says what is published."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from airflow_mlops.exceptions import SpecError, StoreError
from airflow_mlops.primitives.features.snapshot import (
    BATCHES,
    Batch,
    FeatureSnapshot,
    Part,
    TableRule,
)
from airflow_mlops.primitives.features.watermark import Watermark

RULE = TableRule("at", ("id",), partition="day")
JAN = Part(
    "event_day=2026-01-01/a.parquet",
    2,
    "2026-01-01T00:00:00.000000+00:00",
    "2026-01-01T05:00:00.000000+00:00",
    3,
)
FEB = replace(
    JAN,
    file="event_day=2026-02-01/b.parquet",
    first="2026-02-01T00:00:00.000000+00:00",
    last="2026-02-01T01:00:00.000000+00:00",
)
COLUMNS = {"id": "int64", "at": "timestamp", "x": "list[float64]"}
BATCH = Batch("features/f/staging/r1", 5, 4, ("2026-01-01",), "2026-03-01T00:00:00+00:00", 2)
EMPTY = FeatureSnapshot("f", RULE)


def published() -> FeatureSnapshot:
    return EMPTY.with_batch(
        COLUMNS, [FEB, JAN], Watermark("at", "timestamp", "2026-02-01T01:00:00+00:00"), BATCH
    )


def test_bytes_and_back():
    snapshot = published()
    data = snapshot.to_bytes()
    again = FeatureSnapshot.from_bytes(data, "here")
    assert again == snapshot
    assert again.to_bytes() == data
    value = json.loads(data)
    assert value["files"] == [JAN.file, FEB.file]
    assert (value["rows"], value["first"], value["last"]) == (4, JAN.first, FEB.last)
    assert value["partition_column"] == "event_day"


def test_the_id_is_that_of_what_can_be_read():
    snapshot = published()
    later = snapshot.with_batch(COLUMNS, [], Watermark("at", "timestamp", "2026-03-01T00:00:00+00:00"), BATCH)
    assert later.id == snapshot.id
    assert (
        snapshot.with_batch(COLUMNS, [replace(JAN, file="event_day=2026-01-01/c.parquet")], None, BATCH).id
        != snapshot.id
    )


def test_files_of_a_time():
    assert published().overlapping(
        "2026-01-01T05:00:00.000000+00:00", "2026-01-20T00:00:00.000000+00:00"
    ) == (JAN,)


def test_a_publication_is_found_again_and_old_ones_are_forgotten():
    snapshot = published()
    assert snapshot.batch(BATCH.staged) == BATCH
    assert snapshot.batch("other") is None
    for number in range(BATCHES):
        snapshot = snapshot.with_batch(COLUMNS, [], None, replace(BATCH, staged=f"s{number}"))
    assert len(snapshot.batches) == BATCHES
    assert snapshot.batch(BATCH.staged) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": ("id", "x")}, r"keys \['id'\] since"),
        ({"created": "c"}, "created None since"),
        ({"partition": "month"}, "partition 'day' since"),
    ],
)
def test_a_table_keeps_its_meaning(change, message):
    with pytest.raises(SpecError, match=f"{message}.*Cure: put .* back, or publish under another name"):
        published().check_rule(replace(RULE, **change))


def test_a_rule_without_keys_is_none():
    with pytest.raises(SpecError, match="expected keys"):
        TableRule("at", ())


@pytest.mark.parametrize("data", [b"", b"{}", b'{"format": 2}', b'{"format": 1, "features": "f"}'])
def test_a_damaged_document_is_named(data):
    with pytest.raises(StoreError, match=r"here .*(Cure|upgrade)"):
        FeatureSnapshot.from_bytes(data, "here")
