"""Sources on a real S3 server: found, checked, read by DuckDB, and pinned."""

from __future__ import annotations

import io
import json

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.exceptions import SourceError, SourceUnavailableError
from airflow_mlops.hooks.sources.examples import AirflowSources
from airflow_mlops.primitives.sources.base import check_same_columns, open_query, pin_files
from airflow_mlops.primitives.sources.pinned import find_pinned


def parquet_bytes(**columns) -> bytes:
    target = io.BytesIO()
    pq.write_table(pa.table(columns), target)
    return target.getvalue()


@pytest.fixture
def client(s3_server, s3_bucket):
    client = s3_server.client()
    for key, number in (("a/1", 1), ("a/2", 2), ("a/b/3", 3), ("a/odd [x]*", 4), ("ab/5", 5)):
        client.put_object(Bucket=s3_bucket, Key=f"{key}.parquet", Body=parquet_bytes(n=[number]))
    client.put_object(Bucket=s3_bucket, Key="a/_SUCCESS", Body=b"")
    return client


@pytest.fixture
def sources(client):
    return AirflowSources()


@pytest.mark.parametrize(
    ("pattern", "keys"),
    [
        ("a/1.parquet", ["a/1"]),
        ("a/*.parquet", ["a/1", "a/2", "a/odd [x]*"]),
        ("a/**/*.parquet", ["a/1", "a/2", "a/b/3", "a/odd [x]*"]),
        ("a", ["a/1", "a/2", "a/b/3", "a/odd [x]*"]),
        ("a*/[!1-4].parquet", ["ab/5"]),
        ("*/[12]?parquet", ["a/1", "a/2"]),
    ],
)
def test_objects_are_found_like_files(sources, s3_bucket, pattern, keys):
    expected = tuple(f"s3://{s3_bucket}/{key}.parquet" for key in keys)
    assert sources.find(f"s3://{s3_bucket}/{pattern}") == expected


def test_duckdb_reads_what_was_found_and_pins_say_what_it_was(sources, s3_bucket, client):
    with duckdb.connect() as connection:
        sources.register(connection)
        query = open_query(
            connection, f"SELECT n FROM read_parquet('s3://{s3_bucket}/a/*.parquet')", None, sources, "x"
        )
        client.put_object(Bucket=s3_bucket, Key="a/late.parquet", Body=parquet_bytes(n=[9]))
        assert sorted(connection.execute(query.sql).fetchall()) == [(1,), (2,), (4,)]
    (files,) = query.files.values()
    pins = sources.pin(files)
    assert [pin["file"] for pin in pins] == ["1.parquet", "2.parquet", "odd [x]*.parquet"]
    assert {tuple(sorted(pin)) for pin in pins} == {("bytes", "etag", "file", "footer_sha256")}
    assert sources.columns(files[0]) == ["n"]
    client.put_object(Bucket=s3_bucket, Key="a/2.parquet", Body=parquet_bytes(n=[22]))
    with pytest.raises(SourceUnavailableError, match=r"a/2.parquet changed while it was read"):
        sources.pin(files)


def test_a_bucket_with_versions_gives_an_overwritten_object_back(sources, s3_bucket, client, tmp_path):
    client.put_bucket_versioning(Bucket=s3_bucket, VersioningConfiguration={"Status": "Enabled"})
    client.put_object(Bucket=s3_bucket, Key="v/1.parquet", Body=parquet_bytes(n=[7]))
    files = sources.find(f"s3://{s3_bucket}/v")
    (pin,) = sources.pin(files)
    client.put_object(Bucket=s3_bucket, Key="v/1.parquet", Body=parquet_bytes(n=[8]))
    found = sources.download(files[0], pin, tmp_path / "old.parquet")
    assert pq.read_table(found).column("n").to_pylist() == [7]
    client.delete_object(Bucket=s3_bucket, Key="v/1.parquet", VersionId=pin["version_id"])
    assert sources.download(files[0], pin, tmp_path / "gone.parquet") is None


