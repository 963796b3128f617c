"""Our offline store over feature files on a real S3 server."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.exceptions import FeatureStoreError, SourceError
from tests.integration.test_asof_store import Repository, ask, at, rows


@pytest.fixture
def features(s3_server: Any, s3_bucket: str) -> str:
    """Two files of published features; the second one is not in the snapshot."""
    client = s3_server.client()
    for name, minute, value in (("day=1/aa", 0, 1), ("day=2/bb", 20, 2), ("day=2/not yet", 30, 3)):
        buffer = io.BytesIO()
        pq.write_table(rows([minute], [value]), buffer)
        client.put_object(Bucket=s3_bucket, Key=f"features/f/data/{name}.parquet", Body=buffer.getvalue())
    snapshot = {"snapshot": "s", "files": ["day=1/aa.parquet", "day=2/bb.parquet"]}
    client.put_object(Bucket=s3_bucket, Key="features/f/snapshot.json", Body=json.dumps(snapshot).encode())
    return f"s3://{s3_bucket}/features/f/data"


def test_published_features_are_read_by_the_connection(features, s3_server, monkeypatch, tmp_path):
    repository = Repository(tmp_path, features, aws_conn_id="aws_default")
    job = repository.job(ask(5, 25, 35))
    assert job.to_arrow()["v"].to_pylist() == [1, 2, 2]
    assert [path.rpartition("/")[2] for path in job.views[0].paths] == ["aa.parquet", "bb.parquet"]
    assert job.to_parquet(tmp_path / "out.parquet") == 3
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", s3_server.connection_json)
    named = Repository(tmp_path, features.replace("s3://", "s3://lake@"))
    assert named.values(ask(5, 25)) == [1, 2]


def test_a_pattern_a_file_and_a_folder_are_sources(features, tmp_path):
    for path, expected in (
        (f"{features}/day=2/*.parquet", [None, 3]),
        (f"{features}/day=1/aa.parquet", [1, 1]),
        (features.removesuffix("/data"), [1, 3]),
    ):
        repository = Repository(tmp_path, path, aws_conn_id="aws_default")
        assert repository.values(ask(5, 35)) == expected


def test_outside_airflow_the_environment_holds_the_login(features, s3_server, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    repository = Repository(tmp_path, features, s3_endpoint_override=s3_server.endpoint)
    assert repository.values(ask(5, 25)) == [1, 2]


def test_examples_may_lie_on_s3(features, s3_server, s3_bucket, tmp_path):
    buffer = io.BytesIO()
    entities = pa.table({"k": [1], "event_timestamp": pa.array([at(25)], pa.timestamp("us", "UTC"))})
    pq.write_table(entities, buffer)
    s3_server.client().put_object(Bucket=s3_bucket, Key="e.parquet", Body=buffer.getvalue())
    repository = Repository(tmp_path, features, aws_conn_id="aws_default")
    assert repository.values(f"s3://{s3_bucket}/e.parquet") == [2]
    with pytest.raises(FeatureStoreError, match=r"entity rows cannot be read: .*gone.parquet"):
        repository.job(f"s3://{s3_bucket}/gone.parquet")


def test_what_s3_refuses_is_explained(features, s3_server, monkeypatch, tmp_path):
    gone = Repository(tmp_path, features.replace("features", "nothing"), aws_conn_id="aws_default")
    with pytest.raises(SourceError, match=r"feature view 'view': no object at s3://.*/nothing/f/data"):
        gone.job(ask(5))
    no_bucket = Repository(tmp_path, "s3://no-such-bucket/features", aws_conn_id="aws_default")
    with pytest.raises(SourceError, match=r"feature view 'view': .*no-such-bucket"):
        no_bucket.job(ask(5))
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", s3_server.with_secret("wrong").connection_json)
    with pytest.raises(SourceError, match="feature view 'view': ") as refused:
        Repository(tmp_path, features, aws_conn_id="aws_default").job(ask(5))
    assert "wrong" not in str(refused.value)
    assert not refused.value.retriable


def test_an_object_that_goes_away_before_it_is_read(features, s3_server, s3_bucket, tmp_path):
    job = Repository(tmp_path, features, aws_conn_id="aws_default").job(ask(5, 25))
    s3_server.client().delete_object(Bucket=s3_bucket, Key="features/f/data/day=1/aa.parquet")
    with pytest.raises(SourceError, match=r"point-in-time join of view: .*aa.parquet.* try again") as gone:
        job.to_arrow()
    assert gone.value.retriable


def test_two_ways_to_s3_in_one_join_are_refused(features, tmp_path):
    from airflow_mlops.hooks.feast.asof.files import ViewFiles

    files = ViewFiles("aws_default")
    assert len(files.find(features)) == 2
    with pytest.raises(SourceError, match="connection 'aws_default' and by connection 'other'"):
        files.find(features.replace("s3://", "s3://other@"))
