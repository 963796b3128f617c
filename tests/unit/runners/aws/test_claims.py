"""The claim of a job: given up by its claimer alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_mlops.hooks.store.files import FileStore
from airflow_mlops.runners.aws.claims import Claims


@pytest.fixture
def claims(tmp_path):
    return Claims(SimpleNamespace(store=FileStore(tmp_path)), adopt_after=0.0)


def test_a_claimer_removes_its_own(claims):
    claim = claims.obtain("job", {}, lambda _: "")
    assert claims.give_up("job", claim)
    assert claims.read("job") is None


def test_one_that_was_taken_over_is_not_removed_by_its_former_owner(claims):
    former = claims.obtain("job", {}, lambda _: "")
    now = claims.obtain("job", {}, lambda _: "")
    assert now.token != former.token
    assert not claims.give_up("job", former)
    assert claims.read("job").token == now.token
