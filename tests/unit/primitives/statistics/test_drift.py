import itertools
import json
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.exceptions import SourceError, SpecError
from airflow_mlops.primitives.monitoring.rules import DriftRule
from airflow_mlops.primitives.statistics.bins import (
    CategoricalColumn,
    NumericColumn,
    Reference,
    build_reference,
    count_column,
    count_like,
)
from airflow_mlops.primitives.statistics.drift import (
    categorical_effects,
    categorical_p_value,
    compare_column,
    compare_window,
    numeric_p_value,
)


def numeric_pair(before, now):
    reference = count_column(pa.chunked_array([pa.array(before)]))
    return reference, count_like(reference, "x", pa.chunked_array([pa.array(now)]))


def categories(counts, missing=0):
    return CategoricalColumn({str(i): int(count) for i, count in enumerate(counts) if count}, missing)


GENERATORS = {
    "normal": lambda rng, n: rng.normal(size=n),
    "heavy tails": lambda rng, n: np.exp(2 * rng.normal(size=n)),
    "counts": lambda rng, n: rng.poisson(8, n),
    "mostly zero": lambda rng, n: np.where(rng.random(n) < 0.7, 0, rng.exponential(size=n)),
}


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize(("n", "m"), [(2000, 1000), (10_000, 1000), (1000, 5000)])
def test_numeric_false_positives_stay_at_the_nominal_rate(name, n, m):
    rng = np.random.default_rng(7)
    generate = GENERATORS[name]
    p_values = [numeric_p_value(*numeric_pair(generate(rng, n), generate(rng, m))) for _ in range(400)]
    # Binomial(400, .05): 20 expected, 99.9 % within 7 and 36
    assert 7 <= np.sum(np.array(p_values) < 0.05) <= 36


@pytest.mark.parametrize("levels", [2, 20, 300, 4000])
def test_categorical_false_positives_stay_at_the_nominal_rate(levels):
    rng = np.random.default_rng(8)
    shares = rng.dirichlet(np.full(levels, 0.5))
    pairs = [
        (categories(rng.multinomial(20_000, shares)), categories(rng.multinomial(2000, shares)))
        for _ in range(300)
    ]
    p_values = np.array([categorical_p_value(*pair) for pair in pairs])
    # Binomial(300, .05): 15 expected, 99.9 % within 4 and 29
    assert 4 <= np.sum(p_values < 0.05) <= 29
    assert np.mean([categorical_effects(*pair)["total_variation"] for pair in pairs]) < 0.01


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (lambda rng, n: rng.normal(size=n), lambda rng, n: rng.normal(0.25, 1, size=n)),
        (lambda rng, n: rng.normal(size=n), lambda rng, n: rng.normal(0, 1.25, size=n)),
        (lambda rng, n: rng.normal(size=n), lambda rng, n: rng.standard_t(3, size=n)),
        (lambda rng, n: rng.poisson(8, n), lambda rng, n: rng.poisson(9, n)),
    ],
    ids=["location", "scale", "tails", "counts"],
)
def test_a_real_shift_is_found_in_a_small_window(before, now):
    rng = np.random.default_rng(9)
    found = [
        compare_column("x", *numeric_pair(before(rng, 20_000), now(rng, 2000)), threshold=1e-3).drifted
        for _ in range(50)
    ]
    assert np.mean(found) > 0.9


def test_a_significant_difference_without_size_is_no_drift():
    rng = np.random.default_rng(10)
    column = compare_column(
        "x", *numeric_pair(rng.normal(size=1_000_000), rng.normal(0.02, 1, size=1_000_000)), threshold=1e-4
    )
    assert column.p_value < 1e-10
    assert not column.drifted


def test_a_new_category_is_found_and_its_share_said():
    column = compare_column("carrier", categories([500, 500]), categories([450, 450, 100]), threshold=1e-4)
    assert column.drifted
    assert column.effects["new_share"] == 0.1


