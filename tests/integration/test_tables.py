"""Delta and Iceberg tables at one version, by DuckDB: real tables, in a folder and on a real S3 server."""

from __future__ import annotations

import builtins
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from airflow_mlops.exceptions import SourceError
from airflow_mlops.hooks.sources.examples import AirflowSources
from airflow_mlops.primitives.sources.base import LocalSources, open_tables


def rows(*numbers: int) -> pa.Table:
    return pa.table(
        {
            "id": pa.array(numbers, pa.int64()),
            "at": pa.array([datetime(2024, 1, n, tzinfo=UTC) for n in numbers], pa.timestamp("us", "UTC")),
            "city": [f"city {n}" for n in numbers],
        }
    )


@pytest.fixture
def connection(tmp_path):
    with duckdb.connect() as connection:
        connection.execute(f"SET TimeZone='UTC'; SET temp_directory='{tmp_path}/spill'")
        yield connection


def ids(connection: duckdb.DuckDBPyConnection, table: str) -> list[int]:
    return [row[0] for row in connection.execute(f"SELECT id FROM {table} ORDER BY id").fetchall()]


def opened(connection: duckdb.DuckDBPyConnection, folder: Path | None, **table: Any) -> dict[str, Any]:
    (pin,), _ = open_tables(connection, {"flights": table}, folder, AirflowSources())
    return pin


@pytest.fixture
def delta(tmp_path):
    """A Delta table of three versions: 1 2 3, then 4 5 too, then only 6."""
    deltalake = pytest.importorskip("deltalake")
    place = tmp_path / "lake" / "flights"
    place.mkdir(parents=True)
    deltalake.write_deltalake(str(place), rows(1, 2, 3))
    deltalake.write_deltalake(str(place), rows(4, 5), mode="append")
    deltalake.write_deltalake(str(place), rows(6), mode="overwrite")
    return place


def test_a_delta_table_is_read_at_its_version(connection, delta, tmp_path):
    newest = opened(connection, tmp_path, delta="lake/flights")
    assert ids(connection, "flights") == [6]
    assert newest["delta_version"] == 2
    assert (newest["of"], newest["pattern"]) == ("table:flights", "lake/flights")
    older = opened(connection, tmp_path, delta="lake/flights", version=1)
    assert ids(connection, "flights") == [1, 2, 3, 4, 5]
    assert older == {**newest, "delta_version": 1}


def test_a_pinned_delta_version_outlives_later_commits(connection, delta):
    import deltalake

    pin = opened(connection, None, delta=str(delta))
    deltalake.write_deltalake(str(delta), rows(7), mode="append")
    opened(connection, None, delta=str(delta), version=pin["delta_version"])
    assert ids(connection, "flights") == [6]


def test_delta_reads_only_what_a_query_needs(connection, delta):
    opened(connection, None, delta=str(delta), version=1)
    found = connection.execute(
        "SELECT city FROM flights WHERE \"at\" > TIMESTAMPTZ '2024-01-03 12:00:00+00' AND id <> 5"
    ).fetchall()
    assert found == [("city 4",)]
    plan = connection.execute("EXPLAIN SELECT city FROM flights WHERE id = 4").fetchall()[0][1]
    assert "Projections: city" in plan
    assert "Filters: id=4" in plan


def test_a_vacuumed_delta_version_says_exactly_so(connection, delta):
    import deltalake

    deltalake.DeltaTable(str(delta)).vacuum(0, enforce_retention_duration=False, dry_run=False)
    with pytest.raises(
        SourceError, match=r"version 1 cannot be read any more: 2 of its 2 .*deleted by VACUUM"
    ):
        opened(connection, None, delta=str(delta), version=1)
    opened(connection, None, delta=str(delta))
    assert ids(connection, "flights") == [6]


