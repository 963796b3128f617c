import json
import os
import time
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.exceptions import DataError, SourceError
from airflow_mlops.hooks.whylogs import profile_parquet, read_profile

WHEN = datetime(2013, 3, 31, tzinfo=UTC)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    rng = np.random.default_rng(0)
    n = 4000
    table = pa.table(
        {
            "temp": pa.array([None, float("nan"), float("inf"), *rng.normal(50, 10, n - 3)]),
            "hour": rng.integers(0, 24, n),
            "origin": pa.array(rng.choice(["EWR", "JFK", "LGA", None], n).tolist(), type=pa.string()),
            "carrier": pa.array(rng.choice(["AA", "UA"], n).tolist()).dictionary_encode(),
            "holiday": pa.array([True, None, *[False] * (n - 2)]),
            "event_timestamp": pa.array([WHEN, *[None] * (n - 1)]),
            "fare": pa.array([Decimal("1.50")] * n),
            "nothing": pa.nulls(n),
        }
    )
    path = tmp_path_factory.mktemp("profile") / "window.parquet"
    pq.write_table(table, path)
    return path


@pytest.fixture(scope="module")
def profile(file):
    return profile_parquet([file], pq.read_schema(file).names, WHEN)


def test_stock_whylogs_reads_the_profile(profile):
    from whylogs.core import DatasetProfileView

    view = DatasetProfileView.deserialize(profile)
    assert view.dataset_timestamp == WHEN
    frame = view.to_pandas()
    assert set(frame.index) == {
        "temp", "hour", "origin", "carrier", "holiday", "event_timestamp", "fare", "nothing",
    }  # fmt: skip
    assert (frame["counts/n"] == 4000).all()
    merged = view.merge(DatasetProfileView.deserialize(profile))
    assert merged.get_column("temp").get_metric("counts").n.value == 8000


def test_the_figures_are_those_that_whylogs_itself_would_log(file, profile):
    import whylogs as why

    names = ["hour", "origin"]
    stock = why.log(pq.read_table(file, columns=names).to_pandas()).view()
    ours = read_profile(profile)["columns"]
    for name in names:
        expected = stock.get_column(name).to_summary_dict()
        assert set(ours[name]) == set(expected)
        for key in ("counts/n", "counts/null", "types/integral", "types/string"):
            assert ours[name][key] == expected[key], (name, key)
        assert ours[name]["cardinality/est"] == pytest.approx(expected["cardinality/est"])
    assert ours["hour"]["distribution/mean"] == pytest.approx(
        stock.get_column("hour").to_summary_dict()["distribution/mean"]
    )


def test_every_kind_of_value_is_counted(profile):
    columns = read_profile(profile)["columns"]
    assert (columns["temp"]["counts/null"], columns["temp"]["counts/nan"], columns["temp"]["counts/inf"]) == (
        2,
        1,
        1,
    )
    assert columns["origin"]["types/string"] == 4000 - columns["origin"]["counts/null"]
    assert {item["value"] for item in columns["origin"]["frequent_items/frequent_strings"]} == {
        "EWR",
        "JFK",
        "LGA",
    }
    assert columns["carrier"]["cardinality/est"] == pytest.approx(2, abs=0.01)
    assert (columns["holiday"]["counts/true"], columns["holiday"]["types/boolean"]) == (1, 3999)
    assert (columns["event_timestamp"]["types/object"], columns["event_timestamp"]["counts/null"]) == (
        1,
        3999,
    )
    assert columns["fare"]["distribution/mean"] == 1.5
    assert columns["nothing"]["counts/null"] == 4000


def test_the_summary_is_plain_json(profile):
    assert json.loads(json.dumps(read_profile(profile), allow_nan=False))["timestamp"] == WHEN.isoformat()


def test_nothing_is_sent_home(profile):
    assert os.environ["WHYLOGS_NO_ANALYTICS"]


def test_a_missing_column_is_named(file):
    with pytest.raises(SourceError, match=r"window\.parquet lacks 1 column: wind"):
        profile_parquet([file], ["temp", "wind"], WHEN)


def test_other_bytes_are_refused_before_whylogs_sees_them():
    with pytest.raises(DataError, match="Not a whylogs profile"):
        read_profile(b"PAR1....")


def test_a_month_of_flights_takes_seconds_of_a_processor(tmp_path, profile):
    rng = np.random.default_rng(1)
    columns = {f"x{i}": rng.normal(size=28_000) for i in range(23)}
    columns |= {"tail": [f"N{i}" for i in rng.integers(0, 4000, 28_000)], "dow": rng.integers(0, 7, 28_000)}
    pq.write_table(pa.table(columns), tmp_path / "month.parquet")
    started = time.process_time()
    profile_parquet([tmp_path / "month.parquet"], list(columns), WHEN)
    assert time.process_time() - started < 30
