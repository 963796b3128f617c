"""The report: complete, readable, harmless whatever a container wrote."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from airflow_mlops.primitives.evaluation.cases import TestSummary
from airflow_mlops.primitives.evaluation.evidence import Evidence
from airflow_mlops.primitives.evaluation.gate import judge
from airflow_mlops.primitives.evaluation.predicted import PredictedRows
from airflow_mlops.primitives.evaluation.report import build_report, render_page
from airflow_mlops.primitives.pages.drawing import draw, ticks
from airflow_mlops.primitives.statistics.clusters import standardised

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'"


def random(seed=0):
    return np.random.default_rng(seed)


def binary(seed=1, n=500):
    truth = (random(0).random(n) < 0.4).astype(float)
    return PredictedRows("binary", 1 / (1 + np.exp(-truth - random(seed).normal(size=n))), truth)


def numbers(seed=1):
    truth = random(0).normal(size=300) * 10
    return PredictedRows("numbers", truth + random(seed).normal(size=300), truth)


def classes(seed=1):
    truth = random(0).integers(0, 3, 300)
    found = np.where(random(seed).random(300) < 0.2, 0, truth)
    return PredictedRows("classes", found.astype(float), truth.astype(float), names=("a", EVIL, "c"))


def lists(seed=1):
    truth = random(0).integers(0, 3, 300).astype(float)
    return PredictedRows(
        "ranking", truth + random(seed).normal(size=300), truth, group=np.repeat(np.arange(30), 10)
    )


def anomaly(seed=1):
    label = np.where(random(0).random(400) < 0.2, (random(9).random(400) < 0.3).astype(float), np.nan)
    return PredictedRows("anomaly", np.nan_to_num(label) + random(seed).normal(size=400), label)


def clustered(seed=1):
    points = np.vstack([random(seed + i).normal(size=(50, 2)) + 5 * i for i in range(3)])
    cluster = np.repeat([0.0, 1.0, 2.0], 50)
    return PredictedRows(
        "clusters", cluster, points=standardised(points), sampled=np.arange(150), names=("a", "b", EVIL)
    )


def returns(seed=1):
    return PredictedRows("returns", random(seed).normal(size=60) + 10)


FIGURES = {
    binary: ["ROC curve", "Precision and recall", "Calibration", "Scores"],
    numbers: ["Predicted and actual", "Residuals", "Residuals by prediction"],
    classes: ["Classes"],
    lists: ["Quality of the first places"],
    anomaly: ["Precision at k", "Precision and recall", "Scores"],
    clustered: ["Clusters"],
    returns: ["Return", "Returns of the episodes"],
}


def report(rules=(), about=None, **evidence):
    given = Evidence(**evidence)
    return build_report(given, judge(rules, given), about or {"application": "tiny", "run_id": ""})


class Page(HTMLParser):
    """Elements, attributes and texts of a page; fails on what is not closed."""

    VOID = ("meta", "img")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.mark.parametrize("make", FIGURES)
def test_each_paradigm_has_its_figures(make):
    found = report(rows=make(), champion_rows=make(2), champion=[])
    assert [figure["title"] for figure in found["figures"]] == FIGURES[make]
    assert json.loads(json.dumps(found, allow_nan=False)) == json.loads(json.dumps(found))
    for figure in found["figures"]:
        drawn = draw(figure)
        root = ET.fromstring(f"<x>{drawn}</x>")
        assert not re.search(r"\b(nan|inf)\b", drawn)
        assert root.find("svg") is not None
    page = Page(render_page(found))
    assert {"script", "img", "link", "iframe"}.isdisjoint(page.tags)


@pytest.mark.parametrize("make", FIGURES)
@pytest.mark.parametrize("n", [0, 1, 2])
def test_hardly_any_rows_are_no_reason_to_fail(make, n):
    rows = make()
    few = rows.part(np.arange(len(rows)) < n)
    render_page(report([{"metric": "auc", "at_least": 0.1}], rows=few, champion_rows=few, champion=[]))


def test_whatever_a_container_wrote_stays_text():
    columns = {"origin": np.array([EVIL[:30], "b"] * 250)}
    metrics = [
        {"name": EVIL, "value": 1.0, "split": EVIL, "slice": EVIL, "stderr": 0.1},
        {"name": "latency_p95", "value": 0.01, "split": "test", "n": 10},
    ]
    tests = TestSummary(total=2, failures=1, failed=({"name": EVIL, "message": EVIL},))
    rules = [
        {"metric": "auc", "at_least": 0.9, "per_slice": "origin", "minimum_rows": 1},
        {"metric": EVIL, "at_least": 2, "split": EVIL, "slice": EVIL},
    ]
    made = report(
        rules,
        {"application": EVIL, "champion": EVIL},
        rows=binary(),
        columns=columns,
        metrics=metrics,
        tests=tests,
        champion_failure=EVIL,
        model_bytes=10,
    )
    text = render_page(made)
    page = Page(text)
    assert {"script", "img"}.isdisjoint(page.tags)
    assert not [value for name, value in page.attributes if name.startswith("on") or name in ("src", "href")]
    assert text.count("<script") == 0
    assert "default-src 'none'" in text, "and nothing would run or load if it did not"
    assert any(EVIL in words for words in page.words)


def test_it_says_what_was_decided_and_by_what():
    made = report(
        [{"metric": "auc", "at_least": 0.1}, {"metric": "auc", "against": "champion", "no_worse_by": 0.5}],
        rows=binary(),
        champion_rows=binary(2),
        champion=[{"name": "gizmo", "value": 4.0}],
        metrics=[{"name": "gizmo", "value": 5.0}, {"name": "auc", "value": 0.8, "split": "test"}],
    )
    assert made["about"] == {"application": "tiny"}
    assert made["decision"]["outcome"] == "passed"
    auc = next(metric for metric in made["metrics"] if metric["name"] == "auc")
    low, high = auc["gain"]["interval"]
    assert auc["gain"]["value"] == pytest.approx(auc["value"] - auc["champion"]["value"])
    assert low < auc["gain"]["value"] < high
    assert [(own["name"], own["value"], own["champion"]) for own in made["own_metrics"]] == [
        ("gizmo", 5.0, 4.0)
    ]


def test_without_predictions_there_is_the_decision_and_what_was_reported():
    made = report([{"metric": "auc", "at_least": 0.6}], metrics=[{"name": "auc", "value": 0.5}])
    assert (made["figures"], made["metrics"]) == ([], [])
    assert "0.5 is too low" in render_page(made)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [((0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1.0]), ((-3, 7), [-2, 0, 2, 4, 6]), ((5, 5), [5]), ((0, 13_000), [0, 2500, 5000, 7500, 10_000, 12_500])],
)  # fmt: skip
def test_ticks_are_round(ends, expected):
    assert ticks(*ends) == expected
