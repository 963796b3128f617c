"""Predictions in the artifact store: batches of the champion, and what a model predicted of a test split."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_mlops.hooks.store.base import in_parallel
from airflow_mlops.primitives.delivery.batch import UNNAMED, PredictionBatch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from airflow_mlops.hooks.store.base import Store
    from airflow_mlops.primitives.evaluation.predicted import TestSplit
    from airflow_mlops.stores.datasets.versions import DatasetStore

__all__ = ["PredictionStore", "TestPredictions", "test_split"]


class PredictionStore:
    """
    Published batches of one application, a window of examples each.

    ``<application>/predictions/<window_id>/`` holds the Parquet file of a batch, named by its content, and
    ``meta.json``, the record that names the file. The record is written last and makes the batch exist. Neither is
    ever replaced.

    :param store: where they are kept.
    :param application: name of the application, the first part of every key.
    """

    def __init__(self, store: Store, application: str) -> None:
        self.store = store
        self.application = application

    def key(self, *names: str) -> str:
        """Key of something below this application's predictions."""
        return "/".join((self.application, "predictions", *names))

    def file_key(self, batch: PredictionBatch) -> str:
        """Key of the file with a batch's predictions."""
        return self.key(batch.window_id, batch.file or UNNAMED)

    def record_key(self, window_id: str) -> str:
        """Key of the record that makes a window's batch exist."""
        return self.key(window_id, "meta.json")

    def batches(self) -> list[PredictionBatch]:
        """All published batches, oldest window first.

        :raises DataError: a record cannot be read.
        """
        keys = [key for key in self.store.list(self.key("")) if key.endswith("/meta.json")]
        return in_parallel(self._record, keys)

    def publish(self, batch: PredictionBatch, predictions: Path) -> tuple[bool, PredictionBatch]:
        """Make a batch exist, unless its window has one.

        The file is named by its content and the record names the file, each written once: a worker that stood still
        in between can neither change a published batch nor have its own file pass for another's.

        :param predictions: the local Parquet file.
        :return: whether this call published it, and the batch that the window has now.
        """
        with predictions.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        batch = replace(batch, file=f"{digest}.parquet")
        file, record = self.file_key(batch), self.record_key(batch.window_id)
        self.store.put_if_absent(file, predictions)
        created = self.store.put_if_absent(record, batch.to_json())
        published = self._record(record)
        if self.file_key(published) != file:
            self.store.delete(file)  # no batch names it, and none will: the window has one
        return created, published

    def local(self, batch: PredictionBatch, scratch: Path) -> Path:
        """A local file with a batch's predictions; it must not be changed.

        :param scratch: where it is copied to if the store is no folder.
        """
        return self.store.local(self.file_key(batch), scratch)

    def _record(self, key: str) -> PredictionBatch:
        return PredictionBatch.from_json(self.store.read_json(key), self.store.address(key))


class TestPredictions:
    """
    What jobs predicted of the test splits of dataset versions, a file for each job, removed with its version.

    :param datasets: the dataset versions of the application.
    """

    __test__ = False  # the name is about a test split; pytest has nothing to collect here

    def __init__(self, datasets: DatasetStore) -> None:
        self._datasets = datasets

    def key(self, dataset_id: str, job: str) -> str:
        """Key of what a job predicted."""
        return self._datasets.key("predictions", dataset_id, f"{job}.parquet")

    def keys(self, dataset_id: str) -> list[str]:
        """Keys of all that was predicted of a version's test split."""
        return self._datasets.store.list(self._datasets.key("predictions", dataset_id, ""))

    def keep(self, dataset: Mapping[str, Any], job: str, predictions: Path) -> str | None:
        """Keep what a job predicted, once, beside the dataset version.

        :param dataset: the version, with its ``dataset_id``.
        :param predictions: the file that the job wrote, if it wrote one.
        :return: its key; ``None`` without a file.
        """
        if not predictions.is_file():
            return None
        key = self.key(dataset["dataset_id"], job)
        self._datasets.store.put_if_absent(key, predictions)
        return key

    def local(self, key: str, scratch: Path) -> Path:
        """A local file with what was kept under a key; it must not be changed."""
        return self._datasets.store.local(key, scratch)


def test_split(datasets: DatasetStore, dataset_id: str, scratch: Path) -> TestSplit:
    """The test split of a dataset version, with the roles of its columns."""
    from airflow_mlops.primitives.evaluation.predicted import TestSplit

    manifest = datasets.manifest(dataset_id)
    return TestSplit(
        files=tuple(datasets.paths(dataset_id, "test", scratch)),
        keys=tuple(manifest.names("key")),
        timestamp=next(iter(manifest.names("timestamp")), None),
        target=next(iter(manifest.names("target")), None),
        inputs=tuple(manifest.model_inputs),
    )
