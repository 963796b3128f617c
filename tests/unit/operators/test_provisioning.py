"""What provisioning finds out before it joins."""

from __future__ import annotations

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_mlops.hooks.datasets.versions import DatasetStore
from airflow_mlops.hooks.store.base import open_store
from airflow_mlops.operators.provisioning import ProvisionDatasetOperator


def test_a_store_that_cannot_be_written_to_is_found_before_the_join(tmp_path):
    (tmp_path / "file").write_text("no folder")
    operator = ProvisionDatasetOperator(
        task_id="provision",
        application="tiny",
        store=str(tmp_path / "file" / "store"),
        examples={"parquet": str(tmp_path / "absent.parquet"), "keys": ["id"], "timestamp": "at"},
    )
    with pytest.raises(AirflowFailException, match=r"cannot write .*file/store"):
        operator.execute({})


def test_the_probe_of_a_store_leaves_nothing(tmp_path):
    DatasetStore(open_store(tmp_path), "tiny").check_writable()
    assert [path for path in tmp_path.rglob("*") if path.is_file() and ".locks" not in path.parts] == []
