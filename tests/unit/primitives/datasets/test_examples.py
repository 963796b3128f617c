"""Examples: which count, in which order, and what is said when something is wrong with them."""

from __future__ import annotations

from datetime import timedelta

import duckdb
import pytest

from airflow_mlops.exceptions import DataError, EmptyDatasetError, SourceError, SpecError
from airflow_mlops.primitives.datasets.examples import Examples, Window, connect
from airflow_mlops.primitives.datasets.query import ExamplesQuery
from airflow_mlops.primitives.datasets.splits.rule import parse_time

ROWS = """
    SELECT i AS id, TIMESTAMP '2024-01-01' + to_days(i::INTEGER) AS at, i * 10 AS size,
        CASE WHEN i < 8 THEN i % 2 END AS late,
        CASE WHEN i < 8 THEN TIMESTAMP '2024-01-03' + to_days(i::INTEGER) END AS known
    FROM range(10) t(i)
"""
GIVEN = {"sql": ROWS, "keys": ["id"], "timestamp": "at", "targets": ["late"], "targets_known_at": "known"}


@pytest.fixture
def connection(tmp_path):
    with connect(tmp_path / "spill", "200MB") as connection:
        yield connection


def opened(connection, **changes):
    return Examples.open(connection, ExamplesQuery.from_mapping({**GIVEN, **changes}))


def rows(connection, path):
    return connection.execute(f"SELECT * FROM '{path}' ORDER BY __row").to_arrow_table().to_pylist()


def test_the_newest_with_known_targets_are_taken_for_a_trial(connection, tmp_path):
    examples = opened(connection, newest=3)
    window = examples.window(connection, "training", None)
    assert examples.write(connection, "training", window, tmp_path / "out.parquet") == 3
    assert [row["id"] for row in rows(connection, tmp_path / "out.parquet")] == [5, 6, 7]
    assert examples.query.to_json() != ExamplesQuery.from_mapping(GIVEN).to_json()


def day(number):
    return parse_time("2024-01-01") + number * 86_400_000_000


def test_training_ends_with_the_newest_known_target(connection, tmp_path):
    examples = opened(connection)
    window = examples.window(connection, "training", timedelta(days=3))
    assert window == Window(day(4), day(7), as_of=day(9))
    assert examples.write(connection, "training", window, tmp_path / "rows.parquet") == 3
    assert [row["id"] for row in rows(connection, tmp_path / "rows.parquet")] == [5, 6, 7]
    assert list(rows(connection, tmp_path / "rows.parquet")[0]) == [
        "__row",
        "id",
        "at",
        "size",
        "late",
        "known",
    ]


def test_unlabelled_examples_are_kept_where_few_labels_are_all_there_is(connection, tmp_path):
    examples = opened(connection, targets_known_at=None, keep_unlabelled=True)
    window = examples.window(connection, "training", timedelta(days=4))
    assert window == Window(day(5), day(9), as_of=day(9))
    assert examples.write(connection, "training", window, tmp_path / "rows.parquet") == 4
    assert [row["late"] for row in rows(connection, tmp_path / "rows.parquet")] == [0, 1, None, None]


def test_keeping_unlabelled_examples_is_another_question_and_not_keeping_them_the_old_one():
    assert "keep_unlabelled" not in ExamplesQuery.from_mapping({**GIVEN, "keep_unlabelled": False}).to_json()
    kept = ExamplesQuery.from_mapping({**GIVEN, "keep_unlabelled": True})
    assert ExamplesQuery.from_mapping({k: v for k, v in kept.to_json().items() if v}).keep_unlabelled


def test_a_target_counts_only_from_the_time_it_was_known(connection, tmp_path):
    examples = opened(connection)
    window = examples.window(connection, "training", None, end=day(6))
    assert window == Window(day(0) - 1, day(6), as_of=day(6))
    examples.write(connection, "training", window, tmp_path / "rows.parquet")
    found = [row["id"] for row in rows(connection, tmp_path / "rows.parquet")]
    assert found == [0, 1, 2, 3, 4]  # 5 and 6 were known two days later


def test_a_prediction_takes_all_and_no_targets(connection, tmp_path):
    examples = opened(connection)
    window = examples.window(connection, "prediction", None, start=day(6))
    assert window == Window(day(6), day(9))
    examples.write(connection, "prediction", window, tmp_path / "rows.parquet")
    found = rows(connection, tmp_path / "rows.parquet")
    assert [row["id"] for row in found] == [7, 8, 9]
    assert list(found[0]) == ["__row", "id", "at", "size"]


def test_without_a_time_of_knowing_a_target_is_known_with_its_example(connection):
    examples = opened(connection, targets_known_at=None)
    assert examples.window(connection, "training", None) == Window(day(0) - 1, day(7), as_of=day(7))


@pytest.mark.parametrize("ending", ["; \n", " -- a comment"])
def test_a_query_may_end_as_people_end_them(connection, ending):
    assert opened(connection, sql=ROWS.rstrip() + ending).window(connection, "training", None).end == day(7)


