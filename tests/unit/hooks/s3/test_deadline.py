"""Requests to S3 end, also where a server sends a byte now and then."""

from __future__ import annotations

import contextlib
import socketserver
import threading
import time
from types import SimpleNamespace

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from airflow_mlops.exceptions import SourceUnavailableError, StoreUnavailableError
from airflow_mlops.hooks.s3 import deadline as s3_deadline
from airflow_mlops.hooks.s3.deadline import BoundedClient
from airflow_mlops.hooks.sources.s3_files import ObjectFiles

HEAD = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 100000\r\n'


class Trickle(socketserver.BaseRequestHandler):
    """Answers what its path says: at once, or a byte at a time for ever, in the head or in the body."""

    def handle(self):
        path = self.request.recv(65536).split(b" ")[1]
        if b"refused" in path:
            self.request.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            return
        if b"quick" in path:
            self.request.sendall(HEAD + b"\r\n" + b"x" * 100_000)
            return
        self.request.sendall(HEAD + (b"\r\n" if b"body" in path else b"X-Slow: "))
        with contextlib.suppress(OSError):
            while not self.server.over.wait(0.05):
                self.request.sendall(b"x")


@pytest.fixture
def client(monkeypatch):
    monkeypatch.setattr(s3_deadline, "PATIENCE", 0.5)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Trickle) as server:
        server.daemon_threads, server.over = True, threading.Event()
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        inner = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{server.server_address[1]}",
            region_name="eu-central-1",
            aws_access_key_id="a",
            aws_secret_access_key="b",
            config=Config(read_timeout=20, retries={"total_max_attempts": 1}),
        )
        yield BoundedClient(inner, StoreUnavailableError)
        server.over.set()
        server.shutdown()


def given_up(call):
    began = time.monotonic()
    with pytest.raises(
        StoreUnavailableError, match=r"s3://bucket.* was given up after .* Try again later"
    ) as caught:
        call()
    assert time.monotonic() - began < 15
    assert caught.value.retriable
    return str(caught.value)


def test_a_head_that_never_ends_is_given_up(client):
    assert given_up(lambda: client.head_object(Bucket="bucket", Key="slow")).startswith("head_object")
    given_up(lambda: client.get_object(Bucket="bucket", Key="slow"))
    given_up(lambda: client.put_object(Bucket="bucket", Key="slow", Body=b"x"))
    given_up(lambda: list(client.get_paginator("list_objects_v2").paginate(Bucket="bucket")))


def test_a_body_that_never_ends_is_given_up_however_it_is_read(client):
    given_up(client.get_object(Bucket="bucket", Key="body")["Body"].read)
    given_up(lambda: list(client.get_object(Bucket="bucket", Key="body")["Body"].iter_chunks(10)))


def test_what_comes_in_time_comes_whole(client):
    answer = client.get_object(Bucket="bucket", Key="quick")
    parts = []
    for part in answer["Body"].iter_chunks(40_000):
        time.sleep(0.3)  # a reader that takes its time is none of the server's
        parts.append(part)
    assert b"".join(parts) == b"x" * 100_000
    assert len(client.get_object(Bucket="bucket", Key="quick")["Body"].read()) == 100_000
    with pytest.raises(ClientError, match="403"):
        client.head_object(Bucket="bucket", Key="refused")
    assert client.meta.region_name == "eu-central-1"
    assert "quick" in client.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "quick"})


class SlowFile:
    def read(self, size):
        return b"x" * size if size < 10 else time.sleep(60)

    def tell(self):
        return 7


class SlowFiles:
    def open(self, path, mode):
        return SlowFile()

    def glob(self, pattern):
        time.sleep(60)

    exists = info = glob


def test_what_duckdb_reads_has_an_end_too(monkeypatch):
    monkeypatch.setattr(s3_deadline, "PATIENCE", 0.2)
    place = SimpleNamespace(bucket="bucket", key="key", conn_id="aws_default")
    files = ObjectFiles(lambda _: place, lambda _: SlowFiles())
    opened = files.open("s3://bucket/key")
    assert (opened.read(5), opened.tell()) == (b"xxxxx", 7)
    for call in (
        lambda: opened.read(20),
        lambda: files.glob("s3://bucket/*"),
        lambda: files.exists("s3://bucket/key"),
        lambda: files.info("s3://bucket/key"),
    ):
        with pytest.raises(SourceUnavailableError, match=r"s3://bucket.* was given up after"):
            call()