def test_more_missing_values_are_drift_though_the_values_are_alike():
    before, now = NumericColumn((0.0,), (500, 500), 10), NumericColumn((0.0,), (450, 450), 100)
    column = compare_column("wind", before, now, threshold=1e-4)
    assert column.drifted
    assert column.effects["missing"] == 0.1


def test_a_column_that_is_all_missing_now_has_drifted():
    assert compare_column(
        "x", NumericColumn((0.0,), (500, 500), 0), NumericColumn((0.0,), (0, 0), 1000), 1e-4
    ).drifted


@pytest.fixture
def reference(tmp_path):
    rng = np.random.default_rng(11)
    columns = {f"x{i}": rng.normal(size=10_000) for i in range(5)} | {"c": rng.choice(["a", "b"], 10_000)}
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    return build_reference("d1", [tmp_path / "train.parquet"], list(columns))


def window(tmp_path, rows=2000, **changes):
    rng = np.random.default_rng(12)
    columns = {f"x{i}": rng.normal(size=rows) for i in range(5)} | {"c": rng.choice(["a", "b"], rows)}
    pq.write_table(
        pa.table(columns | {k: v(rng, rows) for k, v in changes.items()}), tmp_path / "window.parquet"
    )
    return [tmp_path / "window.parquet"]


def test_a_window_like_the_training_data_has_no_drifted_column(reference, tmp_path):
    report = compare_window(reference, window(tmp_path), DriftRule())
    assert report.judged
    assert report.drifted == []
    assert report.threshold == pytest.approx(1e-4 / 6)
    json.dumps(report.to_json(), allow_nan=False)


def test_only_the_columns_that_moved_are_named_the_largest_first(reference, tmp_path):
    paths = window(tmp_path, x3=lambda rng, n: rng.normal(0.3, 1, n), x1=lambda rng, n: rng.normal(2, 1, n))
    report = compare_window(reference, paths, DriftRule())
    assert report.drifted == ["x1", "x3"]
    assert report.to_json()["drifted"] == ["x1", "x3"]
    assert report.columns[0].effects["ks"] > 0.6


def test_too_few_rows_are_not_judged(reference, tmp_path):
    report = compare_window(
        reference, window(tmp_path, 200, x1=lambda rng, n: rng.normal(9, 1, n)), DriftRule()
    )
    assert not report.judged
    assert report.drifted == []
    assert report.columns[0].p_value < 1e-6


def test_only_the_chosen_columns_are_compared(reference, tmp_path):
    report = compare_window(reference, window(tmp_path), DriftRule(columns=["x2"]))
    assert [column.column for column in report.columns] == ["x2"]
    with pytest.raises(SpecError, match="x9 is no input of the model; its inputs are x0"):
        compare_window(reference, window(tmp_path), DriftRule(columns=["x9"]))


def test_a_missing_column_is_named_and_hides_no_other(reference, tmp_path):
    paths = window(tmp_path, x1=lambda rng, n: rng.normal(2, 1, n), x2=lambda _, n: ["text"] * n)
    pq.write_table(pq.read_table(paths[0]).drop_columns(["x3", "c"]), paths[0])
    report = compare_window(reference, paths, DriftRule())
    assert report.drifted == ["x1"]
    assert {column.column for column in report.columns} == {"x0", "x1", "x4"}
    assert "lacks 2 columns: x3, c" in report.error
    assert "Column x2: expected numbers" in report.error


def test_where_no_column_can_be_compared_that_is_an_error(reference, tmp_path):
    pq.write_table(pa.table({"y": [1.0]}), tmp_path / "window.parquet")
    with pytest.raises(SourceError, match="lacks 6 columns: x0, x1, x2, x3, x4, c"):
        compare_window(reference, [tmp_path / "window.parquet"], DriftRule())