def test_rows_are_in_order_of_time_and_keys_whatever_the_source_does(connection, tmp_path):
    query = (
        "SELECT id, TIMESTAMP '2024-01-01' AS at, 1 AS late FROM (VALUES ('c'), (NULL), ('a'), ('b')) t(id)"
    )
    examples = opened(connection, sql=query, targets_known_at=None)
    window = examples.window(connection, "training", None)
    examples.write(connection, "training", window, tmp_path / "rows.parquet")
    assert [row["id"] for row in rows(connection, tmp_path / "rows.parquet")] == ["a", "b", "c", None]


@pytest.mark.parametrize(
    ("purpose", "start", "end", "message"),
    [
        (
            "training",
            8,
            None,
            "no example with known targets after 2024-01-09.* newest with known targets 2024-01-08",
        ),
        ("training", None, 1, "with known targets after the beginning up to 2024-01-02"),
        ("prediction", 9, None, r"after 2024-01-10T00:00:00\+00:00 up to now .*newest example 2024-01-10"),
    ],
)
def test_an_empty_window_says_what_there_is(connection, tmp_path, purpose, start, end, message):
    examples = opened(connection)
    first, last = (None if number is None else day(number) for number in (start, end))

    def write():
        window = examples.window(connection, purpose, None, first, last)
        examples.write(connection, purpose, window, tmp_path / "rows.parquet")

    with pytest.raises(EmptyDatasetError, match=message):
        write()


def test_a_source_without_rows_says_so(connection):
    with pytest.raises(EmptyDatasetError, match="gives no example at all"):
        opened(connection, sql=f"{ROWS} WHERE false").window(connection, "training", None)


def test_an_example_of_the_future_moves_no_window(connection, tmp_path, caplog):
    mistake = (
        "SELECT 99 AS id, TIMESTAMP '2099-01-01' AS at, 1 AS size, 1 AS late, TIMESTAMP '2099-01-01' AS known"
    )
    examples = opened(connection, sql=f"{ROWS} UNION ALL {mistake}")
    window = examples.window(connection, "training", None, now=day(20))
    assert window == Window(day(0) - 1, day(7), as_of=day(9))
    assert examples.write(connection, "training", window, tmp_path / "rows.parquet") == 8
    assert "1 example(s)" in caplog.text
    assert "the last one at 2099-01-01T00:00:00+00:00, and left out" in caplog.text
    assert examples.window(connection, "training", None).end == parse_time("2099-01-01")
    assert examples.window(connection, "prediction", None, now=day(20)).end == parse_time("2099-01-01")


def test_without_future_examples_the_clock_changes_nothing(connection):
    examples = opened(connection)
    window = examples.window(connection, "training", None)
    assert examples.window(connection, "training", None, now=day(8)) == window
    with pytest.raises(EmptyDatasetError, match="newest with known targets 2024-01-08"):
        examples.window(connection, "training", None, now=day(-1))


def test_times_with_and_without_zone_are_the_same_moments(tmp_path):
    naive, aware = "TIMESTAMP '2024-01-01 12:00:00'", "TIMESTAMPTZ '2024-01-01 14:00:00+02'"
    both = []
    for name, time in (("naive", naive), ("aware", aware)):
        connection = connect(tmp_path / "spill", "200MB")
        found = opened(connection, sql=f"SELECT 1 AS id, {time} AS at, 1 AS late, {time} AS known")
        window = found.window(connection, "training", None)
        found.write(connection, "training", window, tmp_path / f"{name}.parquet")
        both.append((window, [row["at"] for row in rows(connection, tmp_path / f"{name}.parquet")]))
        connection.close()
    assert both[0] == both[1]


def test_examples_without_any_key_are_counted_in_a_warning(connection, tmp_path, caplog):
    examples = opened(connection, sql=f"SELECT * REPLACE (nullif(id, 3) AS id) FROM ({ROWS})")
    examples.write(
        connection, "training", examples.window(connection, "training", None), tmp_path / "rows.parquet"
    )
    assert "1 of 8 examples have no value in any key (id)" in caplog.text


def test_a_column_that_says_the_split_is_no_input(connection):
    examples = opened(connection)
    assert examples.roles("training", "size")["size"] == "split"
    assert examples.roles("training", "id")["id"] == "key"


