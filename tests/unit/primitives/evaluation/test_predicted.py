"""Predictions beside the truth: the targets are the dataset's, and each row has its one prediction."""

from __future__ import annotations

import re

import duckdb
import numpy as np
import pytest

from airflow_mlops.exceptions import ContractError, DataError
from airflow_mlops.primitives.evaluation.measures import measure
from airflow_mlops.primitives.evaluation.predicted import TestSplit, read_columns, read_predicted

TRUTH = "SELECT i AS id, DATE '2026-01-01' + i::INTEGER AS at, i % 2 AS late, i * 1.5 AS size, 'o' || i % 3 AS origin"


@pytest.fixture
def files(tmp_path):
    """Write a split of ten rows and a file of predictions; each by SQL over ``i``."""

    def write(predicted, truth=TRUTH, paradigm="classification", rows=10, **split):
        where = {name: tmp_path / f"{name}.parquet" for name in ("examples", "predictions")}
        duckdb.sql(f"COPY ({truth} FROM range({rows}) t(i)) TO '{where['examples']}'")
        duckdb.sql(f"COPY ({predicted}) TO '{where['predictions']}'")
        given = {"keys": ("id",), "timestamp": "at", "target": "late", "inputs": ("size", "origin"), **split}
        made = TestSplit((where["examples"],), **given)
        return made, read_predicted(made, where["predictions"], paradigm=paradigm)

    return write


SCORES = "SELECT i AS id, i / 10 AS prediction FROM range(10) t(i) ORDER BY random()"


def test_rows_stand_in_the_order_of_their_keys_whatever_the_file_does(files):
    split, rows = files(SCORES)
    assert rows.kind == "binary"
    assert rows.prediction.tolist() == [i / 10 for i in range(10)]
    assert rows.actual.tolist() == [i % 2 for i in range(10)]
    assert read_columns(split, ["origin", "gone"])["origin"].tolist() == [f"o{i % 3}" for i in range(10)]


def test_columns_of_predictions_are_taken_in_any_case(files):
    _, rows = files("SELECT i AS ID, i / 10 AS Prediction FROM range(10) t(i)")
    assert rows.kind == "binary"
    assert rows.prediction.tolist() == [i / 10 for i in range(10)]


def test_the_containers_own_targets_are_not_looked_at(files):
    _, rows = files("SELECT i AS id, i / 10 AS prediction, 1 AS late, 1 AS actual FROM range(10) t(i)")
    assert rows.actual.tolist() == [i % 2 for i in range(10)]


@pytest.mark.parametrize(
    ("predicted", "words"),
    [
        ("SELECT i AS id, 0.5 AS prediction FROM range(9) t(i)", "10 rows, 9 predictions"),
        ("SELECT i AS id, 0.5 AS prediction FROM range(11) t(i)", "10 rows, 11 predictions"),
        ("SELECT i // 2 AS id, 0.5 AS prediction FROM range(10) t(i)", "5 with different keys"),
        ("SELECT i + 1 AS id, 0.5 AS prediction FROM range(10) t(i)", "9 of known keys"),
        ("SELECT i AS id, CASE WHEN i > 7 THEN 0.5 END AS prediction FROM range(10) t(i)", "8 null"),
        ("SELECT i AS id, 0.5 AS score FROM range(10) t(i)", "must hold the columns id and prediction"),
        ("SELECT 0.5 AS prediction FROM range(10) t(i)", "must hold the columns id and prediction"),
        (
            "SELECT i AS id, i AS prediction FROM range(10) t(i)",
            "the probability of 1; got values from 0 to 9",
        ),
    ],
)
def test_a_file_that_does_not_answer_the_split_is_refused(files, predicted, words):
    with pytest.raises(ContractError, match=words):
        files(predicted)


def test_a_file_that_is_none_is_refused(files, tmp_path):
    split, _ = files(SCORES)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(ContractError, match=r"predictions\.parquet"):
        read_predicted(split, tmp_path / "broken.parquet", paradigm="classification")


def test_the_same_key_at_several_times_needs_the_time_in_the_file(files):
    months = TRUTH.replace("i AS id", "i // 5 AS id")
    with pytest.raises(ContractError, match="write the column at beside the keys"):
        files("SELECT i // 5 AS id, i / 10 AS prediction FROM range(10) t(i)", months)
    timed = (
        "SELECT i // 5 AS id, DATE '2026-01-01' + i::INTEGER AS at, i / 10 AS prediction FROM range(10) t(i)"
    )
    _, rows = files(timed, months)
    assert rows.prediction.tolist() == [i / 10 for i in range(10)]


