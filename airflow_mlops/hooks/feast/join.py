"""Training sets by Feast's own stores: how each takes entity rows, and what of its results has to be set right."""

from __future__ import annotations

import contextlib
import importlib
import logging
import uuid
from typing import TYPE_CHECKING, Any

from airflow_mlops.database import connect
from airflow_mlops.exceptions import FeatureStoreError
from airflow_mlops.hooks.feast.sources import BACKENDS
from airflow_mlops.primitives.sql.words import identifier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa
    from feast import FeatureService, FeatureStore

__all__ = ["join_by_feast", "spark_session"]

log = logging.getLogger(__name__)

#: Column that tells examples apart while they are joined.
_NUMBER = "mlops_example"


def join_by_feast(
    store: FeatureStore,
    service: FeatureService,
    entity_sql: str,
    destination: Path,
    *,
    full_names: bool = False,
) -> int:
    """Join by the offline store that is configured, and write what comes back.

    Where an example matches several feature rows with equal times, the store may return it several times: one of
    them is kept, always the same one.

    :param entity_sql: DuckDB query of the examples.
    :param destination: Parquet file to write.
    :param full_names: whether features are named ``view__feature``.
    :return: number of rows, as many as there are examples.
    :raises FeatureStoreError: the store lost examples.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = str(store.config.offline_store.type)
    examples = _examples(entity_sql)
    expected = examples.num_rows
    created = bool(store._get_provider().offline_store.supports_filter_by_created_timestamp)  # noqa: SLF001
    if not created:
        log.warning(
            "Offline store %s cannot leave out features that were created after an example's time: values that "
            "were corrected later leak into it",
            kind,
        )
    numbered = examples.append_column(_NUMBER, pa.array(range(expected), pa.int64()))
    with _entities(store, kind, numbered) as entities:
        job: Any = store.get_historical_features(
            entity_df=entities,
            features=service,
            full_feature_names=full_names,
            filter_by_created_timestamp=created,
        )
        if kind == "spark" and not store.config.offline_store.staging_location:
            # Feast's way leads through pandas, where a whole number that is missing makes all of them fractions.
            job._to_arrow_internal = lambda timeout=None: job.to_spark_df().toArrow()  # noqa: ARG005, SLF001
        table = _once(_in_utc(job.to_arrow()), expected)
    if table.num_rows != expected:
        known = BACKENDS[kind].known if kind in BACKENDS else ""
        raise FeatureStoreError(
            f"offline store {kind} returned {table.num_rows} rows for {expected} examples"
            f"{f': it {known}' if known else ''}. Use airflow_mlops.AsofOfflineStore, or check "
            "the store by `airflow-mlops features conformance`"
        )
    pq.write_table(table, destination, compression="zstd")
    return int(table.num_rows)


def _once(table: pa.Table, expected: int) -> pa.Table:
    """Each example once, without its number; of several rows, the one with the greatest values."""
    import pyarrow.compute as pc

    number = identifier(_NUMBER)
    if table.num_rows != pc.count_distinct(table.column(_NUMBER)).as_py():
        log.warning(
            "%d rows came back for %d examples: feature rows with equal times match them; one of them is taken",
            table.num_rows,
            expected,
        )
        columns = ", ".join(f"{identifier(name)} DESC NULLS LAST" for name in table.column_names)
        with connect(files=()) as connection:
            connection.register("returned_rows", table)
            table = connection.execute(
                f"SELECT * FROM returned_rows QUALIFY row_number() OVER (PARTITION BY {number} ORDER BY {columns}) = 1"
            ).to_arrow_table()
    return table.drop_columns([_NUMBER])


def spark_session(settings: Any) -> Any:
    """The Spark session that Feast will use, which tells times in UTC.

    :param settings: Feast's configuration of its Spark store.
    """
    module = importlib.import_module("feast.infra.offline_stores.contrib.spark_offline_store.spark")
    session = module.get_spark_session_or_start_new_with_repoconfig(settings)
    # A time without zone would be one of the driver's zone, and two drivers may differ.
    session.conf.set("spark.sql.session.timeZone", "UTC")
    return session


def _examples(entity_sql: str) -> pa.Table:

    with connect() as connection:
        table = connection.execute(entity_sql).to_arrow_table()
    return _in_utc(table)


def _in_utc(table: pa.Table) -> pa.Table:
    """Times as microseconds in UTC; those without zone are taken for UTC."""
    import pyarrow as pa

    moment = pa.timestamp("us", "UTC")
    for n, column in enumerate(table.schema):
        if pa.types.is_timestamp(column.type) and column.type != moment:
            table = table.set_column(n, column.name, table.column(n).cast(moment, safe=False))
    return table


@contextlib.contextmanager
def _entities(store: FeatureStore, kind: str, examples: pa.Table) -> Iterator[Any]:
    """The examples in the form that the store takes without changing them."""
    if kind == "spark":
        yield spark_session(store.config.offline_store).createDataFrame(examples)
    elif kind == "postgres":
        with _staged(store.config.offline_store, examples) as query:
            yield query
    else:
        yield examples.to_pandas()


@contextlib.contextmanager
def _staged(settings: Any, examples: pa.Table) -> Iterator[str]:
    """The examples as a table in PostgreSQL: Feast would insert them one by one, by pandas."""
    from feast.infra.utils.postgres.connection_utils import _get_conn
    from psycopg import sql

    name = f"feast_examples_{uuid.uuid4().hex}"
    table = sql.Identifier(name)
    columns = [f"{identifier(column.name)} {_pg_type(column.type)}" for column in examples.schema]
    with _get_conn(settings) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE UNLOGGED TABLE {identifier(name)} ({', '.join(columns)})")
        with cursor.copy(sql.SQL("COPY {} FROM STDIN").format(table)) as copy:
            for batch in examples.to_batches(max_chunksize=10_000):
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    copy.write_row(row)
    try:
        yield f"SELECT * FROM {identifier(name)}"
    finally:
        with _get_conn(settings) as connection, connection.cursor() as cursor:
            cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))


def _pg_type(kind: pa.DataType) -> str:
    import pyarrow as pa

    types = {
        "boolean": pa.types.is_boolean,
        "bigint": pa.types.is_integer,
        "double precision": pa.types.is_floating,
        "numeric": pa.types.is_decimal,
        "timestamptz": pa.types.is_timestamp,
        "date": pa.types.is_date,
        "bytea": lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind),
    }
    return next((name for name, is_one in types.items() if is_one(kind)), "text")