def test_an_example_that_comes_twice_is_named(connection, tmp_path):
    examples = opened(connection, sql=f"({ROWS}) UNION ALL ({ROWS})")
    window = examples.window(connection, "training", None)
    with pytest.raises(
        DataError, match=r"8 of 16 examples repeat .* such as id=0, at=2024-01-01.* \(2 times\)"
    ):
        examples.write(connection, "training", window, tmp_path / "rows.parquet")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": ["lat"]}, r"lack the column\(s\) lat; .* did you mean 'late'\?"),
        ({"sql": "SELECT nope FROM range(3)"}, 'Referenced column "nope" not found'),
        ({"sql": "SELEC 1"}, "syntax error"),
        ({"timestamp": "size"}, "the time 'size' is BIGINT, expected TIMESTAMP"),
        ({"sql": "SELECT * FROM read_parquet('nothing/*.parquet')"}, "no file at .*nothing"),
        ({"sql": f"SELECT *, 1 AS __row FROM ({ROWS})"}, "column .__row., a name that is taken"),
        ({"sql": f"SELECT *, 1 AS __ROW FROM ({ROWS})"}, "column .__ROW., a name that is taken by datasets"),
        ({"sql": f"SELECT *, 1 AS SIZE FROM ({ROWS})"}, "the column 'size' and 'SIZE', which differ by case"),
        ({"sql": f"SELECT * FROM ({ROWS}) a JOIN ({ROWS}) b ON a.id = b.id"}, "the column 'id' twice"),
        (
            {"sql": f"SELECT *, id AS request_id FROM ({ROWS})", "keys": ["request_id"]},
            "column 'request_id', a name that is taken by the files with predictions. Cure",
        ),
        (
            {"sql": f"SELECT *, id AS Prediction FROM ({ROWS})", "keys": ["Prediction"]},
            "column 'Prediction', a name",
        ),
    ],
)
def test_a_wrong_source_is_explained(connection, tmp_path, changes, message):
    with pytest.raises(SourceError, match=message):
        opened(connection, folder=str(tmp_path), **changes)


def test_the_time_of_the_question_is_no_time_of_knowing(connection):
    with pytest.raises(SpecError, match="timestamp and targets_known_at are both 'at'"):
        opened(connection, targets_known_at="at")


@pytest.mark.parametrize("told", ['"at"', '"at" + INTERVAL 0 DAY', '"at"::TIMESTAMPTZ'])
def test_nor_is_it_by_another_name(connection, told):
    examples = opened(connection, sql=f"SELECT * EXCLUDE (known), {told} AS known FROM ({ROWS})")
    with pytest.raises(DataError, match="known equals at in all 8 examples"):
        examples.window(connection, "training", None)
    assert examples.window(connection, "prediction", None)


@pytest.mark.parametrize("source", ["parquet", "sql"])
@pytest.mark.parametrize("broken", ["2024-01", "2024-02"])
def test_a_month_that_lacks_a_column_is_named(connection, tmp_path, source, broken):
    for month in ("2024-01", "2024-02"):
        columns = "* EXCLUDE (late)" if month == broken else "*"
        with duckdb.connect() as other:
            other.execute(f"COPY (SELECT {columns} FROM ({ROWS})) TO '{tmp_path}/{month}.parquet'")
    given = (
        {"sql": "SELECT * FROM read_parquet('*.parquet')"}
        if source == "sql"
        else {"sql": None, "parquet": "*.parquet"}
    )
    with pytest.raises(SourceError, match=f"{broken}.parquet lacks late .it has id, at, size, known"):
        opened(connection, folder=str(tmp_path), **given).window(connection, "training", None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parquet": "a"}, "exactly one of sql and parquet"),
        ({"keys": []}, "keys and timestamp are needed"),
        ({"key": ["id"]}, r"unknown key\(s\) key; known are"),
    ],
)
def test_a_description_that_cannot_be_meant_is_refused(changes, message):
    with pytest.raises(SpecError, match=message):
        ExamplesQuery.from_mapping({**GIVEN, **changes})


@pytest.mark.parametrize("type_", ["DOUBLE", "FLOAT"])
def test_a_target_that_is_nan_is_not_known(connection, tmp_path, type_):
    nan = f"CASE WHEN i % 2 = 0 THEN 'NaN'::{type_} ELSE 1 END AS late"
    examples = opened(
        connection, sql=ROWS.replace("CASE WHEN i < 8 THEN i % 2 END AS late", nan), targets_known_at=None
    )
    window = examples.window(connection, "training", None)
    assert examples.write(connection, "training", window, tmp_path / "rows.parquet") == 5
    assert {row["id"] % 2 for row in rows(connection, tmp_path / "rows.parquet")} == {1}


def test_nan_and_null_are_one_key(connection, tmp_path):
    twice = "SELECT unnest(['NaN'::DOUBLE, NULL]) AS id, TIMESTAMP '2024-01-01' AS at, 1 AS late"
    examples = opened(connection, sql=twice, targets_known_at=None)
    window = examples.window(connection, "training", None)
    with pytest.raises(DataError, match="1 of 2 examples repeat the keys and time"):
        examples.write(connection, "training", window, tmp_path / "rows.parquet")


@pytest.mark.parametrize("type_", ["DOUBLE", "FLOAT"])
def test_a_key_that_is_nan_is_written_as_null_and_gets_no_feature_of_another_missing_key(
    connection, tmp_path, type_
):
    some = f"SELECT unnest(['NaN', '1'])::{type_} AS id, TIMESTAMP '2024-01-01' AS at, 1 AS late"
    examples = opened(connection, sql=some, targets_known_at=None)
    window = examples.window(connection, "training", None)
    examples.write(connection, "training", window, tmp_path / "rows.parquet")
    assert [row["id"] for row in rows(connection, tmp_path / "rows.parquet")] == [1, None]