def test_a_broken_file_is_an_error_of_its_window(reference, tmp_path):
    (tmp_path / "window.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(SourceError, match=r"window\.parquet: expected readable Parquet files"):
        compare_window(reference, [tmp_path / "window.parquet"], DriftRule())


STEPS = np.random.default_rng(5).integers(0, 40, 20_000) / 10
COINS = np.random.default_rng(6).integers(0, 2, 20_000)


def _drifted(tmp_path, before, now):
    for name, values in (("before", before), ("now", now)):
        pq.write_table(pa.table({"x": values}), tmp_path / f"{name}.parquet")
    reference = build_reference("d1", [tmp_path / "before.parquet"], ["x"])
    reference = Reference.from_json(json.loads(json.dumps(reference.to_json())))
    return compare_window(reference, [tmp_path / "now.parquet"], DriftRule()).drifted


_SAME = {
    "many floats": [
        pa.array(STEPS),
        pa.array(STEPS.astype(np.float32)),
        pa.array(STEPS.astype(np.float32).astype(float)),
        pa.array([Decimal(str(step)) for step in STEPS], pa.decimal128(10, 2)),
    ],
    "few floats": [
        pa.array(STEPS % 0.5 // 0.1 / 10),
        pa.array((STEPS % 0.5 // 0.1 / 10).astype(np.float32)),
        pa.array((STEPS % 0.5 // 0.1 / 10).astype(np.float32).astype(float)),
        pa.array([f"{step:.2f}" for step in STEPS % 0.5 // 0.1 / 10]),
    ],
    "yes and no": [
        pa.array(COINS == 1),
        pa.array(COINS),
        pa.array(COINS.astype(np.int8)),
        pa.array(COINS.astype(float)),
        pa.array([str(coin) for coin in COINS]),
    ],
    "yes and no in words": [pa.array(COINS == 1), pa.array([str(coin == 1) for coin in COINS])],
    "codes": [
        pa.array(COINS + 1),
        pa.array((COINS + 1).astype(np.int32)),
        pa.array([f"{coin + 1}.0" for coin in COINS]),
        pa.array([Decimal(int(coin) + 1) for coin in COINS], pa.decimal128(10, 2)),
        pa.array(COINS + 1).dictionary_encode(),
    ],
    "days": [
        pa.array([f"2013-01-0{coin + 1}" for coin in COINS]),
        pa.array([f"2013-01-0{coin + 1}" for coin in COINS]).cast(pa.date32()),
        pa.array([f"2013-01-0{coin + 1}" for coin in COINS]).cast(pa.timestamp("us")),
    ],
}
_PAIRS = [
    pytest.param(one, other, id=f"{name} {one.type} {other.type} {place}")
    for name, spelled in _SAME.items()
    for place, (one, other) in enumerate(itertools.permutations(spelled, 2))
]


@pytest.mark.parametrize(("before", "now"), _PAIRS)
def test_values_in_another_type_are_no_drift(tmp_path, before, now):
    assert _drifted(tmp_path, before, now) == []


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (pa.array(STEPS.astype(np.float32)), pa.array(STEPS + 0.1)),
        (pa.array(STEPS), pa.array((STEPS + 0.1).astype(np.float32))),
        (pa.array(COINS == 1), pa.array(COINS + 1)),
        (pa.array(COINS == 1), pa.array((COINS * STEPS > 1).astype(int))),
        (pa.array(COINS), pa.array(COINS * STEPS > 1)),
        (pa.array([f"{coin}.1" for coin in COINS]), pa.array([f"{coin}.10" for coin in COINS])),
        (pa.array([f"0{coin}" for coin in COINS]), pa.array(COINS)),
        (pa.array(COINS + 2**53), pa.array(COINS + 2**53 + 1)),
    ],
    ids=[
        "a step more",
        "a step more in 32 bits",
        "1 and 2",
        "fewer ones",
        "fewer yes",
        "versions",
        "zeros",
        "beyond",
    ],
)
def test_other_values_are_drift_in_another_type_too(tmp_path, before, now):
    assert _drifted(tmp_path, before, now) == ["x"]