@pytest.mark.parametrize(
    ("target", "prediction"),
    [("'c' || i % 3", "'c' || i % 3"), ("i % 3", "(i % 3)::DOUBLE"), ("(i % 3)::UTINYINT", "i % 3")],
)
def test_several_classes_by_name_or_number(files, target, prediction):
    truth = TRUTH.replace("i % 2 AS late", f"{target} AS late")
    _, rows = files(f"SELECT i AS id, {prediction} AS prediction FROM range(10) t(i)", truth)
    assert (rows.kind, len(rows.names)) == ("classes", 3)
    assert rows.prediction.tolist() == rows.actual.tolist()


def test_great_numbers_stay_the_classes_that_they_are(files):
    late = "CASE WHEN i % 2 = 0 THEN 1e300 ELSE 2 END"
    _, rows = files(
        f"SELECT i AS id, {late} AS prediction FROM range(10) t(i)", TRUTH.replace("i % 2 AS", f"{late} AS")
    )
    assert rows.names == ("1e+300", "2")
    _, rows = files(
        f"SELECT i AS id, {2**53 + 1} AS prediction FROM range(10) t(i)",
        TRUTH.replace("i % 2 AS", f"{2**53} + i % 2 AS"),
    )
    assert rows.names == (str(2**53), str(2**53 + 1))
    assert (rows.prediction == rows.actual).tolist() == [False, True] * 5


def test_numbers_must_be_finite(files):
    truth = TRUTH.replace("i % 2 AS late", "i * 2.5 AS late")
    _, rows = files("SELECT i AS id, i * 2 AS prediction FROM range(10) t(i)", truth, "regression")
    assert (rows.actual - rows.prediction).tolist() == [i / 2 for i in range(10)]
    for bad in ("'NaN'::DOUBLE", "'many'"):
        with pytest.raises(ContractError, match=r"a finite number in every row|10 null or NaN"):
            files(f"SELECT i AS id, {bad} AS prediction FROM range(10) t(i)", truth, "regression")


def test_too_many_classes_are_numbers(files):
    with pytest.raises(ContractError, match="paradigm: regression if they are numbers"):
        files("SELECT i AS id, i AS prediction FROM range(2000) t(i)", TRUTH.replace("i % 2", "i"), rows=2000)


def test_few_labels(files):
    truth = TRUTH.replace("i % 2 AS late", "CASE WHEN i > 6 THEN i % 2 END AS late")
    _, rows = files(SCORES, truth, "anomaly")
    assert np.isnan(rows.actual).sum() == 7
    assert files(SCORES, truth, "anomaly", target=None)[1].actual is None
    with pytest.raises(DataError, match="0, 1, or null"):
        files(SCORES, TRUTH.replace("i % 2 AS late", "i AS late"), "anomaly")


def test_clusters_have_points_of_the_numeric_inputs(files):
    both = "SELECT i AS id, 'k' || i % 2 AS prediction, i % 3 AS second_prediction FROM range(10) t(i)"
    _, rows = files(both, paradigm="clustering", target=None)
    assert (rows.kind, rows.names, rows.points.shape) == ("clusters", ("k0", "k1"), (10, 1))
    assert rows.second.tolist() == [i % 3 for i in range(10)]
    part = rows.part(np.arange(10) % 2 == 0)
    assert part.points.shape == (5, 1)
    assert part.sampled.tolist() == [0, 1, 2, 3, 4]


def test_lists_are_the_first_keys(files):
    truth = TRUTH.replace("i AS id", "i // 5 AS customer, i AS id")
    predicted = "SELECT i // 5 AS customer, i AS id, i AS prediction FROM range(10) t(i)"
    _, rows = files(predicted, truth, "ranking", keys=("customer", "id"))
    assert rows.group.tolist() == [0] * 5 + [1] * 5


def test_what_nobody_can_measure(files):
    assert files(SCORES, paradigm="other")[1] is None
    assert files(SCORES, target=None)[1] is None
    assert files(SCORES, paradigm="reinforcement", target=None)[1].kind == "returns"


# Labels that are not there, and how two classes are coded ----------------------------------------

SURE = "SELECT i AS id, CASE WHEN i % 2 = 1 THEN 0.9 ELSE 0.1 END AS prediction FROM range(10) t(i)"


@pytest.mark.parametrize("odd", ["NULL", "'NaN'::DOUBLE"])
@pytest.mark.parametrize("paradigm", ["classification", "regression", "ranking"])
def test_a_row_without_target_cannot_be_judged_and_the_target_is_named(files, odd, paradigm):
    truth = TRUTH.replace("i % 2 AS late", f"CASE WHEN i = 7 THEN {odd} ELSE (i % 2)::DOUBLE END AS late")
    with pytest.raises(DataError, match="target late is null or NaN in 1 of 10 rows"):
        files(SURE, truth, paradigm)


