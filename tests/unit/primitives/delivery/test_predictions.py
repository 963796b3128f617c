"""What a container predicted against the examples that it was given."""

from __future__ import annotations

from datetime import UTC, datetime

import duckdb
import pytest

from airflow_mlops.exceptions import ContractError
from airflow_mlops.primitives.delivery.predictions import write_predictions

AT = datetime(2024, 2, 1, tzinfo=UTC)
ODD = 'the "id"; --'
EXAMPLES = f"""SELECT i AS "{ODD.replace('"', '""')}", TIMESTAMPTZ '2024-01-01 00:00:00+00' + to_hours(9 - i) AS asked,
    0.5 AS prediction FROM range(10) t(i)"""
PREDICTED = f'SELECT i AS "{ODD.replace(chr(34), chr(34) * 2)}", i / 10 AS prediction FROM range(10) t(i)'


def write(tmp_path, predicted, window="w", folder="it's"):
    (tmp_path / folder).mkdir(exist_ok=True)
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({EXAMPLES}) TO '{tmp_path}/examples.parquet'")
        connection.execute(f"COPY ({predicted}) TO '{tmp_path}/predictions.parquet'")
    target = tmp_path / folder / "out.parquet"
    rows = write_predictions(
        tmp_path / "predictions.parquet",
        [tmp_path / "examples.parquet"],
        target,
        application="app",
        window=window,
        keys=[ODD],
        timestamp="asked",
        model_version="3",
        predicted_at=AT,
    )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'")
        return rows, connection.from_parquet([str(target)]).to_arrow_table().to_pylist()


def test_every_example_has_its_prediction_in_order_of_time(tmp_path):
    rows, written = write(tmp_path, f"{PREDICTED} ORDER BY random()")
    assert rows == len(written) == 10
    assert [row[ODD] for row in written] == list(range(9, -1, -1))
    assert [row["prediction"] for row in written] == [n / 10 for n in range(9, -1, -1)]
    assert {row["model_version"] for row in written} == {"3"}
    assert {row["predicted_at"].astimezone(UTC) for row in written} == {AT}


def test_a_request_keeps_its_id_when_it_is_asked_again_and_only_then(tmp_path):
    ids = [[row["request_id"] for row in write(tmp_path, PREDICTED, window)[1]] for window in "vvw"]
    assert ids[0] == ids[1]
    assert len({*ids[0], *ids[2]}) == 20


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        (f"{PREDICTED} LIMIT 9", "10 rows, 9 predictions"),
        (f"{PREDICTED} UNION ALL {PREDICTED}", "10 rows, 20 predictions"),
        (f"(FROM ({PREDICTED}) LIMIT 9) UNION ALL (FROM ({PREDICTED}) LIMIT 1)", "9 with different keys"),
        (PREDICTED.replace("SELECT i", "SELECT i + 1"), "9 of known keys"),
        (PREDICTED.replace("i / 10", "nullif(i, 3)"), "1 null or not finite"),
        (PREDICTED.replace("i / 10", "log(i + 1) / (i - 3)::DOUBLE"), "1 null or not finite"),
        (PREDICTED.replace("AS prediction", "AS p"), "must hold the columns .* and prediction"),
        (PREDICTED.replace("i / 10", "'high'"), "must hold the columns .* and prediction"),
    ],
)
def test_what_does_not_answer_the_examples_is_refused(tmp_path, predicted, message):
    with pytest.raises(ContractError, match=message):
        write(tmp_path, predicted)


def test_rows_without_end_in_a_small_file_are_counted_and_not_read(tmp_path):
    many = 2_000_000
    with pytest.raises(ContractError, match=f"{many} predictions. Cure"):
        write(tmp_path, PREDICTED.replace("range(10) t(i)", f"range({many}) t(j), (SELECT 1 AS i)"))


def test_what_is_no_parquet_is_refused(tmp_path):
    (tmp_path / "examples.parquet").write_bytes(b"")
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({EXAMPLES}) TO '{tmp_path}/examples.parquet'")
    (tmp_path / "predictions.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ContractError, match="cannot be read as Parquet"):
        write_predictions(
            tmp_path / "predictions.parquet",
            [tmp_path / "examples.parquet"],
            tmp_path / "out.parquet",
            application="app",
            window="w",
            keys=[ODD],
            timestamp="asked",
            model_version="3",
            predicted_at=AT,
        )
    assert not (tmp_path / "out.parquet").exists()


def test_an_entity_asked_twice_in_a_window_gets_both_answers(tmp_path, monkeypatch):
    name = ODD.replace('"', '""')
    twice = f"""SELECT i // 2 AS "{name}", TIMESTAMPTZ '2024-01-01 00:00:00+00' + to_hours(i) AS asked FROM range(6) t(i)"""
    monkeypatch.setitem(globals(), "EXAMPLES", twice)
    predicted = f"SELECT i // 2 AS \"{name}\", TIMESTAMP '2024-01-01' + to_hours(i) AS asked, i / 10 AS prediction FROM range(6) t(i)"
    rows, written = write(tmp_path, predicted)
    assert rows == 6
    assert [row["prediction"] for row in written] == [n / 10 for n in range(6)]
    assert len({row["request_id"] for row in written}) == 6
    with pytest.raises(ContractError, match="write the column asked beside the keys"):
        write(tmp_path, predicted.replace("asked, i", "at, i"))


def test_a_key_without_a_value_has_its_prediction(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "EXAMPLES", EXAMPLES.replace("SELECT i AS", "SELECT nullif(i, 4) AS"))
    rows, written = write(tmp_path, PREDICTED.replace("SELECT i AS", "SELECT nullif(i, 4) AS"))
    assert rows == 10
    assert [row["prediction"] for row in written if row[ODD] is None] == [0.4]
