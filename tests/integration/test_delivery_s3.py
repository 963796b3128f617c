"""Batches of predictions on a real S3 server: many writers of one window, one batch, and nothing is ever replaced."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier, Event

import pytest

from airflow_mlops.hooks.store.open import open_store
from airflow_mlops.primitives.delivery.batch import PredictionBatch
from airflow_mlops.stores.predictions import PredictionStore
from tests.fixtures.deadlines import DEADLINE

BATCH = PredictionBatch(
    window_id="20260101T000000Z-20260201T000000Z",
    window=("2026-01-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00"),
    rows=1,
    application="tiny",
    dataset_id="d",
    model="m",
    model_version="0",
    reference_dataset_id="r",
    run_id="run",
    predicted_at="2026-02-01T00:00:00+00:00",
)
WRITERS = 8


def write(uri, folder, version, barrier=None):
    """What the worker of one try does, whose champion is ``version``."""
    file = folder / f"{version}.parquet"
    file.write_bytes(f"predictions of version {version}\n".encode() * 1000)
    if barrier:
        barrier.wait(DEADLINE)
    predictions = PredictionStore(open_store(uri), BATCH.application)
    return predictions.publish(replace(BATCH, model_version=str(version)), file)


def read(store):
    """Each batch that there is, with what its file holds."""
    predictions = PredictionStore(store, BATCH.application)
    return [(batch, store.read(predictions.file_key(batch))) for batch in predictions.batches()]


def watch(uri, over):
    """All that a reader sees meanwhile."""
    store, seen = open_store(uri), []
    while not over.is_set():
        seen += read(store)
    return seen + read(store)


def test_many_writers_make_one_batch_and_replace_nothing(s3_bucket, tmp_path):
    uri, barrier, over = f"s3://{s3_bucket}/p", Barrier(WRITERS), Event()
    with ThreadPoolExecutor(WRITERS + 1) as pool:
        watching = pool.submit(watch, uri, over)
        try:
            done = list(pool.map(lambda version: write(uri, tmp_path, version, barrier), range(WRITERS)))
        finally:
            over.set()
        seen = watching.result(DEADLINE)
    assert sum(created for created, _ in done) == 1
    assert len({batch.file for _, batch in done}) == 1, "every writer says which batch there is"
    assert len({(batch.model_version, content) for batch, content in seen}) == 1
    batch, content = seen[-1]
    assert f"predictions of version {batch.model_version}\n".encode() in content
    assert batch.file == f"{hashlib.sha256(content).hexdigest()}.parquet"
    assert sorted(open_store(uri).list("tiny/predictions/")) == sorted(
        [f"tiny/predictions/{BATCH.window_id}/{name}" for name in (batch.file, "meta.json")]
    )


@pytest.mark.parametrize("place", ["before its file", "before meta.json"])
def test_a_writer_that_stood_still_replaces_nothing(s3_bucket, tmp_path, monkeypatch, place):
    uri = f"s3://{s3_bucket}/p"
    store, paused = open_store(uri), [place]
    real = type(store).put_if_absent

    def put(self, key, data):
        if paused and key.endswith("meta.json" if place == "before meta.json" else ".parquet"):
            paused.clear()
            write(uri, tmp_path, 2)
        return real(self, key, data)

    monkeypatch.setattr(type(store), "put_if_absent", put)
    created, batch = write(uri, tmp_path, 1)
    assert (created, batch.model_version) == (False, "2")
    ((found, content),) = read(store)
    assert found == batch
    assert content.startswith(b"predictions of version 2\n")
    assert len(store.list("tiny/predictions/")) == 2  # nothing of the late one stays


def test_a_writer_that_died_between_the_two_files_leaves_no_batch(s3_bucket, tmp_path, monkeypatch):
    uri = f"s3://{s3_bucket}/p"
    store = open_store(uri)
    real = type(store).put_if_absent

    def dies(self, key, data):
        if key.endswith("meta.json"):
            raise KeyboardInterrupt
        return real(self, key, data)

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "put_if_absent", dies)
        with pytest.raises(KeyboardInterrupt):
            write(uri, tmp_path, 1)
    assert read(store) == []
    assert write(uri, tmp_path, 2)[0]
    ((batch, content),) = read(store)
    assert (batch.model_version, content[:24]) == ("2", b"predictions of version 2")
