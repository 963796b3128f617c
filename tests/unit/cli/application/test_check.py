"""``airflow-mlops check``: what validate cannot see."""

from __future__ import annotations

import json
import os

import pytest

from airflow_mlops.cli import main
from airflow_mlops.hooks.feast.hook import FeastHook

YAML = """\
application: tiny
store: store
paradigm: classification
code: {image: "tiny:1"}
provisioning:
  features: null
  examples:
    sql: SELECT * FROM 'data.parquet'
    keys: [id]
    timestamp: at
    targets: [y]
evaluation:
  require:
    - {metric: accuracy, at_least: 0.5, per_slice: place}
"""

SPLIT = "  split: {by: group, key: [customer]}\nevaluation:"
COLUMN = "  split: {by: column, column: part}\nevaluation:"
RULE = "  assumptions:\n    - {column: delay, not_null: true}\nevaluation:"
WHERE = "  assumptions:\n    - {column: place, not_null: true, where: delay > 3}\nevaluation:"


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Check a changed YAML in a folder with data: ``{key: problem}``."""
    import duckdb

    duckdb.connect().execute(
        "COPY (SELECT 1 AS id, TIMESTAMP '2026-01-01' AS at, 1 AS y, 'JFK' AS place) "
        f"TO '{tmp_path}/data.parquet' (FORMAT parquet)"
    )
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", "mlflow://localhost:1")
    monkeypatch.chdir(tmp_path)

    def run(old="", new=""):
        assert old in YAML
        (tmp_path / "tiny.yaml").write_text(YAML.replace(old, new) if old else YAML)
        code = main(["check", "--json", "tiny.yaml"])
        found = json.loads(capsys.readouterr().out)
        assert (code == 0) is found["ok"] is (not found["problems"])
        return {problem["key"]: problem for problem in found["problems"]}

    return run


def test_what_is_all_there_has_no_problem_and_leaves_nothing(check, tmp_path):
    assert check() == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.parquet", "tiny.yaml"]
    (tmp_path / "store").mkdir()
    assert check() == {}
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new", "key", "line", "word"),
    [
        ("SELECT *", "SELEC *", "provisioning.examples.sql", 8, "SELEC"),
        ("'data.parquet'", "'date.parquet'", "provisioning.examples.sql", 8, "data.parquet"),
        ("keys: [id]", "keys: [ident]", "provisioning.examples.sql", 8, "ident"),
        ("targets: [y]", "targets: [label]", "provisioning.examples.sql", 8, "label"),
        ("per_slice: place", "per_slice: plaice", "evaluation.require[0].per_slice", 14, "plaice"),
        ("evaluation:", SPLIT, "provisioning.split.key", 12, "customer"),
        ("evaluation:", COLUMN, "provisioning.split.column", 12, "part"),
        ("evaluation:", RULE, "provisioning.assumptions[0]", 13, "delay"),
        ("evaluation:", WHERE, "provisioning.assumptions[0]", 13, "delay"),
        ("store: store", "store: data.parquet/x", "store", 2, "cannot write"),
        ("code:", "tracking: {connection: absent}\ncode:", "tracking.connection", 4, "absent"),
    ],
)
def test_each_thing_that_is_not_there_has_its_line(check, old, new, key, line, word):
    found = check(old, new)
    assert list(found) == [key]
    assert found[key]["line"] == line
    assert word in found[key]["what"]


def test_a_secret_without_its_connection_says_so(check):
    found = check("evaluation:", "training: {secrets: {shop: shop_db}}\nevaluation:")
    assert "shop_db" in found["training.secrets.shop"]["what"]
    assert found["training.secrets.shop"]["cure"]


def test_rules_and_splits_about_columns_that_are_there_have_no_problem(check):
    assert check("evaluation:", RULE.replace("delay", "Place")) == {}
    assert check("evaluation:", SPLIT.replace("customer", "place")) == {}


@pytest.mark.parametrize(
    ("rule", "missing"),
    [("{column: delay, not_null: true}", ""), ("{column: dealy, not_null: true}", "dealy")],
)
def test_columns_of_a_feature_service_count(check, monkeypatch, rule, missing):
    monkeypatch.setattr(FeastHook, "entity_columns", lambda *_: ("id",))
    monkeypatch.setattr(FeastHook, "feature_columns", lambda *_: ("delay",))
    found = check("features: null", f"features: daily\n  assumptions:\n    - {rule}")
    assert list(found) == (["provisioning.assumptions[0]"] if missing else [])
    if missing:
        assert "feature service: id, at, y, place, delay" in found["provisioning.assumptions[0]"]["cure"]


DESCRIBED = {
    "contract": 1,
    "commands": ["describe", "train", "evaluate", "test", "predict"],
    "parameters": {
        "type": "object",
        "properties": {"depth": {"type": "integer", "default": 3}},
        "additionalProperties": False,
    },
}


@pytest.mark.parametrize(
    ("parameters", "described", "there", "key", "words"),
    [
        ("{depth: 4}", DESCRIBED, True, "", ""),
        ("{dept: 4}", DESCRIBED, True, "training.parameters", "dept"),
        ("{depth: deep}", DESCRIBED, True, "training.parameters", "depth"),
        ("{depth: 4}", {**DESCRIBED, "commands": ["describe", "train"]}, True, "code.image", "evaluate"),
        ("{dept: 4}", DESCRIBED, False, "", ""),
    ],
)
def test_parameters_are_held_against_an_image_that_is_here(
    check, monkeypatch, tmp_path_factory, parameters, described, there, key, words
):
    folder = tmp_path_factory.mktemp("bin")
    script = f"[ \"$2\" = inspect ] && exit {int(not there)}\ncat <<'END'\n{json.dumps(described)}\nEND\n"
    (folder / "docker").write_text(f"#!/bin/sh\n{script}")
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    found = check("evaluation:", f"training: {{parameters: {parameters}}}\nevaluation:")
    assert list(found) == ([key] if key else [])
    if key:
        assert words in found[key]["what"]
        assert found[key]["cure"]
