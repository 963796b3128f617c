"""Rows of any SQL connection of Airflow, in batches."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_mlops.exceptions import MLOpsError, SourceError, SourceUnavailableError
from airflow_mlops.hooks.connections.find import find_connection
from airflow_mlops.hooks.sources.arrow import batch_of, write_batches
from airflow_mlops.primitives.features.bound_sql import (
    names_in,
    newest_query,
    window_query,
    with_parameters,
    with_settings,
)
from airflow_mlops.primitives.features.watermark import ReadWindow, bound, kind_of
from airflow_mlops.primitives.texts.secrets import without

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pyarrow as pa

    from airflow_mlops.primitives.features.watermark import Kind, Value

__all__ = ["SqlReader"]

#: What stands for "from the beginning" where the user's own query asks for a lower end.
_BEGINNING: dict[Kind, Any] = {
    "timestamp": "0001-01-02T00:00:00+00:00",
    "naive": "0001-01-02T00:00:00+00:00",
    "date": "0001-01-02",
    "integer": -(2**63),
    "text": "",
}
_CASTS: dict[Kind, str] = {
    "timestamp": "timestamptz",
    "naive": "timestamp",
    "date": "date",
    "integer": "bigint",
    "text": "text",
}
_POSTGRES = ("postgres", "postgresql")


class SqlReader:
    """A query on an Airflow connection.

    PostgreSQL is read as Arrow, through ADBC, when the extra ``postgres`` is installed; everything else, and
    PostgreSQL without it, by the rows of its DB-API hook.

    :param conn_id: Airflow connection with a SQL hook.
    :param sql: one query; it may place ``:after`` and ``:until`` itself.
    :param batch_rows: rows in memory at a time.
    :raises SourceError: there is no such connection, or it speaks no SQL.
    """

    def __init__(self, conn_id: str, sql: str, batch_rows: int) -> None:
        from airflow.sdk.exceptions import AirflowException

        self.conn_id, self.sql, self.batch_rows = conn_id, sql, batch_rows
        self._connection = find_connection(conn_id, SourceError)
        try:
            self._hook: Any = self._connection.get_hook()  # type: ignore[no-untyped-call]
        except (AirflowException, ImportError) as error:
            raise SourceError(
                f"connection {conn_id}: {error}. Cure: correct its type, or install the provider of it"
            ) from error
        if not hasattr(self._hook, "placeholder"):
            raise SourceError(
                f"connection {conn_id} of type {self._connection.conn_type} speaks no SQL. Cure: name a connection "
                "to a database, or use files: or http: as the source"
            )
        self._postgres = self._connection.conn_type in _POSTGRES

    @property
    def places_ends(self) -> bool:
        """Whether the query itself says where the ends of the window go."""
        return bool(names_in(self.sql))

    def newest(self, column: str) -> tuple[Kind | None, Value | None]:
        """What the watermark column holds, and its greatest value; two ``None`` when there is no row.

        :raises SourceError: it cannot be asked, or the column cannot be a watermark.
        """
        with self._errors(), self._cursor() as cursor:
            cursor.execute(newest_query(self.sql, column))
            row = cursor.fetchone()
        if row is None or row[0] is None:
            return None, None
        kind = kind_of(row[0], column)
        return kind, bound(kind, row[0])

    def read(self, window: ReadWindow, folder: Path) -> list[Path]:
        """Write the rows of the window to Parquet files of one schema.

        :raises SourceError: the query is wrong, or its values have no column type.
        :raises SourceUnavailableError: the database does not answer.
        """
        sql = window_query(
            self.sql, window.column, after=window.after is not None, until=window.until is not None
        )
        kind = window.kind or "timestamp"
        ends = {
            "after": bound(kind, _BEGINNING[kind] if window.after is None else window.after),
            "until": None if window.until is None else bound(kind, window.until),
        }
        batches = self._arrow(sql, ends, kind) if self._adbc() else self._rows(sql, ends)
        with self._errors():
            return write_batches(batches, folder)

    def _rows(self, sql: str, ends: Mapping[str, Any]) -> Iterator[pa.RecordBatch]:
        query = with_parameters(sql, ends, "?" if self._hook.placeholder == "?" else "%s")
        with self._cursor(stream=True) as cursor:
            cursor.arraysize = self.batch_rows
            if query.values:
                cursor.execute(query.sql, query.values)
            else:
                cursor.execute(query.sql)
            rows = cursor.fetchmany(self.batch_rows)
            names = _names([str(column[0]) for column in cursor.description])
            yield batch_of(names, rows)
            while len(rows) == self.batch_rows:
                rows = cursor.fetchmany(self.batch_rows)
                if rows:
                    yield batch_of(names, rows)

    @contextlib.contextmanager
    def _cursor(self, *, stream: bool = False) -> Iterator[Any]:
        with contextlib.closing(self._hook.get_conn()) as connection:
            if self._postgres:
                with contextlib.closing(connection.cursor()) as cursor:
                    cursor.execute("SET TIME ZONE 'UTC'")
            # Without a name, PostgreSQL's driver fetches the whole result before the first row.
            name = {"name": "airflow_mlops"} if stream and self._postgres else {}
            with contextlib.closing(connection.cursor(**name)) as cursor:
                yield cursor

    def _adbc(self) -> bool:
        # A login that is made for each connection is the hook's own business.
        if not self._postgres or {"iam", "azure_conn_id"} & self._connection.extra_dejson.keys():
            return False
        try:
            import adbc_driver_postgresql.dbapi  # noqa: F401
        except ImportError:
            return False
        return True

    def _arrow(self, sql: str, ends: Mapping[str, Any], kind: Kind) -> Iterator[pa.RecordBatch]:
        import adbc_driver_postgresql.dbapi as adbc

        from airflow_mlops.hooks.sources.postgres import plain_batches

        with (
            contextlib.closing(adbc.connect(self._uri())) as connection,
            contextlib.closing(connection.cursor()) as cursor,
        ):
            cursor.execute("SET TIME ZONE 'UTC'")
            for name in sorted(names_in(sql)):
                # A parameter of its own statement: the query then has none, and can be streamed.
                cursor.execute(
                    f"SELECT set_config('airflow_mlops.{name}', $1, false)", (_pg_text(ends[name]),)
                )
                cursor.fetchall()
            cursor.execute(with_settings(sql, dict.fromkeys(ends, _CASTS[kind])))
            reader = cursor.fetch_record_batch()
            _names(list(reader.schema.names))
            yield from plain_batches(reader)

    def _uri(self) -> str:
        """The address for libpq, with the password in it: for the driver only."""
        own = self._connection
        login = quote(own.login or "", safe="")
        secret = f":{quote(own.password, safe='')}" if own.password else ""
        place = f"{own.host or 'localhost'}:{own.port or 5432}/{quote(own.schema or '', safe='')}"
        extra = {key: value for key, value in own.extra_dejson.items() if key in _LIBPQ}
        options = "&".join(f"{key}={quote(str(value), safe='')}" for key, value in extra.items())
        return f"postgresql://{login}{secret}@{place}" + (f"?{options}" if options else "")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Translate what the driver says, without the password."""
        try:
            yield
        except MLOpsError:
            raise
        except Exception as error:  # noqa: BLE001 - every driver has errors of its own
            text = self._without_secrets(f"{type(error).__name__}: {error}")
            if _away(error):
                # `from None`: the driver's own words, which may hold the address with the password, end here.
                raise SourceUnavailableError(
                    f"connection {self.conn_id} does not answer, or refuses: {text}. Cure: check its host, "
                    "login and password; it is tried again"
                ) from None
            shown = " ".join(self.sql.split())[:200]
            raise SourceError(
                f"connection {self.conn_id}: {text}. The query is {shown!r}. Cure: correct the query, or the "
                "rights of the connection's user"
            ) from None

    def _without_secrets(self, text: str) -> str:
        from airflow_mlops.hooks.connections.masking import connection_texts, hide_texts

        hidden = hide_texts(connection_texts(self._connection))
        return " ".join(without(text, hidden).split())[:1000]


#: Parameters of libpq that a connection's extra may hold.
_LIBPQ = frozenset(
    [
        "sslmode",
        "sslcert",
        "sslkey",
        "sslrootcert",
        "sslcrl",
        "connect_timeout",
        "application_name",
        "target_session_attrs",
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_count",
        "tcp_user_timeout",
        "gssencmode",
        "options",
    ]
)
_AWAY = (
    "could not connect",
    "connection refused",
    "failed to connect",
    "connection to server",
    "server closed the connection",
    "terminating connection",
    "timeout expired",
    "too many connections",
    "could not translate host name",
    "deadlock detected",
    "the database system is",
)


def _away(error: Exception) -> bool:
    text = str(error).lower()
    denied = "password authentication failed" in text or "does not exist" in text
    return not denied and any(words in text for words in _AWAY)


def _pg_text(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _names(names: list[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SourceError(
            f"extract: the query gives the column(s) {', '.join(twice)} more than once. Cure: rename with AS"
        )
    return names
