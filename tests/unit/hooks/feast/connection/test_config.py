"""A Feast connection becomes Feast's configuration, and its secrets stay what they are."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_mlops.exceptions import FeatureStoreError
from airflow_mlops.get_provider_info import get_provider_info
from airflow_mlops.hooks.feast.connection.config import OUR_STORE, read_settings
from airflow_mlops.hooks.feast.connection.session import registry_name

PASSWORD = "p@ss/w%rd"
OTHERS = {
    "pg": Connection(
        conn_id="pg",
        conn_type="postgres",
        host="db",
        login="me",
        password=PASSWORD,
        schema="features",
        port=6543,
    ),
    "flake": Connection(
        conn_id="flake",
        conn_type="snowflake",
        login="me",
        password=PASSWORD,
        schema="S",
        extra='{"account": "a", "database": "D"}',
    ),
    "red": Connection(conn_id="red", conn_type="redis", host="cache", password=PASSWORD),
    "s3": Connection(conn_id="s3", conn_type="aws", login="key", password="secret"),
    "ftp": Connection(conn_id="ftp", conn_type="ftp", host="x"),
}


def lookup(conn_id):
    if conn_id not in OTHERS:
        raise AirflowNotFoundException(conn_id)
    return OTHERS[conn_id]


def read(host=None, **extra):
    return read_settings(
        Connection(conn_id="feast_default", conn_type="feast", host=host, extra=json.dumps(extra)), lookup
    )


def test_everything_may_stand_in_the_connection():
    config = read(project="p", registry="sqlite:////srv/r.db").config
    assert config["registry"] == {"path": "sqlite:////srv/r.db", "registry_type": "sql"}
    assert config["offline_store"]["type"] == OUR_STORE
    assert config["online_store"] is None
    assert (config["provider"], config["entity_key_serialization_version"]) == ("local", 3)


def test_a_form_leaves_json_as_text_and_empty_fields():
    config = read(
        project="p", registry='{"connection": "pg"}', offline_store="spark", online_store="", repo_path=None
    ).config
    assert config["registry"]["registry_type"] == "sql"
    assert config["offline_store"] == {"type": "spark"}
    assert config["online_store"] is None


def test_a_registry_logs_in_by_another_connection():
    settings = read(project="p", registry={"connection": "pg", "cache_ttl_seconds": 5})
    assert settings.config["registry"] == {
        "registry_type": "sql",
        "path": "postgresql+psycopg://me:p%40ss%2Fw%25rd@db:6543/features",
        "cache_ttl_seconds": 5,
    }
    store = SimpleNamespace(
        config=SimpleNamespace(registry=SimpleNamespace(path=settings.config["registry"]["path"]))
    )
    assert registry_name(store) == "postgresql+psycopg://…@db:6543/features"
    assert PASSWORD not in repr(settings)
    for spelled in (PASSWORD, "p%40ss%2Fw%25rd"):
        assert settings.scrub(f"login {spelled} failed") == "login *** failed"


def test_stores_log_in_by_another_connection():
    config = read(
        project="p",
        registry="s3://bucket/r.db",
        offline_store={"type": "postgres", "connection": "pg", "db_schema": "weather"},
        online_store={"type": "redis", "connection": "red"},
    ).config
    assert config["offline_store"] == {
        "type": "postgres",
        "host": "db",
        "port": 6543,
        "database": "features",
        "user": "me",
        "password": PASSWORD,
        "sslmode": "prefer",
        "db_schema": "weather",
    }
    assert config["online_store"]["connection_string"] == f"cache:6379,db=0,password={PASSWORD}"
    assert config["registry"] == {"path": "s3://bucket/r.db", "registry_type": "file"}
    snow = read(
        project="p",
        registry="s3://b/r.db",
        offline_store={"type": "snowflake.offline", "connection": "flake"},
    )
    assert {key: snow.config["offline_store"][key] for key in ("account", "user", "database", "schema")} == {
        "account": "a",
        "user": "me",
        "database": "D",
        "schema": "S",
    }
    assert PASSWORD in snow.secrets


def test_an_s3_registry_names_the_connection_that_opens_it():
    config = read(project="p", registry={"path": "s3://bucket/r.db", "connection": "s3"}).config
    assert config["registry"] == {"path": "s3://bucket/r.db", "registry_type": "file", "aws_conn_id": "s3"}


def test_a_repository_is_read_and_the_connection_is_stronger(tmp_path, monkeypatch):
    monkeypatch.setenv("REGISTRY_PASSWORD", "fr0m-env")
    (tmp_path / "feature_store.yaml").write_text(
        "project: p\nprovider: local\nregistry: {registry_type: sql, path: 'postgresql+psycopg://u:${REGISTRY_PASSWORD}@h/d'}\n"
        "offline_store: {type: duckdb}\n"
    )
    settings = read(repo_path=str(tmp_path))
    assert settings.repo == tmp_path
    assert settings.config["offline_store"] == {"type": "duckdb"}
    assert "fr0m-env" in settings.secrets
    assert read(host=str(tmp_path), offline_store="asof").config["offline_store"]["type"] == OUR_STORE


def test_a_relative_sqlite_registry_is_one_of_the_repository(tmp_path):
    (tmp_path / "feature_store.yaml").write_text(
        "project: p\nregistry: {registry_type: sql, path: 'sqlite:///r.db'}\n"
    )
    assert read(repo_path=str(tmp_path)).config["registry"]["path"] == f"sqlite:///{tmp_path}/r.db"


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({}, "no project and no registry"),
        ({"project": "p"}, "has no registry"),
        ({"project": "p", "regsitry": "x"}, "has 'regsitry'.*did you mean 'registry'"),
        ({"repo_path": "/nowhere"}, "/nowhere has no feature_store.yaml"),
        ({"project": "p", "registry": "registry.db"}, "relative path registry.db"),
        ({"project": "p", "registry": "sqlite:///registry.db"}, "relative path registry.db"),
        ({"project": "p", "registry": '{"connection": '}, "registry is no JSON"),
        (
            {"project": "p", "registry": {"connection": "none"}},
            "no Airflow connection 'none' that connection",
        ),
        (
            {"project": "p", "registry": {"connection": "ftp"}},
            "of type 'ftp'; expected one of type aws, mysql",
        ),
        ({"project": "p", "registry": {"connection": "s3"}}, 'add "path": "s3://bucket/registry.db"'),
        (
            {"project": "p", "registry": "s3://b/r", "offline_store": {"type": "trino", "connection": "pg"}},
            "'trino' and names a connection; that is understood for postgres",
        ),
    ],
)
def test_what_cannot_be_meant_is_said(extra, said):
    with pytest.raises(FeatureStoreError, match=said):
        read(**extra)


def test_the_form_has_a_field_for_each_part():
    (feast,) = [
        found for found in get_provider_info()["connection-types"] if found["connection-type"] == "feast"
    ]
    fields = dict.fromkeys(feast["conn-fields"], "")
    assert {"repo_path", "project", "registry", "offline_store", "online_store"} <= set(fields)
    with pytest.raises(FeatureStoreError, match="no project and no registry"):
        read(**fields)  # every one of them is known
