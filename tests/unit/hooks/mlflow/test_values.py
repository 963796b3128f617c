"""Our values as MLflow takes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.hooks.mlflow.values import (
    MetricNames,
    batches,
    metric_name,
    to_column,
    to_parameters,
    to_tags,
    to_text,
)


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


@pytest.mark.parametrize(
    "name",
    [
        "learning rate (eta)",
        "a=b",
        "a/../b",
        "../a",
        "n" * 300,
        "é=1",
        "",
        ".",
        "/a",
        "a//b",
        "x/" * 200,
        "a\nb",
        "\ud800",
    ],
)
def test_every_parameter_has_a_name_that_mlflow_takes(name):
    from mlflow.utils.validation import _validate_param

    ((parameter),) = to_parameters({name: 0.1})

    _validate_param(parameter["key"], parameter["value"])
    assert parameter["value"] == "0.1"


def test_parameters_whose_names_would_become_one_stay_apart():
    given = {"a_b": 1, "a(b": 2, "a)b": 3, "n" * 250: 4, "n" * 251: 5}

    logged = {entry["key"]: entry["value"] for entry in to_parameters(given)}

    assert len(logged) == len(given)
    assert logged["a_b"] == "1"
    assert logged["n" * 250] == "4"
    assert all(len(name) <= 250 for name in logged)
    assert logged == {entry["key"]: entry["value"] for entry in to_parameters(dict(reversed(given.items())))}


@pytest.mark.parametrize(
    ("value", "kept"),
    [("x" * 7000, "x" * 5999 + "…"), ("a\0b", "a\\x00b"), ("a\ud800", "a\\ud800"), ("é", "é")],
)
def test_a_text_that_a_database_refuses_is_kept_as_far_as_it_goes(value, kept):
    assert to_parameters({"a": value}) == [{"key": "a", "value": kept}]


def test_metrics_whose_names_would_become_one_stay_apart():
    names = MetricNames()
    entries = [
        {"name": "auc(a)"},
        {"name": "auc[a]"},
        {"name": "auc", "slice": "a=b"},
        {"name": "auc", "slice": "a:b"},
    ]

    called = [names.of(entry) for entry in entries]

    assert called[0] == "auc_a_"
    assert called[1].startswith("auc_a_-")
    assert called[2] == "slice/auc/a:b"
    assert len(set(called)) == 4
    assert [names.of(entry) for entry in entries] == called


def test_a_suffix_takes_no_name_that_is_there():
    marked = [entry["key"] for entry in to_parameters({"a%": 1, "a#": 2})]
    given = {"a%": 1, "a#": 2, **dict.fromkeys(marked, 3)}
    logged = to_parameters(given)
    assert len({entry["key"] for entry in logged}) == len(given)
    assert [entry["value"] for entry in logged if entry["key"] in marked] == ["3", "3"]

    names = MetricNames()
    assert names.of({"name": "a_"}) == "a_"
    marked = names.of({"name": "a%"})
    fresh = MetricNames()
    found = [fresh.of({"name": name}) for name in (marked, "a_", "a%", marked, "a%")]
    assert len(set(found)) == 3
    assert found[3:] == [found[0], found[2]]
