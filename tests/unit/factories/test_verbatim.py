"""What a YAML says arrives at its task as it is written."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest
from airflow.sdk import XComArg

from airflow_mlops.factories import build_dags
from airflow_mlops.factories.maintenance import build_maintenance_dag
from airflow_mlops.spec import load_application, load_spec
from tests.unit.factories.samples import write
from tests.unit.factories.test_features import YAML as FEATURES

PROMPT = "Answer {{ conn.warehouse.password }} in {% raw %}\r\n{# no comment #}\n"
SQL = "SELECT * FROM read_parquet('x.parquet') WHERE name LIKE '{%' OR name = '{{ var.value.secret }}'\n"
#: How the templates of our own factories begin.
OURS = re.compile(r"\{\{ (params\.|ti\.xcom_pull\(|data_interval|\(?[a-z_]+\.isoformat)")
KEYS = {
    "provisioning": {
        "features": "tiny_v1",
        "feature_store": "feast",
        "examples": {"sql": SQL, "keys": ["id"], "timestamp": "at", "targets": ["y"]},
        "assumptions": [{"column": "name", "matches": "^{%.*{{"}, {"column": "name", "one_of": [PROMPT]}],
    },
    "training": {
        "parameters": {"prompt": PROMPT, "nested": {"words": ["{{ 1 + 1 }}"]}},
        "tuning": {"trials": 2, "objective": "validation.auc"},
    },
    "description": PROMPT,
    "registration": {"limits": [PROMPT]},
    "delivery": [{"batch": {"schedule": "@daily"}}],
    "monitoring": {"performance": {}},
}


def texts(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for inner in value.values() for text in texts(inner))
    elif isinstance(value, list | tuple | set):
        yield from (text for inner in value for text in texts(inner))


def rendered(dag):
    """Every template field of every task, as Airflow renders it; what tasks return is left out."""
    for task in dag.tasks:
        for name in task.template_fields:
            value = getattr(task, name)
            if not isinstance(value, XComArg):
                yield task.task_id, name, value, task


@pytest.fixture
def dags(tmp_path):
    return build_dags(load_application(write(tmp_path, **KEYS)))


def context():
    params = {
        "why": "{{ conn.x }}",
        "parameters": {"a": "{{ conn.x }}"},
        "line": None,
        "features": None,
        "code": None,
    }
    ti = SimpleNamespace(xcom_pull=lambda **_: None)
    return {"params": params, "line_name": lambda *_: "", "conn": None, "var": None, "ti": ti}


def test_all_texts_of_an_application_arrive(dags):
    arrived = set()
    for dag in dags.values():
        for _, _, value, task in rendered(dag):
            found = task.render_template(value, context(), task.get_template_env(dag))
            arrived |= set(texts(found))
    assert {PROMPT, SQL, "{{ 1 + 1 }}"} <= arrived
    # Our own templates are rendered, and what they give is not rendered again.
    assert {"{{ conn.x }}", '{"a": "{{ conn.x }}"}', "tiny_v1", "tiny:1"} <= arrived


@pytest.mark.parametrize(
    "text", ["{{ 1 + 1 }}", "{% raw %}", "a {# no comment #} b", "a\r\nb", "an end\n", "a {{"]
)
def test_each_mark_of_a_template_alone_arrives(tmp_path, text):
    spec = load_application(write(tmp_path, training={"parameters": {"prompt": text}}))
    arrived = {
        one
        for dag in build_dags(spec).values()
        for _, _, value, task in rendered(dag)
        for one in texts(task.render_template(value, context(), task.get_template_env(dag)))
    }
    assert text in arrived


def test_nothing_but_our_own_templates_is_rendered(dags):
    own = [
        text
        for dag in dags.values()
        for _, _, value, _ in rendered(dag)
        for text in texts(value)
        if "{{" in text or "{%" in text
    ]
    assert own
    assert [text for text in own if not OURS.match(text)] == []
    # Airflow's messages between the processes of the DAG processor take no other kind of text.
    every = [text for dag in dags.values() for _, _, value, _ in rendered(dag) for text in texts(value)]
    assert {type(text) for text in every} == {str}


def test_a_name_with_quotes_does_not_leave_the_template_of_the_form(tmp_path):
    from airflow_mlops.factories.application import line_of_form

    spec = load_application(write(tmp_path))
    odd = "a'b\"c\\d{{ }}"
    changed = spec.model_copy(update={"provisioning": spec.provisioning.model_copy(update={"features": odd})})
    task = next(iter(build_dags(spec)["tiny__provisioning"].tasks))
    assert task.render_template(line_of_form(changed)["features"], context()) == odd


def test_a_feature_pipeline_and_the_maintenance_too(tmp_path):
    file = tmp_path / "weather.yaml"
    file.write_text(json.dumps({**FEATURES, "transform": {"sql": SQL}, "description": PROMPT}))
    spec = load_spec(file)
    for dag in [*build_dags(spec).values(), build_maintenance_dag([spec, load_application(write(tmp_path))])]:
        for _, _, value, _ in rendered(dag):
            for text in texts(value):
                assert OURS.match(text) or not any(mark in text for mark in ("{{", "{%", "{#"))
