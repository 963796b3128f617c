"""What provisioning finds out before it joins."""

from __future__ import annotations

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_mlops.exceptions import StoreError
from airflow_mlops.hooks.store.files import FileStore
from airflow_mlops.hooks.store.open import open_store
from airflow_mlops.operators.datasets.provision import ProvisionDatasetOperator
from airflow_mlops.operators.datasets.split import SplitDatasetOperator
from airflow_mlops.operators.delivery import PredictBatchOperator
from airflow_mlops.operators.features.extract import ExtractFeaturesOperator
from airflow_mlops.operators.features.transform import TransformFeaturesOperator
from airflow_mlops.stores.datasets.versions import DatasetStore
from tests.fixtures.features import task_context


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


STAGED = {"staged": "features/weather/staging/run/extracted", "rows": 1}
DATASET = {"dataset_id": "0" * 64, "window": ["2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"]}


@pytest.mark.parametrize(
    "operator",
    [
        ExtractFeaturesOperator(
            task_id="extract", features="weather", store="{store}", source={"files": "/absent.parquet"}
        ),
        TransformFeaturesOperator(
            task_id="transform", features="weather", store="{store}", extracted=STAGED, sql="FROM extracted"
        ),
        SplitDatasetOperator(
            task_id="split",
            application="tiny",
            store="{store}",
            dataset="latest",
            split={"train": 1.0},
            line="main",
        ),
        PredictBatchOperator(
            task_id="predict",
            application="tiny",
            store="{store}",
            code={},
            dataset=DATASET,
            training={},
            runner={},
        ),
    ],
    ids=lambda operator: operator.task_id,
)
def test_so_is_one_before_rows_are_read_divided_or_predicted(tmp_path, monkeypatch, operator):
    def full(store, key, data):
        raise StoreError(f"cannot write {key}: the disk is full")

    monkeypatch.setattr(FileStore, "put_if_absent", full)
    operator.store = str(tmp_path)
    with pytest.raises(AirflowFailException, match=r"cannot write (features/weather|tiny/datasets)/probe-"):
        operator.execute(task_context(task_id=operator.task_id))
