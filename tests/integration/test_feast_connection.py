"""Feast without a repository on the worker: everything in the connection, and no secret outside of it."""

from __future__ import annotations

import json
import logging
import traceback

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from airflow_mlops.exceptions import (
    FeatureStoreConflictError,
    FeatureStoreError,
    FeatureStoreUnavailableError,
    StoreError,
)
from airflow_mlops.hooks.feast.hook import FeastHook
from airflow_mlops.operators.features.apply import ApplyFeaturesOperator
from tests.fixtures.feast_store import concurrently, connect, inline, service, view


def apply(*definitions):
    return ApplyFeaturesOperator(task_id="apply", definitions=list(definitions)).execute({})


@pytest.fixture
def database(postgres, monkeypatch):
    """A fresh database with a login whose password has letters that a URL spells otherwise."""
    import psycopg

    name, password = "registry_of_mine", "s3cr&t/p@ss w%rd"
    with psycopg.connect(postgres.uri, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"DROP ROLE IF EXISTS {name}")
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
        connection.execute(f"CREATE DATABASE {name} OWNER {name}")
    given = {
        "conn_type": "postgres",
        "host": postgres.host,
        "port": postgres.port,
        "login": name,
        "password": password,
        "schema": name,
    }

    def named(**changes):
        monkeypatch.setenv("AIRFLOW_CONN_FEAST_REGISTRY", json.dumps({**given, **changes}))

    named()
    named.password = password
    yield named
    with psycopg.connect(postgres.uri, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def test_a_registry_in_postgresql_keeps_its_password_to_itself(
    database, tmp_path, monkeypatch, caplog, capfd
):
    caplog.set_level(logging.DEBUG)
    connect(monkeypatch, **inline(tmp_path, registry={"connection": "feast_registry"}))
    assert len(apply(view(tmp_path), service())["changes"]) == 3
    hook = FeastHook()
    passed, said = hook.test_connection()
    assert passed
    shown = [said, repr(hook.settings), str(hook.settings), repr(hook)]

    database(password="wr0ng&s3cr&t/p@ss")
    with pytest.raises(FeatureStoreError, match="the database refused the login") as wrong:
        FeastHook().service("weather_v1")
    assert wrong.value.retriable is False
    shown += ["".join(traceback.format_exception(wrong.value)), FeastHook().test_connection()[1]]

    database(port=1)
    with pytest.raises(FeatureStoreUnavailableError, match="reachable from this worker") as away:
        FeastHook().service("weather_v1")
    with pytest.raises(AirflowException) as failed:
        apply(view(tmp_path))
    assert not isinstance(failed.value, AirflowFailException)
    shown += ["".join(traceback.format_exception(found.value)) for found in (away, failed)]

    database(schema="nowhere")
    with pytest.raises(FeatureStoreError, match="does not exist"):
        FeastHook().service("weather_v1")

    out = capfd.readouterr()
    shown += [caplog.text, out.out, out.err]
    for text in shown:
        for secret in (database.password, "s3cr", "w%25rd", "w%rd"):
            assert secret not in text


def test_three_at_once_lose_nothing_in_postgresql(database, tmp_path, monkeypatch):
    connect(monkeypatch, **inline(tmp_path, registry={"connection": "feast_registry"}, online_store=None))
    concurrently(5)
    store = FeastHook().store()
    assert len(store.list_feature_views()) == len(store.list_feature_services()) == 15


def test_a_store_login_that_does_not_fit_is_not_shown(database, tmp_path, monkeypatch):
    connect(
        monkeypatch,
        **inline(
            tmp_path, offline_store={"type": "postgres", "connection": "feast_registry", "min_conn": "many"}
        ),
    )
    with pytest.raises(FeatureStoreError, match="min_conn") as wrong:
        FeastHook().store()
    assert database.password not in "".join(traceback.format_exception(wrong.value))


def test_a_registry_on_s3_loses_nothing(s3_bucket, tmp_path, monkeypatch, caplog):
    connect(
        monkeypatch, **inline(tmp_path, registry=f"s3://{s3_bucket}/feast/registry.db", online_store=None)
    )
    monkeypatch.setenv("FEAST_S3_ENDPOINT_URL", "http://127.0.0.1:1")  # what Feast's own class would go by
    concurrently(2)
    store = FeastHook().store()
    assert len(store.list_feature_views()) == len(store.list_feature_services()) == 6
    assert "of two changes at once one is lost" not in caplog.text


def test_whoever_comes_second_to_s3_is_told_so(s3_bucket, tmp_path, monkeypatch):
    connect(monkeypatch, **inline(tmp_path, registry=f"s3://aws_default@{s3_bucket}/registry.db"))
    apply(view(tmp_path))
    registry, other = FeastHook().store().registry, FeastHook().store().registry
    other._registry_store.update_registry_proto(other.cached_registry_proto)
    with pytest.raises(FeatureStoreConflictError, match="changed by somebody else"):
        registry._registry_store.update_registry_proto(registry.cached_registry_proto)


def test_s3_says_what_is_wrong(s3_server, s3_bucket, tmp_path, monkeypatch):
    connect(monkeypatch, **inline(tmp_path, registry=f"s3://{s3_bucket}/registry.db"))
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", s3_server.with_secret("no-such-secret").connection_json)
    with pytest.raises(StoreError, match="403") as wrong:
        FeastHook().service("weather_v1")
    assert "no-such-secret" not in "".join(traceback.format_exception(wrong.value))


def test_a_locked_registry_may_be_tried_again(tmp_path, monkeypatch):
    import sqlite3

    registry = {
        "registry_type": "sql",
        "path": f"sqlite:///{tmp_path}/registry.db",
        "sqlalchemy_config_kwargs": {"connect_args": {"timeout": 0.1}},
    }
    connect(monkeypatch, **inline(tmp_path, registry=registry))
    apply(view(tmp_path))
    with sqlite3.connect(tmp_path / "registry.db") as lock:
        lock.execute("BEGIN EXCLUSIVE")
        with pytest.raises(FeatureStoreUnavailableError, match="locked by another process"):
            FeastHook().service("weather_v1")
        lock.rollback()


def test_a_registry_that_is_not_there_is_not_made_by_reading(tmp_path, monkeypatch):
    connect(monkeypatch, **inline(tmp_path))
    with pytest.raises(FeatureStoreError, match=r"registry.db does not exist; apply its definitions"):
        FeastHook().service("weather_v1")
    assert not (tmp_path / "registry.db").exists()


def test_ray_is_refused_with_the_reason(tmp_path, monkeypatch):
    connect(monkeypatch, **inline(tmp_path, offline_store="ray"))
    with pytest.raises(FeatureStoreError, match="ray ignores the time to live"):
        FeastHook().store()


def test_the_nearest_name_is_suggested(tmp_path, monkeypatch):
    connect(monkeypatch, **inline(tmp_path))
    apply(view(tmp_path), service())
    with pytest.raises(FeatureStoreError, match=r"no feature service 'wether_v1'.*did you mean 'weather_v1'"):
        FeastHook().service("wether_v1")
    with pytest.raises(FeatureStoreError, match=r"no feature view 'weathr'.*did you mean 'weather'"):
        FeastHook().view("weathr")
