"""The model card: readable, complete, and safe whatever stands in a value."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from airflow_mlops.primitives.registration.card import model_card
from airflow_mlops.primitives.registration.record import TrainingRecord

RECORD = TrainingRecord(
    application="flight_delay",
    code={
        "name": "flight-delay",
        "version": "1.0.0",
        "image": "flight-delay:1.0.0",
        "git_commit": "abc-dirty",
    },
    config={
        "seed": 7,
        "paradigm": "classification",
        "parameters": {"learning_rate": 0.1},
        "columns": {"targets": ["late"], "features": ["temp", "wind_speed"]},
    },
    data={
        "dataset_id": "d" * 64,
        "window": ["2013-01-01T00:00:00+00:00", "2013-03-31T00:00:00+00:00"],
        "splits": {"train": 61234, "test": 1200},
        "split": {"by": "time"},
    },
    environment={"python": "3.11.2", "packages": {"numpy": "2.4"}, "lock_file": "requirements.txt"},
    run={"run_id": "r1", "dag_id": "flight_delay__training", "dag_run": "manual__1"},
    reasons="drift: temp moved",
)
METRICS = [
    {"name": "auc", "value": 0.7512, "split": "test", "stderr": 0.01, "n": 1200},
    {"name": "auc", "value": 0.6, "split": "test", "slice": "origin=JFK", "n": 150},
]
DECISION = {
    "passed": True,
    "message": "The candidate passed all 1 checks.",
    "results": [{"rule": "test.auc ≥ 0.7", "passed": True, "observed": "0.7512", "reason": ""}],
}


def card(record=RECORD, metrics=METRICS, **about):
    return model_card("flight_delay", "3", record, metrics, DECISION, about)


def test_it_says_what_people_ask():
    text = card(
        description="Will it be late?", owner="ml-team", limits=["Not for charter flights."]
    ).to_markdown()
    for words in (
        "# flight\\_delay, version 3",
        "Will it be late?",
        "| Owner | ml-team |",
        "drift: temp moved",
        "| Rows of train | 61,234 |",
        "| Predicts | late |",
        "2 inputs: temp, wind\\_speed",
        "| test.auc | 0.7512 | 0.7316 to 0.7708 | 1,200 |",
        "| origin=JFK | test.auc | 0.6 |",
        "| passed | test.auc ≥ 0.7 | 0.7512 |",
        "- Not for charter flights.",
        "- It knows nothing of what happened after 2013-03-31",
        "fewer than 200 rows say little: origin=JFK",
        "changes that were in no commit",
        "| Seed | 7 |",
        "airflow-mlops reproduce flight_delay/3",
    ):
        assert words in text, words


def test_what_is_not_known_is_said_or_left_out():
    bare = TrainingRecord(application="a", code={}, config={}, data={})
    text = model_card("a", "1", bare, [], {}, {}).to_markdown()
    assert "Nobody has written down what this model is for." in text
    assert "No figure was reported." in text
    assert "No gate was asked." in text
    assert "None" not in text


def test_slices_that_the_gate_judged_were_measured():
    bare = TrainingRecord(application="a", code={}, config={}, data={})
    judged = {"results": [{"rule": "auc", "slices": [{"slice": "origin=JFK", "observed": "0.7"}]}]}
    assert (
        "not measured in parts"
        in model_card("a", "1", bare, [], {"results": [{"rule": "auc"}]}, {}).to_html()
    )
    assert "not measured in parts" not in model_card("a", "1", bare, [], judged, {}).to_html()


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.text = set(), []

    def handle_starttag(self, tag, attrs):
        self.seen |= {tag, *(name for name, _ in attrs)}

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("bad", ["<script>alert(1)</script>", "a|b\n# c [x](javascript:1) `d` <img src=x>"])
def test_values_stay_text(bad):
    record = TrainingRecord(
        application=bad,
        code={"name": bad, "image": bad},
        config={"parameters": {bad: bad}, "columns": {"targets": [bad], "features": [bad]}},
        data={"dataset_id": bad, "window": [bad, bad]},
        reasons=bad,
    )
    metrics = [{"name": bad, "value": 1.0, "slice": bad, "n": 3}]
    made = model_card(
        bad, "1", record, metrics, {"message": bad, "results": [{"rule": bad}]}, {"limits": [bad]}
    )
    found = Tags()
    found.feed(made.to_html())
    assert not {"script", "img", "a", "onerror"} & found.seen
    assert " ".join(bad.split())[:8] in " ".join("".join(found.text).split())
    lines = [line for line in made.to_markdown().splitlines() if not line.startswith("airflow-mlops")]
    for line in lines:
        assert "<" not in line.replace("\\<", "")
        assert not line.startswith("# c")
        assert "](" not in line.replace("\\](", "").replace("\\]", "")
