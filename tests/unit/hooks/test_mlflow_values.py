"""Our values as MLflow takes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.hooks.mlflow.values import batches, metric_name, to_column, to_tags, to_text


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ({"name": "auc"}, "auc"),
        ({"name": "auc", "split": "test"}, "test.auc"),
        ({"name": "auc", "split": "test", "slice": "origin=JFK"}, "slice/test.auc/origin:JFK"),
        ({"name": "auc", "slice": {"month": 3, "carrier": "B6"}}, "slice/auc/carrier:B6_month:3"),
        ({"name": "recall@10%"}, "recall_10_"),
        ({"name": "gpu/0/memory"}, "gpu/0/memory"),
        ({"name": "../../etc"}, "_/_/etc"),
        ({"name": "/"}, "_/_"),
        ({"name": "0", "split": "."}, "_.0"),
    ],
)
def test_names_of_metrics(entry, name):
    assert metric_name(entry) == name


@pytest.fixture(scope="module")
def validate():
    from mlflow.utils.validation import _validate_metric_name

    return _validate_metric_name


@given(st.text(min_size=1), st.none() | st.text(), st.none() | st.text())
def test_mlflow_takes_every_name(validate, name, split, cut):
    validate(metric_name({"name": name, "split": split, "slice": cut}))


def test_texts():
    assert [to_text(value) for value in ("x", 1, 0.1, True, None, [1], float("nan"))] == [
        *("x", "1", "0.1", "true", "null", "[1]", "nan")
    ]
    assert to_tags({"a": 1, "b": None}) == {"a": "1"}
    assert to_tags(None) == {}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("DOUBLE", "double"),
        ("double", "double"),
        ("DECIMAL(10,2)", "double"),
        ("BIGINT", "long"),
        ("int32", "integer"),
        ("TIMESTAMP WITH TIME ZONE", "datetime"),
        ("timestamp[us, tz=UTC]", "datetime"),
        ("date32[day]", "datetime"),
        ("BOOLEAN", "boolean"),
        ("VARCHAR", "string"),
        ("STRUCT(a INTEGER)", "string"),
    ],
)
def test_types_of_columns(ours, theirs):
    assert to_column({"name": "c", "type": ours})["type"] == theirs


def test_batches_lose_nothing():
    assert list(batches([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5]]
    assert list(batches([], 2)) == []
