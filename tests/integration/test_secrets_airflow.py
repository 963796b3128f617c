"""A secret in a real Airflow: it is in no log, database or file."""

from __future__ import annotations

import json

import pytest

from tests.fixtures.tasks import write_examples
from tests.integration.test_airflow import application
from tests.integration.test_secrets import CONTENT, FORMS


@pytest.mark.docker
@pytest.mark.airflow
def test_airflow_keeps_it_nowhere(airflow, tiny_image, tmp_path, docker_engine):
    """A model that prints what it was told, and fails with it: not in any log, database or file of Airflow's."""
    write_examples(tmp_path / "examples.parquet")
    airflow.client.call(
        "POST",
        "/connections",
        {**CONTENT, "connection_id": "warehouse_in_airflow", "extra": json.dumps(CONTENT["extra"])},
    )
    text = application(
        "told",
        tmp_path,
        tiny_image,
        parameters={"do": "secret", "seconds": 8, "code": 10},
        secrets={"warehouse": "warehouse_in_airflow"},
    )
    airflow.add("told", text)
    airflow.until("DAG", lambda: "told__training" in airflow.dag_ids())
    run = airflow.client.trigger("told__training", {})
    assert airflow.finish("told__training", run) == "failed"

    log = airflow.log("told__training", run, "train")
    said = log.replace('\\"', '"')
    # Once by the model, once in the error that quotes its words.
    assert said.count('"password": "***"') >= 2
    assert '"login": "reader"' in said
    home = airflow.settings.home.parent
    files = [path for path in home.rglob("*") if path.is_file() and not path.is_symlink()]
    assert {path.name: places for path in files if (places := leaks(path))} == {}
    assert docker_engine.containers("mlops-told-") == []


def leaks(path):
    """Where a file shows the secret: what stands before it."""
    content = path.read_bytes()
    return [
        content[max(0, at - 400) : at].decode(errors="replace")
        for form in FORMS
        if (at := content.find(form.encode())) >= 0
    ]
