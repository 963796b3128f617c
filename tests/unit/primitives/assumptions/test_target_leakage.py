"""How much of the target a single input tells."""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.primitives.assumptions import CheckContext, check_table, parse_assumptions
from airflow_mlops.primitives.assumptions.target_leakage import SAMPLE, Target, told_share

ROWS = 20_000
RANDOM = np.random.default_rng(7)
NORMAL = RANDOM.normal(size=ROWS)
NOISE = RANDOM.normal(size=ROWS)
LATE = (NORMAL > 1).astype(np.int64)
RARE = (NORMAL > 3).astype(np.int64)


def told(feature, target):
    return told_share(pa.chunked_array([pa.array(feature)]), Target.of(pa.chunked_array([pa.array(target)])))


@pytest.mark.parametrize(
    ("feature", "target", "least", "most"),
    [
        pytest.param(LATE.astype(float), LATE, 1, 1, id="the target itself"),
        pytest.param(NORMAL, LATE, 0.99, 1, id="what the target was cut from"),
        pytest.param(NORMAL, RARE, 0.9, 1, id="of a rare class, too"),
        pytest.param(np.abs(NORMAL), (np.abs(NORMAL) > 1).astype(int), 0.95, 1, id="in whatever direction"),
        pytest.param(np.where(LATE == 1, np.nan, 1.0), LATE, 1, 1, id="by being missing"),
        pytest.param(np.where(LATE == 1, "late", "fine"), LATE, 1, 1, id="as text"),
        pytest.param(
            np.where(LATE == 1, "x", "y"), np.where(LATE == 1, "late", "fine"), 1, 1, id="text of text"
        ),
        pytest.param(np.exp(NORMAL), NORMAL, 0.97, 1, id="a quantity, by any curve"),
        pytest.param(NORMAL + NOISE, NORMAL, 0.45, 0.55, id="a quantity, by half"),
        pytest.param(NORMAL + NOISE, LATE, 0.2, 0.5, id="an honest input"),
        pytest.param(NOISE, LATE, 0, 0.001, id="nothing"),
        pytest.param(np.arange(ROWS), LATE, 0, 0.001, id="a number of its own for each row"),
        pytest.param(np.arange(ROWS).astype(str), LATE, 0, 0, id="a text of its own for each row"),
        pytest.param(np.ones(ROWS), LATE, 0, 0, id="always the same"),
        pytest.param(NORMAL, np.ones(ROWS), 0, 0, id="a target that is always the same"),
        pytest.param(np.arange(ROWS) % 7, np.arange(ROWS) % 7, 1, 1, id="several classes"),
    ],
)
def test_the_share_that_is_told(feature, target, least, most):
    assert least <= told(feature, target) <= most


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_few_rows_tell_nothing(rows):
    assert told(NORMAL[:rows], LATE[:rows]) == 0


def test_rows_without_target_do_not_count():
    known = pa.array([None if n % 2 else int(late) for n, late in enumerate(LATE)])
    assert told_share(pa.chunked_array([pa.array(LATE)]), Target.of(pa.chunked_array([known]))) == 1


def test_it_is_found_in_a_sample_of_a_large_table(tmp_path):
    rows = 3 * SAMPLE
    late = np.arange(rows) % 5 == 0
    columns = {
        "__row": np.arange(rows),
        "id": np.arange(rows),
        "delay": late * 20 + np.arange(rows) % 11,
        "hour": np.arange(rows) % 24,
        "late": late,
    }
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    rules = [{"max_target_leakage": 0.95}, {"column": "hour", "max_target_leakage": 0.95}]
    with duckdb.connect() as connection:
        whole, hour = check_table(
            connection,
            parse_assumptions(rules),
            tmp_path / "rows.parquet",
            {"__row": "int64", "id": "int64", "delay": "int64", "hour": "int64", "late": "bool"},
            order="__row",
            shown=["id"],
            context=CheckContext(keys=("id",), targets=("late",)),
        )
    assert (whole.passed, whole.observed) == (False, "delay tells 1")
    assert (hour.passed, hour.observed) == (True, "hour tells most, 0")
    assert not whole.volatile