def test_a_delta_version_whose_log_was_cleaned_up_is_gone(connection, delta):
    (delta / "_delta_log" / f"{0:020}.json").unlink()
    import deltalake

    with pytest.raises(SourceError, match=r"flights.*(gone|DeltaError|log)"):
        opened(connection, None, delta=str(delta), version=0)
    assert deltalake is not None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"delta": "nowhere"}, r"Delta table .*nowhere does not exist"),
        ({"delta": "lake/flights", "version": 9}, r"has no version 9 yet: the newest is 2"),
        ({"iceberg": "nowhere"}, r"no metadata/\*.metadata.json in .*nowhere"),
        ({"parquet": "nowhere/*.parquet"}, r"no file at .*nowhere"),
    ],
)
def test_a_table_that_is_not_there_is_named(connection, delta, tmp_path, table, message):
    with pytest.raises(SourceError, match=message):
        opened(connection, tmp_path, **table)


@pytest.fixture
def catalog(tmp_path, monkeypatch):
    """An Iceberg catalog in SQLite, with the Airflow connection of its name."""
    pyiceberg = pytest.importorskip("pyiceberg.catalog")
    (tmp_path / "warehouse").mkdir()
    properties = {
        "type": "sql",
        "uri": f"sqlite:///{tmp_path}/catalog.db",
        "warehouse": f"file://{tmp_path}/warehouse",
    }
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps({"conn_type": "generic", "extra": properties}))
    catalog = pyiceberg.load_catalog("lake", **properties)
    catalog.create_namespace("ns")
    return catalog


@pytest.fixture
def rides(catalog):
    table = catalog.create_table("ns.rides", schema=rows(1).schema)
    table.append(rows(1, 2, 3))
    table.append(rows(4, 5))
    return table


def snapshots(table: Any) -> list[int]:
    return [snapshot.snapshot_id for snapshot in table.metadata.snapshots]


def test_an_iceberg_table_is_read_at_its_snapshot(connection, rides):
    first, second = snapshots(rides)
    pin = opened(connection, None, iceberg="lake.ns.rides")
    assert ids(connection, "flights") == [1, 2, 3, 4, 5]
    assert pin["iceberg_snapshot"] == second
    rides.append(rows(9))
    opened(connection, None, iceberg="lake.ns.rides", snapshot=second)
    assert ids(connection, "flights") == [1, 2, 3, 4, 5]
    opened(connection, None, iceberg="lake.ns.rides", snapshot=first)
    assert ids(connection, "flights") == [1, 2, 3]
    assert connection.execute("SELECT city FROM flights WHERE id > 2").fetchall() == [("city 3",)]


def test_an_iceberg_table_without_a_catalog(connection, rides, tmp_path):
    first, second = snapshots(rides)
    folder = rides.location().removeprefix("file://")
    assert opened(connection, None, iceberg=folder)["iceberg_snapshot"] == second
    relative = str(Path(folder).relative_to(tmp_path))
    assert opened(connection, tmp_path, iceberg=relative, snapshot=first)["iceberg_snapshot"] == first
    metadata = rides.metadata_location.removeprefix("file://")
    assert opened(connection, None, iceberg=metadata)["iceberg_snapshot"] == second
    assert ids(connection, "flights") == [1, 2, 3, 4, 5]


def test_deleted_rows_and_renamed_columns_of_iceberg_are_worked_out(connection, rides):
    before = snapshots(rides)[-1]
    with rides.update_schema() as update:
        update.rename_column("city", "town")
        update.add_column("extra", pyiceberg_string())
    rides.delete("id = 2")
    opened(connection, None, iceberg="lake.ns.rides")
    for _ in range(2):  # a query reads its tables more than once
        assert connection.execute("SELECT id, town, extra FROM flights ORDER BY id").fetchall() == [
            (n, f"city {n}", None) for n in (1, 3, 4, 5)
        ]
    opened(connection, None, iceberg="lake.ns.rides", snapshot=before)
    assert ids(connection, "flights") == [1, 2, 3, 4, 5]


def pyiceberg_string() -> Any:
    from pyiceberg.types import StringType

    return StringType()


