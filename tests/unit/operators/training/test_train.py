"""Reading what an image says of itself."""

from __future__ import annotations

import json

import pytest

from airflow_mlops.exceptions import ContractError
from airflow_mlops.operators.training.train import TrainModelOperator
from airflow_mlops.primitives.training.description import parse_description

SAID = {"contract": 1, "name": "m", "commands": ["describe", "train"], "parameters": {"a": {"b": {}}}}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    "before",
    ["", "loading\n", "UserWarning: {'a': 1} is odd\n", '{"progress": {"step": 1}}\n', "{\n", "said: "],
)
def test_it_is_found_among_whatever_else_was_printed(before, indent):
    assert parse_description(f"{before}{json.dumps(SAID, indent=indent)}\nbye {{}}\n") == SAID


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "one JSON object"),
        ("no JSON", "no JSON"),
        ('{"contract": 1, "name": "cut … [900 more bytes]', "Cure: print it on short lines"),
        ('{"a":' * 100_000, "one JSON object"),
        ('{"name": "m"}', '"contract": 1'),
        (json.dumps({**SAID, "contract": 2}), "contract 2"),
        (json.dumps({**SAID, "commands": "train"}), "list of words"),
    ],
)
def test_what_is_no_description_is_refused(text, words):
    with pytest.raises(ContractError, match=words.replace("[", r"\[")):
        parse_description(text)


def test_the_api_server_finds_the_link_to_mlflow_where_the_worker_leaves_it():
    """Airflow pushes what ``get_link`` says under the key that the serialized DAG names."""
    from airflow.sdk import DAG
    from airflow.serialization.serialized_objects import DagSerialization

    with DAG("tiny__training") as dag:
        train = TrainModelOperator(
            task_id="train",
            application="tiny",
            store="/s",
            code={},
            runner={"kind": "process", "root": "/jobs"},
            dataset={},
            description={},
            experiment="tiny",
        )
    stored = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
    (link,) = stored.get_task("train").operator_extra_links
    (own,) = train.operator_extra_links
    assert (link.name, link.xcom_key) == ("MLflow run", own.xcom_key)
    assert own.get_link(train, ti_key=None) == ""
    train.run_url = "http://mlflow/#/experiments/1/runs/2"
    assert own.get_link(train, ti_key=None) == train.run_url
