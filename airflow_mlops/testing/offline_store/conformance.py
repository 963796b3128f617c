"""The conformance suite of point-in-time joins, run on whatever offline store Feast is configured with."""

from __future__ import annotations

import logging
import os
import uuid
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from airflow_mlops.exceptions import FeatureStoreError
from airflow_mlops.hooks.feast.connection.session import feast_errors, import_feast
from airflow_mlops.hooks.feast.join import spark_session
from airflow_mlops.hooks.feast.sources import backend, batch_source
from airflow_mlops.hooks.scratch import scratch_folder
from airflow_mlops.testing.offline_store.cases import CASES
from airflow_mlops.testing.offline_store.judge import Case, CaseResult, View, judge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa
    from feast import FeatureStore
    from feast.repo_config import RepoConfig

__all__ = [
    "FileLoader",
    "Loader",
    "PostgresLoader",
    "check_store",
    "connection_config",
    "loader_for",
    "read_config",
    "run_conformance",
]

log = logging.getLogger(__name__)


class Loader(Protocol):
    """Puts the rows of a case where an offline store can read them, and takes them away again."""

    def load(self, name: str, table: pa.Table) -> Mapping[str, Any]:
        """Store a table.

        :param name: unique, and fit for a name in SQL.
        :return: the ``source`` of a feature view's definition: ``path``, ``table`` or ``query``.
        """
        ...

    def examples(self, table: pa.Table) -> Any:
        """Examples in the form in which the store takes them."""
        ...

    def close(self) -> None:
        """Take away what was stored."""
        ...


class FileLoader:
    """Rows in Parquet files, for stores that read files.

    :param folder: of the files; it is not deleted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, name: str, table: pa.Table) -> Mapping[str, Any]:
        """Write a file of a folder of its own."""
        import pyarrow.parquet as pq

        target = self.folder / name
        target.mkdir(parents=True)
        pq.write_table(table, target / "rows.parquet")
        return {"path": str(target / "rows.parquet")}

    def examples(self, table: pa.Table) -> Any:
        """A pandas frame, which all of Feast's stores take."""
        return table.to_pandas()

    def close(self) -> None:
        """Nothing: the folder is the caller's."""


class PostgresLoader:
    """Rows in tables of a PostgreSQL database.

    :param settings: Feast's configuration of its PostgreSQL store.
    """

    _TYPES = ("int64", "bigint"), ("double", "double precision"), ("string", "text"), ("bool", "boolean")

    def __init__(self, settings: Any) -> None:
        self._settings = settings
        self._tables: list[str] = []

    def load(self, name: str, table: pa.Table) -> Mapping[str, Any]:
        """Create a table and fill it."""
        from psycopg import sql

        types = dict(self._TYPES)
        place = sql.Identifier(name)
        columns = [
            sql.SQL("{} {}").format(
                sql.Identifier(column.name),
                sql.SQL(types.get(str(column.type)) or ("timestamptz" if column.type.tz else "timestamp")),
            )
            for column in table.schema
        ]
        with self._connect() as connection, connection.cursor() as cursor:
            self._tables.append(name)
            cursor.execute(sql.SQL("CREATE TABLE {} ({})").format(place, sql.SQL(", ").join(columns)))
            with cursor.copy(sql.SQL("COPY {} FROM STDIN").format(place)) as copy:
                for row in table.to_pylist():
                    copy.write_row(tuple(row.values()))
        return {"table": name}

    def examples(self, table: pa.Table) -> Any:
        """A pandas frame."""
        return table.to_pandas()

    def close(self) -> None:
        """Drop the tables."""
        from psycopg import sql

        with self._connect() as connection, connection.cursor() as cursor:
            for name in self._tables:
                cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(name)))
        self._tables.clear()

    def _connect(self) -> Any:
        from feast.infra.utils.postgres.connection_utils import _get_conn

        return _get_conn(self._settings)


def read_config(repo: Path | None = None, store: str | None = None) -> RepoConfig:
    """Feast's configuration with the offline store to check.

    :param repo: folder of a ``feature_store.yaml``; or
    :param store: the type of an offline store, with its defaults.
    :raises FeatureStoreError: it cannot be read, or the store is known to be unfit.
    """
    import_feast()
    from feast.repo_config import RepoConfig, load_repo_config

    with feast_errors(f"Feast repository {repo}" if repo else f"offline store {store}"):
        if repo is not None:
            return load_repo_config(repo, repo / "feature_store.yaml")
        backend(store or "")  # says why one is refused
        return RepoConfig(
            project="conformance", provider="local", registry="unused", offline_store={"type": store}
        )