def test_a_nan_prediction_is_none(files):
    nan = (
        "SELECT i AS id, CASE WHEN i = 3 THEN 'NaN'::DOUBLE ELSE i % 2 END AS prediction FROM range(10) t(i)"
    )
    with pytest.raises(ContractError, match="1 null or NaN"):
        files(nan, TRUTH.replace("i % 2 AS late", "i % 3 AS late"))


@pytest.mark.parametrize("odd", ["NULL", "'NaN'::DOUBLE"])
def test_a_cluster_is_held_against_the_targets_that_are_there(files, odd):
    truth = TRUTH.replace("i % 2 AS late", f"CASE WHEN i > 5 THEN {odd} ELSE (i % 2)::DOUBLE END AS late")
    _, rows = files("SELECT i AS id, i % 2 AS prediction FROM range(10) t(i)", truth, "clustering")
    agreement = measure("adjusted_rand", rows)
    assert (agreement.value, agreement.n) == (1.0, 6)


@pytest.mark.parametrize(
    ("coded", "sql"),
    [
        ("CASE WHEN i % 2 = 1 THEN 1 ELSE -1 END", 'CASE "late" WHEN -1 THEN 0 WHEN 1 THEN 1 END AS "late"'),
        ("i % 2 + 1", 'CASE "late" WHEN 1 THEN 0 WHEN 2 THEN 1 END'),
        ("(i % 2)::VARCHAR", "CASE \"late\" WHEN '0' THEN 0 WHEN '1' THEN 1 END"),
        ("CASE WHEN i % 2 = 1 THEN 'True' ELSE 'False' END", "WHEN 'False' THEN 0 WHEN 'True' THEN 1"),
        ("CASE WHEN i % 2 = 1 THEN 'yes' ELSE 'no' END", "WHEN 'no' THEN 0 WHEN 'yes' THEN 1"),
        ("i % 2 * 2", "WHEN 0 THEN 0 WHEN 2 THEN 1"),
    ],
)
@pytest.mark.parametrize("flip", [False, True])
def test_probabilities_against_other_codes_than_0_and_1_are_an_error_with_the_sql(files, coded, sql, flip):
    predicted = SURE.replace("0.9 ELSE 0.1", "0.1 ELSE 0.9") if flip else SURE
    with pytest.raises(DataError, match=re.escape(sql)):
        files(predicted, TRUTH.replace("i % 2 AS late", f"{coded} AS late"))


@pytest.mark.parametrize(
    ("coded", "predicted"),
    [
        ("CASE WHEN i % 2 = 1 THEN 'A' ELSE 'B' END", "CASE WHEN i % 2 = 1 THEN 'a' ELSE 'b' END"),
        ("(i % 2)::BOOLEAN", "CASE WHEN i % 2 = 1 THEN 'True' ELSE 'False' END"),
        ("CASE WHEN i % 2 = 1 THEN 1 ELSE -1 END", "i % 2"),
        ("'c' || i % 3", "i % 3"),
    ],
)
def test_classes_spelt_otherwise_are_an_error(files, coded, predicted):
    with pytest.raises(DataError, match="as the target spells it"):
        files(
            f"SELECT i AS id, {predicted} AS prediction FROM range(10) t(i)",
            TRUTH.replace("i % 2 AS late", f"{coded} AS late"),
        )


def test_classes_as_the_target_spells_them_are_measured(files):
    for coded in ("CASE WHEN i % 2 = 1 THEN 1 ELSE -1 END", "'c' || i % 3", "(i % 2)::VARCHAR"):
        _, rows = files(
            f"SELECT i AS id, {coded} AS prediction FROM range(10) t(i)",
            TRUTH.replace("i % 2 AS late", f"{coded} AS late"),
        )
        assert measure("accuracy", rows).value == 1.0


def test_anomalies_of_another_code_are_told_the_sql(files):
    truth = TRUTH.replace("i % 2 AS late", "CASE WHEN i % 5 = 1 THEN -1 ELSE 1 END AS late")
    with pytest.raises(DataError, match=r'CASE "late" WHEN -1 THEN 0 WHEN 1 THEN 1 END'):
        files(SCORES, truth, "anomaly")


# Keys without a value --------------------------------------------------------------------------


@pytest.mark.parametrize("said", ["NULL", "'NaN'::DOUBLE"])
def test_a_key_without_a_value_is_matched_by_one_without(files, said):
    truth = TRUTH.replace("i AS id", "nullif(i, 3) AS id")
    _, rows = files(
        f"SELECT CASE WHEN i = 3 THEN {said} ELSE i END AS id, i % 2 AS prediction FROM range(10) t(i)", truth
    )
    assert measure("accuracy", rows).value == 1.0
    assert len(rows) == 10