def test_an_expired_snapshot_says_exactly_so(connection, rides):
    first, second = snapshots(rides)
    rides.maintenance.expire_snapshots().by_id(first).commit()
    with pytest.raises(
        SourceError, match=rf"snapshot {first} is gone \(expired\); the newest ones are {second}"
    ):
        opened(connection, None, iceberg="lake.ns.rides", snapshot=first)


def test_lost_files_of_a_snapshot_are_named(connection, rides):
    shutil.rmtree(Path(rides.location().removeprefix("file://")) / "data")
    with pytest.raises(SourceError, match=r"cannot be read any more: 2 of its 2 file\(s\)"):
        opened(connection, None, iceberg="lake.ns.rides")


def test_a_catalog_that_is_not_configured_is_named(connection, catalog):
    with pytest.raises(SourceError, match=r"ns.nothing does not exist in catalog 'lake'"):
        opened(connection, None, iceberg="lake.ns.nothing")
    with pytest.raises(
        SourceError,
        match=r"catalog 'lagoon' cannot be opened; make an Airflow connection with the id 'lagoon'",
    ):
        opened(connection, None, iceberg="lagoon.ns.rides")


def test_parquet_tables_are_pinned_file_by_file(connection, tmp_path):
    import pyarrow.parquet as pq

    (tmp_path / "in").mkdir()
    for name, part in (("a", rows(1, 2)), ("b", rows(3))):
        pq.write_table(part, tmp_path / "in" / f"{name}.parquet")
    pins, _ = open_tables(connection, {"flights": {"parquet": "in/*.parquet"}}, tmp_path, LocalSources())
    assert ids(connection, "flights") == [1, 2, 3]
    assert [(pin["of"], pin["pattern"], pin["file"]) for pin in pins] == [
        ("table:flights", "in/*.parquet", "a.parquet"),
        ("table:flights", "in/*.parquet", "b.parquet"),
    ]


@pytest.mark.parametrize(("table", "extra"), [({"delta": "x"}, "delta"), ({"iceberg": "x"}, "iceberg")])
def test_a_missing_library_names_its_cure(connection, tmp_path, monkeypatch, table, extra):
    importing = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] in ("deltalake", "pyiceberg"):
            raise ImportError(f"No module named {name!r}", name=name)
        return importing(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(SourceError, match=rf"pip install 'airflow-mlops\[{extra}\]'"):
        opened(connection, tmp_path, **table)


def test_tables_on_s3(connection, s3_server, s3_bucket, tmp_path):
    deltalake = pytest.importorskip("deltalake")
    options = {
        "AWS_ENDPOINT_URL": s3_server.endpoint,
        "AWS_ACCESS_KEY_ID": s3_server.access_key,
        "AWS_SECRET_ACCESS_KEY": s3_server.secret_key,
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
        "AWS_S3_ALLOW_UNSAFE_RENAME": "true",
    }
    place = f"s3://{s3_bucket}/lake/flights"
    deltalake.write_deltalake(place, rows(1, 2), storage_options=options)
    deltalake.write_deltalake(place, rows(3), mode="append", storage_options=options)
    assert opened(connection, None, delta=place)["delta_version"] == 1
    assert ids(connection, "flights") == [1, 2, 3]
    assert opened(connection, None, delta=place, version=0)["delta_version"] == 0
    assert ids(connection, "flights") == [1, 2]

    pyiceberg = pytest.importorskip("pyiceberg.catalog")
    catalog = pyiceberg.load_catalog(
        "far",
        **{
            "type": "sql",
            "uri": f"sqlite:///{tmp_path}/far.db",
            "warehouse": f"s3://{s3_bucket}/warehouse",
            "s3.endpoint": s3_server.endpoint,
            "s3.access-key-id": s3_server.access_key,
            "s3.secret-access-key": s3_server.secret_key,
            "s3.region": "us-east-1",
        },
    )
    catalog.create_namespace("ns")
    table = catalog.create_table("ns.rides", schema=rows(1).schema)
    table.append(rows(1, 2, 3))
    pin = opened(connection, None, iceberg=table.location())
    assert ids(connection, "flights") == [1, 2, 3]
    assert pin["iceberg_snapshot"] == table.current_snapshot().snapshot_id