def connection_config(conn_id: str) -> RepoConfig:
    """Feast's configuration by an Airflow connection, whether or not its registry is there yet.

    :param conn_id: connection of type ``feast``.
    :raises FeatureStoreError: the connection cannot be meant, or the store is known to be unfit.
    """
    from airflow_mlops.hooks.feast.hook import FeastHook

    settings = FeastHook(conn_id).settings
    backend(str((settings.config.get("offline_store") or {}).get("type", "")))  # says why one is refused
    import_feast()
    from feast.repo_config import RepoConfig

    with feast_errors(settings.where, settings):
        return RepoConfig(**settings.config)


def warning_about(config: RepoConfig) -> str:
    """What is known to be wrong with the configured offline store; nothing if it is known to conform.

    :raises FeatureStoreError: it is known to be unfit.
    """
    kind = str(config.offline_store.type)
    known = backend(kind).known
    return f"offline store {kind} {known}: use another one for training sets" if known else ""


def loader_for(config: RepoConfig, folder: Path) -> Loader:
    """A loader for the configured store.

    :param folder: for files.
    :raises FeatureStoreError: there is none for this store.
    """
    kind = str(config.offline_store.type)
    if backend(kind).kind in ("files", "spark"):
        return FileLoader(folder)
    if kind == "postgres":
        return PostgresLoader(config.offline_store)
    raise FeatureStoreError(
        f"the suite cannot put its rows where offline store {kind!r} reads them. Call run_conformance of "
        "airflow_mlops.testing.offline_store.conformance with a loader for it"
    )


def check_store(config: RepoConfig, cases: Sequence[Case] = CASES) -> list[CaseResult]:
    """Run the suite on the configured store, with rows in places that are gone afterwards.

    :param config: Feast's configuration; only its offline store matters.
    """
    with scratch_folder() as folder:
        return run_conformance(config, loader_for(config, Path(folder)), cases)


def run_conformance(config: RepoConfig, loader: Loader, cases: Sequence[Case] = CASES) -> list[CaseResult]:
    """Ask an offline store the questions of the suite.

    The feature views live in a registry of their own that is gone afterwards.

    :param config: Feast's configuration; only its offline store matters.
    :param loader: puts the rows where the store reads them; it is closed.
    :raises FeatureStoreError: the views cannot be applied, or the store is known to be unfit.
    """
    kind = str(config.offline_store.type)
    if known := warning_about(config):
        log.warning("%s", known)
    if kind == "postgres":
        os.environ.setdefault("PGTZ", "UTC")  # as the hook has it
    log.info("Asking offline store %s %d questions", kind, len(cases))
    with scratch_folder() as registry, closing(loader):
        with feast_errors(f"conformance suite on offline store {kind}"):
            store = _store(config, Path(registry))
            if kind == "spark":
                spark_session(store.config.offline_store)  # in UTC, as the hook has it
            _apply(store, kind, loader, cases)
        return [_ask(store, loader, number, case) for number, case in enumerate(cases)]


def _store(config: RepoConfig, folder: Path) -> FeatureStore:
    feast = import_feast()
    from feast.repo_config import RepoConfig

    settings = config.offline_store
    store: FeatureStore = feast.FeatureStore(
        config=RepoConfig(
            project="conformance",
            provider="local",
            registry={"registry_type": "file", "path": str(folder / "registry.db")},  # ours alone
            offline_store=settings if isinstance(settings, dict) else settings.model_dump(by_alias=True),
            online_store=None,
            entity_key_serialization_version=3,
            repo_path=folder,
        )
    )
    return store


def _apply(store: FeatureStore, kind: str, loader: Loader, cases: Sequence[Case]) -> None:
    from feast import FeatureService

    run = uuid.uuid4().hex[:8]
    entities: dict[str, Any] = {}
    objects: list[Any] = []
    for number, case in enumerate(cases):
        views = {}
        for view in case.views:
            source = loader.load(f"conformance_{run}_{number}_{view.name}", _table(view))
            views[view.name] = _feature_view(kind, f"c{number}_{view.name}", view, source, entities)
        # Feast cannot compare a view with an alias of itself (a service sorts them), but two aliases it can.
        own = [view.with_name(view.name) if case.aliases else view for view in views.values()]
        also = [
            views[alias.view].with_name(f"c{number}_{alias.name}").with_join_key_map(dict(alias.join_keys))
            for alias in case.aliases
        ]
        objects += [*views.values(), FeatureService(name=f"c{number}", features=[*own, *also])]
    store.apply([*entities.values(), *objects])