def test_what_is_not_there_is_said_with_what_is(sources, s3_bucket):
    with pytest.raises(
        SourceError, match=r"no object at s3://.*/a/9\*; s3://.*/a/ has 1.parquet, 2.parquet, _SUCCESS, b/"
    ):
        sources.find(f"s3://{s3_bucket}/a/9*")
    with pytest.raises(SourceError, match=r"404 NoSuchBucket.*Check the name of the bucket"):
        sources.find("s3://no-such-bucket-here/a/*")


def test_who_may_not_read_is_told(s3_server, s3_bucket, sources, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", s3_server.with_secret("wrong").connection_json)
    with pytest.raises(SourceError, match=r"403.*Check login and password"):
        AirflowSources().find(f"s3://{s3_bucket}/a/*")
    with pytest.raises(
        SourceError, match=r"There is no Airflow connection 'nobody'\. Cure: create one of type aws"
    ) as caught:
        AirflowSources("nobody").find(f"s3://{s3_bucket}/a/*")
    assert s3_server.secret_key not in str(caught.value)


def test_a_server_that_is_away_may_be_tried_again(s3_bucket, sources, monkeypatch, s3_server):
    away = json.loads(s3_server.connection_json)
    away["extra"] |= {
        "endpoint_url": "http://127.0.0.1:9",
        "config_kwargs": {"retries": {"total_max_attempts": 1}},
    }
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(away))
    with pytest.raises(SourceUnavailableError, match=r"does not answer") as caught:
        AirflowSources().find(f"s3://{s3_bucket}/a/*")
    assert caught.value.retriable


def test_a_truncated_object_and_one_of_another_type_are_named(sources, s3_bucket, client):
    client.put_object(Bucket=s3_bucket, Key="t/1.parquet", Body=parquet_bytes(n=[1]))
    client.put_object(Bucket=s3_bucket, Key="t/2.parquet", Body=parquet_bytes(n=["x"]))
    with pytest.raises(SourceError, match=r"t/2.parquet: n is string instead of int64"):
        check_same_columns(sources.find(f"s3://{s3_bucket}/t/*"), "examples", sources.schema)
    client.put_object(Bucket=s3_bucket, Key="t/2.parquet", Body=parquet_bytes(n=[1])[:-7])
    with pytest.raises(SourceError, match=r"t/2.parquet cannot be read as Parquet.*truncated"):
        check_same_columns(sources.find(f"s3://{s3_bucket}/t/*"), "examples", sources.schema)


class TestConnections:
    """Addresses that name their connection, beside a default that opens nothing."""

    @pytest.fixture
    def sources(self, client, s3_server, monkeypatch):
        for conn_id, server in (("lake", s3_server), ("shop", s3_server.as_reader())):
            monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", server.connection_json)
        wrong = s3_server.with_secret("wrong")
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", wrong.connection_json)
        return AirflowSources()

    def test_one_query_reads_by_several(self, sources, s3_bucket):
        files = [
            f"read_parquet('s3://{place}')" for place in (f"lake@{s3_bucket}/a/*", f"shop@{s3_bucket}/ab")
        ]
        with duckdb.connect() as connection:
            sources.register(connection)
            sql = f"SELECT n FROM {files[0]} UNION ALL SELECT n FROM {files[1]}".replace("/*", "/*.parquet")
            query = open_query(connection, sql, None, sources, "x")
            assert sorted(connection.execute(query.sql).fetchall()) == [(1,), (2,), (4,), (5,)]
        found = [file for files in query.files.values() for file in files]
        assert {file.partition("://")[2].partition("/")[0] for file in found} == {s3_bucket}
        assert len(sources.pin(found)) == 4
        assert {column for file in found for column in sources.columns(file)} == {"n"}
        sources.check_unchanged()
        with pytest.raises(SourceError, match=r"403.*Check login and password"):
            sources.find(f"s3://{s3_bucket}/a/*")

    def test_duckdb_itself_may_name_one(self, sources, s3_bucket, client):
        client.put_object(Bucket=s3_bucket, Key="codes.csv", Body=b"code\nA\n")
        with duckdb.connect() as connection:
            sources.register(connection)
            code = f"SELECT code FROM read_csv('s3://lake@{s3_bucket}/codes.csv', header=true)"
            assert connection.execute(code).fetchall() == [("A",)]
            rows = f"SELECT sum(n) FROM read_parquet('s3://shop@{s3_bucket}/a/**/*.parquet')"
            assert connection.execute(rows).fetchall() == [(10,)]
            with pytest.raises(duckdb.Error, match="ACCESS_DENIED"):
                connection.execute(f"FROM read_parquet('s3://{s3_bucket}/a/1.parquet')")

    def test_two_objects_of_one_address_are_refused(self, sources, s3_bucket, client):
        first = sources.find(f"s3://lake@{s3_bucket}/a/1.parquet")
        assert sources.find(f"s3://shop@{s3_bucket}/a/1.parquet") == first
        client.put_object(Bucket=s3_bucket, Key="a/1.parquet", Body=parquet_bytes(n=[11]))
        with pytest.raises(SourceError, match=r"one object by connection 'lake' and another one by 'shop'"):
            sources.find(f"s3://shop@{s3_bucket}/a/1.parquet")


