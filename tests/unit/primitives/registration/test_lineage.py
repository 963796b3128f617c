"""What stands beside a model version."""

from __future__ import annotations

import pytest

from airflow_mlops.exceptions import SpecError
from airflow_mlops.primitives.registration.lineage import TAG_LIMIT, Lineage, parameters_digest

WHOLE = {
    "application": "flight_delay",
    "dataset_id": "4f" * 32,
    "image": "flight-delay:1.0.0",
    "image_digest": "sha256:" + "0a" * 32,
    "code": "flight_delay 1.0.0",
    "parameters_digest": parameters_digest({"learning_rate": 0.1}),
    "seed": 7,
    "reasons": "drift of 3 columns",
    "dag_run": "flight_delay__training/manual__2013",
}


def test_tags_and_back():
    tags = Lineage.from_dict(WHOLE).to_tags()
    assert tags["airflow_mlops.seed"] == "7"
    assert Lineage.from_tags({**tags, "airflow_mlops.gate": "passed", "owner": "ada"}) == Lineage.from_dict(
        WHOLE
    )


def test_what_is_not_known_leaves_no_tag():
    assert Lineage.from_dict({"application": "a", "image_digest": "", "seed": None}).to_tags() == {
        "airflow_mlops.application": "a"
    }
    assert Lineage(seed=0).to_tags() == {"airflow_mlops.seed": "0"}


def test_reasons_may_be_a_list_and_long():
    tags = Lineage.from_dict({"reasons": [{"kind": "drift", "id": "x" * 10_000}]}).to_tags()
    assert tags["airflow_mlops.reasons"].startswith('[{"id": "xxx')
    assert len(tags["airflow_mlops.reasons"]) == TAG_LIMIT


def test_an_unknown_key_is_named():
    with pytest.raises(SpecError, match=r"no datasetid; it has: application, .*dataset_id"):
        Lineage.from_dict({"datasetid": "x"})


def test_equal_parameters_have_one_digest():
    assert parameters_digest({"a": 1, "b": [1.5, "é"]}) == parameters_digest({"b": [1.5, "é"], "a": 1})
    assert parameters_digest({"a": 1}) != parameters_digest({"a": "1"})
    assert len(parameters_digest({})) == 64