def _feature_view(
    kind: str, name: str, view: View, source: Mapping[str, Any], entities: dict[str, Any]
) -> Any:
    from feast import Entity, FeatureView, Field, ValueType
    from feast.types import Bool, Float64, Int64, String

    types = {"int64": Int64, "float64": Float64, "string": String, "bool": Bool}
    keys = {f"{key}_{type_}": (key, type_) for key, type_ in view.keys.items()}
    for entity, (key, type_) in keys.items():
        entities.setdefault(entity, Entity(name=entity, join_keys=[key], value_type=ValueType[type_.upper()]))
    made = batch_source(
        kind,
        {
            "name": name,
            "timestamp": "time",
            "created": "created" if view.created else None,
            "source": {"name": f"{name}_rows", **source},
        },
    )
    made.field_mapping = dict(view.renamed)
    fields = {**view.keys, **view.features}
    return FeatureView(
        name=name,
        entities=[entities[entity] for entity in keys],
        ttl=view.ttl,
        schema=[Field(name=column, dtype=types[type_]) for column, type_ in fields.items()],
        source=made,
        online=False,
    )


def _table(view: View) -> pa.Table:
    """The rows of a view as its source has them."""
    import pyarrow as pa

    types = {"int64": pa.int64(), "float64": pa.float64(), "string": pa.string(), "bool": pa.bool_()}
    time = pa.timestamp("us", None if view.naive else "UTC")
    known = {**view.keys, **view.features}
    columns = {feast: column for column, feast in view.renamed.items()}
    names = [*view.keys, "time", *(["created"] if view.created else []), *view.features]
    arrays = {}
    for name in names:
        column = columns.get(name, name)
        values = [row.get(column) for row in view.rows]
        if name in known:
            arrays[column] = pa.array(values, types[known[name]])
        else:
            arrays[column] = pa.array(values, pa.timestamp("us", "UTC")).cast(time)
    return pa.table(arrays)


def _ask(store: FeatureStore, loader: Loader, number: int, case: Case) -> CaseResult:
    offline = store._get_provider().offline_store  # noqa: SLF001 - Feast tells it nowhere else
    options: dict[str, Any] = {}
    if case.created_filter:
        if not offline.supports_filter_by_created_timestamp:
            missing = "the store cannot leave out rows that were created later: backfills leak into the past"
            return CaseResult(case.name, case.about, "not supported", missing)
        options = {"filter_by_created_timestamp": True}
    try:
        job: Any = store.get_historical_features(
            entity_df=_sql(case) if case.sql else loader.examples(_examples(case)),
            features=store.get_feature_service(f"c{number}"),
            full_feature_names=case.full_names,
            **options,
        )
        table = job.to_arrow()
        getattr(job, "close", lambda: None)()
    except NotImplementedError as error:
        return CaseResult(case.name, case.about, "not supported", _line(error))
    except Exception as error:  # noqa: BLE001 - a store may fail in any way
        if case.refused:
            return CaseResult(case.name, case.about, "pass")
        return CaseResult(case.name, case.about, "fails", f"{type(error).__name__}: {_line(error)}")
    table = table.rename_columns([name.removeprefix(f"c{number}_") for name in table.column_names])
    wrong = judge(case, table.to_pylist())
    return CaseResult(case.name, case.about, "fails" if wrong else "pass", wrong)


def _examples(case: Case) -> pa.Table:
    import pyarrow as pa

    names = dict.fromkeys(name for row in case.examples for name in row)
    return pa.table({name: pa.array([row.get(name) for row in case.examples]) for name in names})


def _sql(case: Case) -> str:
    """The examples as a query that every SQL dialect understands, their times in UTC."""
    return " UNION ALL ".join(
        "SELECT "
        + ", ".join(
            f"TIMESTAMP '{value:%Y-%m-%d %H:%M:%S}' AS {name}"
            if name == "event_timestamp"
            else f"{value} AS {name}"
            for name, value in row.items()
        )
        for row in case.examples
    )


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:300]} …"