class TestOverwritten:
    """An object in which one value changed, and neither its size nor its footer."""

    def body(self, value, **options):
        target = io.BytesIO()
        given = {"write_statistics": False, "use_dictionary": False, "compression": "none", **options}
        pq.write_table(pa.table({"n": pa.array([value], pa.float64())}), target, **given)
        return target.getvalue()

    def looked_for(self, pin, address, folder):
        sources = AirflowSources()

        def recover(place, pin):
            found = sources.download(place, pin, folder / "kept.parquet")
            return None if found is None else str(found)

        (found,) = find_pinned([{"of": "examples", **pin}], lambda *_: [address], sources, (), recover)
        return found

    @pytest.mark.parametrize(("versions", "state"), [(False, "changed"), (True, "same")])
    def test_it_is_noticed_and_given_back(self, sources, s3_bucket, client, tmp_path, versions, state):
        if versions:
            client.put_bucket_versioning(Bucket=s3_bucket, VersioningConfiguration={"Status": "Enabled"})
        address = f"s3://{s3_bucket}/v/1.parquet"
        client.put_object(Bucket=s3_bucket, Key="v/1.parquet", Body=self.body(1.0))
        (pin,) = sources.pin([address])
        client.put_object(Bucket=s3_bucket, Key="v/1.parquet", Body=self.body(2.0))
        (now,) = sources.pin([address])
        assert {key for key in pin if pin[key] != now.get(key)} == (
            {"etag", "version_id"} if versions else {"etag"}
        )
        found = self.looked_for(pin, address, tmp_path)
        assert (found.state, found.by_footer) == (state, False)
        kept = tmp_path / "kept.parquet"
        assert (pq.read_table(kept)["n"].to_pylist() if kept.exists() else None) == (
            [1.0] if versions else None
        )

    @pytest.mark.parametrize(("value", "state"), [(1.0, "same"), (2.0, "changed")])
    def test_a_copy_of_a_file_is_known_by_its_content(self, s3_bucket, client, tmp_path, value, state):
        (tmp_path / "1.parquet").write_bytes(self.body(1.0))
        (pin,) = pin_files([str(tmp_path / "1.parquet")])
        client.put_object(Bucket=s3_bucket, Key="copy/1.parquet", Body=self.body(value))
        found = self.looked_for(pin, f"s3://{s3_bucket}/copy/1.parquet", tmp_path)
        assert (found.state, found.by_footer) == (state, False)

    def test_another_way_of_upload_leaves_the_footer(self, sources, s3_bucket, client, tmp_path):
        address, target = f"s3://{s3_bucket}/v/1.parquet", {"Bucket": s3_bucket, "Key": "v/1.parquet"}
        client.put_object(**target, Body=self.body(1.0))
        (pin,) = sources.pin([address])
        upload = {**target, "UploadId": client.create_multipart_upload(**target)["UploadId"]}
        part = client.upload_part(**upload, PartNumber=1, Body=self.body(1.0))
        parts = [{"PartNumber": 1, "ETag": part["ETag"]}]
        client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        found = self.looked_for(pin, address, tmp_path)
        assert "-" in sources.pin([address])[0]["etag"]
        assert (found.state, found.by_footer, found.to_json()["by_footer"]) == ("same", True, True)
