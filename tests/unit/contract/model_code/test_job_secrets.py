"""What model code is told in confidence."""

from __future__ import annotations

import json

import pytest

from airflow_mlops.contract.model_code.job import Job
from airflow_mlops.contract.protocol.failures import ParameterError
from airflow_mlops.contract.protocol.paths import Paths

WAREHOUSE = {"conn_type": "postgres", "host": "db", "login": "reader", "password": "hidden", "extra": {}}


@pytest.fixture
def job(tmp_path):
    folder = tmp_path / "input/secrets"
    folder.mkdir(parents=True)
    (folder / "warehouse.json").write_text(json.dumps(WAREHOUSE))
    return Job("train", Paths(tmp_path), {})


def test_a_secret_is_a_mapping(job):
    assert job.secret("warehouse") == WAREHOUSE


def test_one_that_was_not_given_is_named_with_the_cure(job):
    with pytest.raises(
        ParameterError, match=r"no secret 'warehous'; it has: warehouse\. Cure: training\.secrets"
    ):
        job.secret("warehous")


def test_a_broken_one_is_not_shown(job):
    job.paths.secret("warehouse").write_text('{"password": "hidden"')
    with pytest.raises(ParameterError, match=r"warehouse\.json cannot be read: JSONDecodeError") as caught:
        job.secret("warehouse")
    assert "hidden" not in str(caught.value)
    assert caught.value.__cause__ is None
