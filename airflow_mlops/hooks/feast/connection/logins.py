"""What an Airflow connection says about a database, in the words of Feast's registries and stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import FeatureStoreError

if TYPE_CHECKING:
    from airflow.sdk import Connection

__all__ = ["registry_login", "store_login"]

#: Airflow's connection type → SQLAlchemy's driver.
_DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
#: Options of a PostgreSQL connection that travel in its URL.
_URL_OPTIONS = ("sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout", "application_name")
_TLS = {"sslrootcert": "sslrootcert_path", "sslcert": "sslcert_path", "sslkey": "sslkey_path"}


def registry_login(value: dict[str, Any], connection: Connection, where: str) -> dict[str, Any]:
    """A registry in the database, or behind the AWS login, of a connection.

    :param value: what the Feast connection says besides.
    :raises FeatureStoreError: no registry can be there.
    """
    kind = connection.conn_type
    if kind == "aws":
        if not str(value.get("path", "")).startswith("s3://"):
            raise FeatureStoreError(
                f"{where} names the aws connection {connection.conn_id!r} and no S3 path; add "
                '"path": "s3://bucket/registry.db"'
            )
        return {**value, "registry_type": "file", "aws_conn_id": connection.conn_id}
    if kind == "sqlite":
        path = connection.host or connection.schema or ""
        return {**value, "registry_type": "sql", "path": f"sqlite:///{path}"}
    if kind not in _DRIVERS:
        raise FeatureStoreError(
            f"{where} names connection {connection.conn_id!r} of type {kind!r}; expected one of type "
            f"{', '.join(sorted({*_DRIVERS, 'sqlite', 'aws'}))}"
        )
    from sqlalchemy.engine import URL

    url = URL.create(
        _DRIVERS[kind or ""],
        username=connection.login or None,
        password=connection.password or None,
        host=connection.host or None,
        port=connection.port,
        database=connection.schema or None,
        query={key: str(text) for key, text in _options(connection).items() if key in _URL_OPTIONS},
    )
    return {**value, "registry_type": "sql", "path": url.render_as_string(hide_password=False)}


def store_login(value: dict[str, Any], connection: Connection, where: str) -> dict[str, Any]:
    """An offline or online store with the login of a connection; what ``value`` says itself is stronger.

    :raises FeatureStoreError: the type of store is not one whose login is known here.
    """
    kind = str(value.get("type", ""))
    logins = {
        "postgres": _postgres,
        "snowflake.offline": _snowflake,
        "snowflake.online": _snowflake,
        "redis": _redis,
    }
    if kind not in logins:
        raise FeatureStoreError(
            f"{where} is of type {kind!r} and names a connection; that is understood for "
            f"{', '.join(logins)}. Others log in by their own environment (AWS, GCP) or by their own keys"
        )
    return {**logins[kind](connection), **value}


def _postgres(connection: Connection) -> dict[str, Any]:
    options = _options(connection)
    found: dict[str, Any] = {
        "host": connection.host or "localhost",
        "port": connection.port or 5432,
        "database": connection.schema or connection.login or "postgres",
        "user": connection.login or "postgres",
        "password": connection.password or "",
        "sslmode": options.get("sslmode", "prefer"),  # what Airflow's own PostgreSQL hook does
    }
    return found | {ours: options[theirs] for theirs, ours in _TLS.items() if options.get(theirs)}


def _snowflake(connection: Connection) -> dict[str, Any]:
    options = _options(connection)
    found = {
        "account": options.get("account") or connection.host,
        "user": connection.login,
        "password": connection.password,
        "role": options.get("role"),
        "warehouse": options.get("warehouse"),
        "database": options.get("database"),
        "schema": connection.schema or options.get("schema"),
        "private_key": options.get("private_key_file"),
    }
    return {key: text for key, text in found.items() if text}


def _redis(connection: Connection) -> dict[str, Any]:
    options = _options(connection)
    text = f"{connection.host or 'localhost'}:{connection.port or 6379},db={options.get('db', 0)}"
    if connection.login:
        text += f",username={connection.login}"
    if connection.password:
        text += f",password={connection.password}"
    if options.get("ssl"):
        text += ",ssl=true"
    return {"connection_string": text}


def _options(connection: Connection) -> dict[str, Any]:
    return dict(connection.extra_dejson or {})
