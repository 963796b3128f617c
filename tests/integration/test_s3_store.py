"""The store on a real S3 server, and on the road to it everything that goes wrong."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime, timedelta

import pytest

from airflow_mlops.exceptions import SourceError, SourceUnavailableError, StoreError, StoreUnavailableError
from airflow_mlops.hooks.s3.client import s3_errors, s3_filesystem, split_s3
from airflow_mlops.hooks.sources.examples import AirflowSources
from airflow_mlops.hooks.store import s3 as store_s3
from airflow_mlops.hooks.store.base import in_parallel
from airflow_mlops.hooks.store.open import open_store
from airflow_mlops.stores.datasets.damage import find_damage
from airflow_mlops.stores.datasets.versions import DatasetStore
from tests.fixtures.store_cases import StoreCases, at_once
from tests.fixtures.versions import Version, complete

MIB = 1024**2


class TestS3Store(StoreCases):
    @pytest.fixture
    def store(self, s3_bucket):
        return open_store(f"s3://{s3_bucket}/some/prefix")


@pytest.fixture
def store(s3_bucket):
    return open_store(f"s3://{s3_bucket}/p")


@pytest.fixture
def far(s3_proxy, s3_bucket):
    """The store by the road on which things go wrong."""
    return open_store(f"s3://{s3_bucket}/p")


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A file of three parts, the last one small; too large for one request."""
    monkeypatch.setattr(store_s3, "PART", 5 * MIB)
    monkeypatch.setattr(store_s3, "SINGLE", 5 * MIB)
    path = tmp_path / "large"
    path.write_bytes(os.urandom(11 * MIB + 1))
    return path


def digest(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class TestAddresses:
    def test_the_connection_stands_before_the_bucket(self, s3_bucket, s3_server, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_LAKE", s3_server.connection_json)
        monkeypatch.delenv("AIRFLOW_CONN_AWS_DEFAULT")
        store = open_store(f"s3://lake@{s3_bucket}/p/q/")
        assert store.uri == f"s3://lake@{s3_bucket}/p/q"
        assert store.put_if_absent("a", b"1")
        assert store.address("a") == f"s3://{s3_bucket}/p/q/a"
        assert s3_server.client().get_object(Bucket=s3_bucket, Key="p/q/a")["Body"].read() == b"1"

    def test_a_bucket_needs_no_prefix(self, s3_bucket):
        store = open_store(f"s3://{s3_bucket}")
        assert store.put_if_absent("a/b", b"1")
        assert (store.list(), store.address("a/b")) == (["a/b"], f"s3://{s3_bucket}/a/b")

    @pytest.mark.parametrize("uri", ["s3:///key", "s3://@b/key", "http://b/k", "b/k"])
    def test_other_addresses_are_refused(self, uri):
        with pytest.raises(SourceError, match="is no S3 address: expected s3://bucket/prefix"):
            split_s3(uri)

    def test_a_login_in_the_address_is_refused_and_not_repeated(self):
        with pytest.raises(SourceError, match="name an Airflow connection") as caught:
            split_s3("s3://AKIA:hush-hush@bucket/key")
        assert "hush" not in str(caught.value)


class TestLargeFiles:
    def test_go_up_and_come_down_in_parts(self, store, large, tmp_path, s3_server, s3_bucket):
        assert store.put_if_absent("large", large)
        assert s3_server.client().head_object(Bucket=s3_bucket, Key="p/large")["ETag"].endswith('-3"')
        assert digest(store.local("large", tmp_path / "scratch")) == digest(large)
        assert not store.put_if_absent("large", b"other")

    def test_in_one_request_of_many_writers_one_wins(self, store, large, monkeypatch, tmp_path):
        monkeypatch.setattr(store_s3, "SINGLE", 5 * 1024**3)
        # As if all had looked before any wrote.
        monkeypatch.setattr(store_s3.S3Store, "exists", lambda *_: False)
        won = at_once(lambda _: store.put_if_absent("large", large), 4)
        assert won.count(True) == 1
        assert digest(store.local("large", tmp_path / "scratch")) == digest(large)

    def test_in_parts_of_many_writers_no_upload_stays_open(
        self, store, large, s3_server, s3_bucket, monkeypatch, tmp_path
    ):
        """SeaweedFS lets two complete in one moment, where S3 does not: this is why one request is the rule."""
        monkeypatch.setattr(store_s3.S3Store, "exists", lambda *_: False)
        assert any(at_once(lambda _: store.put_if_absent("large", large), 4))
        assert "Uploads" not in s3_server.client().list_multipart_uploads(Bucket=s3_bucket)
        assert digest(store.local("large", tmp_path / "scratch")) == digest(large)
        assert not store.put_if_absent("large", large)

    def test_an_upload_that_fails_half_way_leaves_nothing(self, far, large, s3_proxy, s3_server, s3_bucket):
        s3_proxy.fate = lambda method, path: 403 if "partNumber=2" in path else None
        with pytest.raises(StoreError, match="403 AccessDenied"):
            far.put_if_absent("large", large)
        assert far.list() == []
        assert "Uploads" not in s3_server.client().list_multipart_uploads(Bucket=s3_bucket)

    def test_what_a_killed_writer_left_is_given_up_in_time(self, store, s3_server, s3_bucket):
        client = s3_server.client()
        client.create_multipart_upload(Bucket=s3_bucket, Key="p/killed")
        client.create_multipart_upload(Bucket=s3_bucket, Key="elsewhere")
        assert store.sweep(datetime.now(UTC) - timedelta(days=1)) == 0
        assert store.sweep(datetime.now(UTC) + timedelta(minutes=1)) == 1
        [left] = client.list_multipart_uploads(Bucket=s3_bucket)["Uploads"]
        assert left["Key"] == "elsewhere"

    def test_a_lost_answer_at_the_end_is_no_lost_race(self, far, large, s3_proxy, tmp_path):
        s3_proxy.first(1, "lost", "POST", "uploadId=")
        assert far.put_if_absent("large", large)
        s3_proxy.fate = lambda *_: None
        assert digest(far.local("large", tmp_path / "scratch")) == digest(large)


def test_a_version_is_fetched_and_checked_as_from_a_folder(store, s3_server, s3_bucket, tmp_path):
    datasets, version = DatasetStore(store, "app"), Version(tmp_path / "files", [1, 2, 3], tests=[3])
    assert version.publish(datasets)
    copied = datasets.fetch(version.id, tmp_path / "copy")
    digests = [chunk.digest for chunk in version.manifest.chunks]
    for path, name in zip([*copied["train"], *copied["test"]], digests, strict=True):
        assert path.read_bytes() == version.files[name].read_bytes()
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {"train", "test", "manifest.json"}

    client, key = s3_server.client(), f"p/{datasets.chunk_key(digests[0])}"
    whole = version.files[digests[0]].read_bytes()
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 1
    for content, problem in ((bytes(broken), None), (whole[:-50], "unreadable"), (None, "missing")):
        client.delete_object(Bucket=s3_bucket, Key=key)
        if content is not None:
            client.put_object(Bucket=s3_bucket, Key=key, Body=content)
        [damage] = find_damage(datasets, version.id)
        assert damage.part == digests[0]
        assert damage.address == f"s3://{s3_bucket}/{key}"
        assert problem in (None, damage.problem)


def test_a_list_of_more_than_a_page(store):
    in_parallel(lambda number: store.put_if_absent(f"many/{number:04d}", b""), range(1005))
    assert store.list("many/") == [f"many/{number:04d}" for number in range(1005)]


def test_markers_of_folders_are_nobodys_objects(store, s3_server, s3_bucket):
    for key in ("p/", "p/folder/", "p/.hidden/x"):
        s3_server.client().put_object(Bucket=s3_bucket, Key=key, Body=b"")
    assert store.list() == []


class TestAccidents:
    @pytest.mark.parametrize("status", [500, 503])
    def test_a_passing_failure_passes(self, far, s3_proxy, status):
        s3_proxy.first(2, status)
        assert far.put_if_absent("a", b"1")
        s3_proxy.first(2, status)
        assert far.read("a") == b"1"
        s3_proxy.first(2, status)
        assert far.list() == ["a"]

    @pytest.mark.parametrize("status", [500, 503])
    def test_a_lasting_failure_may_be_tried_again_later(self, far, s3_proxy, status):
        s3_proxy.fate = lambda *_: status
        for call in (
            lambda: far.put_if_absent("a", b"1"),
            lambda: far.read("a"),
            far.list,
            lambda: far.exists("a"),
        ):
            with pytest.raises(StoreUnavailableError, match=f"answered {status}") as caught:
                call()
            assert caught.value.retriable

    def test_a_server_that_says_nothing_is_unavailable(self, far, s3_proxy):
        s3_proxy.fate = lambda *_: "slow"
        with pytest.raises(
            StoreUnavailableError, match=r"reading s3://.*/p/a: Read timeout.*try again later"
        ):
            far.read("a")

    def test_a_server_that_is_not_there_is_unavailable(self, far, s3_proxy):
        s3_proxy.close()
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            far.read("a")

    def test_an_answer_that_is_lost_is_no_lost_race(self, far, s3_proxy):
        s3_proxy.first(1, "lost", "PUT")
        assert far.put_if_absent("a", b"1")
        s3_proxy.first(1, "lost", "PUT")
        etag = far.compare_and_set("ref", b"1", None)
        s3_proxy.first(1, "lost", "PUT")
        newer = far.compare_and_set("ref", b"2", etag)
        assert far.read_versioned("ref") == (b"2", newer)

    def test_a_repeated_request_that_really_lost_is_told_so(self, far, s3_proxy):
        far.put_if_absent("a", b"0")
        s3_proxy.first(1, "lost", "PUT")
        assert not far.put_if_absent("a", b"1")
        assert far.read("a") == b"0"

    def test_a_body_that_breaks_off_is_read_again(self, far, large, s3_proxy, tmp_path):
        far.put_if_absent("a", b"0123456789")
        far.put_if_absent("large", large)
        s3_proxy.first(2, "short", "GET")
        assert far.read("a") == b"0123456789"
        s3_proxy.first(2, "short", "GET")
        assert digest(far.local("large", tmp_path / "scratch")) == digest(large)

    def test_a_body_that_always_breaks_off_leaves_no_file(self, far, s3_proxy, tmp_path):
        far.put_if_absent("a", b"0123456789")
        s3_proxy.fate = lambda method, _: "short" if method == "GET" else None
        with pytest.raises(StoreUnavailableError):
            far.local("a", tmp_path / "scratch")
        assert [path for path in (tmp_path / "scratch").rglob("*") if path.is_file()] == []

    def test_no_room_for_a_copy_is_said(self, store, tmp_path):
        store.put_if_absent("a/b", b"1")
        (tmp_path / "scratch").write_text("a file where a folder should be")
        with pytest.raises(StoreError, match=r"cannot write .*scratch/a/b"):
            store.local("a/b", tmp_path / "scratch")

    def test_a_publish_survives_them(self, far, s3_proxy, tmp_path):
        """Every fifth request fails, and every seventh answer is lost."""
        count = iter(range(1, 10_000))

        def fate(*_):
            number = next(count)
            return 503 if number % 5 == 0 else "lost" if number % 7 == 0 else None

        datasets = DatasetStore(far, "app")
        s3_proxy.fate = fate
        for months in ([1, 2], [2, 3]):
            Version(tmp_path / "files", months).publish(datasets)
        s3_proxy.fate = lambda *_: None
        assert len(complete(datasets)) == 2
        assert datasets.resolve("latest") == Version(tmp_path / "files", [2, 3]).id


class TestRights:
    def deny(self, monkeypatch, connection: str):
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", connection)

    def test_a_wrong_secret_is_final_and_not_printed(self, s3_server, s3_bucket, monkeypatch, caplog):
        self.deny(monkeypatch, s3_server.with_secret("not-the-secret").connection_json)
        store = open_store(f"s3://{s3_bucket}/p")
        with pytest.raises(
            StoreError, match=r"403 SignatureDoesNotMatch. Check login and password"
        ) as caught:
            store.put_if_absent("a", b"1")
        assert not caught.value.retriable
        assert "not-the-secret" not in str(caught.value) + caplog.text

    def test_a_user_who_may_only_read_reads(self, s3_server, s3_bucket, monkeypatch):
        open_store(f"s3://{s3_bucket}/p").put_if_absent("a", b"1")
        self.deny(monkeypatch, s3_server.as_reader().connection_json)
        store = open_store(f"s3://{s3_bucket}/p")
        assert (store.read("a"), store.list(), store.exists("a")) == (b"1", ["a"], True)
        for call in (
            lambda: store.put_if_absent("b", b""),
            lambda: store.compare_and_set("a", b"2", store.read_versioned("a")[1]),
            lambda: store.delete("a"),
        ):
            with pytest.raises(StoreError, match=r"403 AccessDenied\. Give its user the right") as caught:
                call()
            assert not caught.value.retriable
        assert store.read("a") == b"1"

    def test_a_bucket_that_is_not_there_is_named(self, s3_bucket):
        store = open_store("s3://no-such-bucket-anywhere/p")
        for call in (lambda: store.read("a"), store.list):
            with pytest.raises(
                StoreError, match=r"s3://no-such-bucket-anywhere/p.*404 NoSuchBucket.*must exist"
            ):
                call()


class TestSources:
    @pytest.fixture
    def connection(self, s3_bucket):
        import duckdb

        with duckdb.connect() as connection:
            yield connection

    def test_duckdb_reads_files_and_patterns(self, connection, s3_server, s3_bucket, tmp_path):
        version = Version(tmp_path, [1, 2])
        for number, path in enumerate(version.files.values()):
            s3_server.client().upload_file(str(path), s3_bucket, f"in/day={number}/a.parquet")
        for _ in range(2):
            AirflowSources().register(connection)
            query = f"SELECT day, count(*) FROM read_parquet('s3://{s3_bucket}/in/**/*.parquet') GROUP BY day ORDER BY day"
            assert connection.execute(query).fetchall() == [(0, 100), (1, 100)]

    def test_a_refusal_says_the_cure(self, connection, s3_server, s3_bucket, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_BAD", s3_server.with_secret("not-the-secret").connection_json)
        AirflowSources("bad").register(connection)
        with (
            pytest.raises(SourceError, match=r"answered 403.*check its login") as caught,
            s3_errors("reading", SourceError),
        ):
            connection.execute(f"SELECT * FROM 's3://{s3_bucket}/a.parquet'")
        assert not caught.value.retriable

    def test_a_file_that_is_not_there_is_said(self, s3_bucket):
        files = s3_filesystem()
        with pytest.raises(SourceError, match="not found"), s3_errors("reading", SourceError):
            files.open_input_file(f"{s3_bucket}/none.parquet")

    def test_a_server_that_fails_may_be_tried_again(self, s3_proxy, s3_bucket, monkeypatch):
        monkeypatch.setattr("airflow_mlops.hooks.s3.client.ARROW_ATTEMPTS", 2)
        s3_proxy.fate = lambda *_: 500
        with pytest.raises(SourceUnavailableError) as caught, s3_errors("reading", SourceError):
            s3_filesystem().open_input_file(f"{s3_bucket}/a.parquet")
        assert caught.value.retriable
