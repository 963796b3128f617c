"""``examples:``: the rows to learn from, where they come from and what their columns mean."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from airflow_mlops.spec.data.texts import ReadAsText, check_read_as_text
from airflow_mlops.spec.values import (
    ColumnName,
    ConnectionId,
    Flag,
    FolderPath,
    Section,
    TableName,
    Text,
    UniqueColumns,
    WholeNumber,
    complaint,
)

__all__ = ["PREDICTED", "Examples", "Table"]

_RESERVED = "examples"  # the view that holds the query itself
#: Columns of prediction files, which hold the keys and the time as well: what model code adds, and what delivery does.
PREDICTED = ("prediction", "second_prediction", "request_id", "predicted_at", "model_version")


def _of_parquet(value: dict[str, str] | None, info: ValidationInfo) -> dict[str, str] | None:
    if value is not None and "parquet" in info.data and info.data["parquet"] is None:
        raise complaint("is for parquet only", cure="remove partitions, or write parquet: data/**/*.parquet")
    return value


class Table(ReadAsText):
    """A table that ``sql`` may name: of Delta, of Iceberg, or files of Parquet, CSV or JSON."""

    delta: Text | None = Field(
        default=None, description="Folder of a Delta table: a path, or s3://bucket/folder."
    )
    iceberg: Text | None = Field(
        default=None,
        description="Iceberg table: catalog.namespace.table, the folder of the table, or its .metadata.json "
        "file (a path, or s3://bucket/…).",
    )
    parquet: Text | None = Field(
        default=None,
        description="Parquet file or glob: a path, or s3://bucket/….",
    )
    files: Text | None = Field(
        default=None,
        description="CSV or JSON files: a path or glob, or s3://bucket/….",
        validate_default=True,
    )
    partitions: dict[ColumnName, Text] | None = Field(
        default=None,
        min_length=1,
        description="Folders column=value behind the first wildcard of parquet that become columns: column and "
        "DuckDB type, such as {day: DATE}. Default: names of folders mean nothing.",
    )
    version: WholeNumber | None = Field(
        default=None, ge=0, description="Version of the Delta table. Default: the newest when it is read."
    )
    snapshot: WholeNumber | None = Field(
        default=None,
        ge=0,
        description="Snapshot of the Iceberg table. Default: the newest when it is read.",
        validate_default=True,
    )

    @field_validator("files")
    @classmethod
    def _one_format(cls, value: str | None, info: ValidationInfo) -> str | None:
        if {"delta", "iceberg", "parquet"} <= info.data.keys():
            given = [info.data["delta"], info.data["iceberg"], info.data["parquet"], value]
            if sum(one is not None for one in given) != 1:
                raise complaint(
                    "is no table" if not any(given) else "is several tables",
                    expected="exactly one of delta, iceberg, parquet and files",
                    cure="write, for example, delta: lake/flights",
                    at=("..",),
                )
        check_read_as_text(info, files=value is not None, expected="files")
        return value

    @field_validator("partitions")
    @classmethod
    def _of_files(cls, value: dict[str, str] | None, info: ValidationInfo) -> dict[str, str] | None:
        return _of_parquet(value, info)

    @field_validator("snapshot")
    @classmethod
    def _own_pin(cls, value: int | None, info: ValidationInfo) -> int | None:
        for key, pin, of in (
            ("version", info.data.get("version"), "delta"),
            ("snapshot", value, "iceberg"),
        ):
            if pin is not None and info.data.get(of) is None and of in info.data:
                raise complaint(
                    f"is for {of} tables only", cure=f"remove {key}, or write {of}: …", at=("..", key)
                )
        return value


class Examples(Section):
    """Where examples come from: one row for each case to learn from or to predict."""

    folder: FolderPath = Field(
        default=".",
        description="Folder that paths in sql, parquet and tables are relative to; itself relative to the "
        "file that names it. Default: the folder of the application's file. Usually written in defaults.yaml.",
    )
    connection: ConnectionId | None = Field(
        default=None,
        description="Airflow connection of type aws for addresses that begin with s3:// and name no other. "
        "Default: aws_default.",
    )
    tables: dict[TableName, Table] | None = Field(
        default=None,
        min_length=1,
        description="Tables that sql may name, by the name it uses: Delta, Iceberg or Parquet. The version that "
        "is read is written down with the dataset.",
    )
    sql: Text | None = Field(
        default=None, description="DuckDB query that gives the examples. Either sql or parquet."
    )
    parquet: Text | None = Field(
        default=None,
        description="Parquet file or glob with the examples, or s3://bucket/…. Either sql or parquet.",
        validate_default=True,
    )
    partitions: dict[ColumnName, Text] | None = Field(
        default=None,
        min_length=1,
        description="Folders column=value behind the first wildcard of parquet that become columns: column and "
        "DuckDB type, such as {day: DATE}. Default: names of folders mean nothing.",
    )
    keys: UniqueColumns = Field(
        min_length=1,
        description="Columns that identify an example; Feast joins by those that are its entities.",
    )
    timestamp: ColumnName = Field(description="Column with the time at which the prediction is asked for.")
    targets: UniqueColumns = Field(
        default=(),
        max_length=1,
        description="The column to learn, or to judge by. Needed for classification, regression and ranking.",
    )
    keep_unlabelled: Flag = Field(
        default=False,
        description="Learn from examples without target as well, as the few labels of an anomaly detection want it.",
    )
    targets_known_at: ColumnName | None = Field(
        default=None,
        description="Column with the time at which the target became known. Default: known with the example. Not with "
        "keep_unlabelled.",
        validate_default=True,
    )

    @field_validator("tables")
    @classmethod
    def _names(cls, value: dict[str, Table] | None) -> dict[str, Table] | None:
        if value is not None and _RESERVED in (name.lower() for name in value):
            raise complaint(
                f"names a table {_RESERVED}, a reserved name",
                cure="give the table another name, and use it in sql",
            )
        return value

    @field_validator("parquet")
    @classmethod
    def _one_source(cls, value: str | None, info: ValidationInfo) -> str | None:
        if "sql" in info.data and (value is None) == (info.data["sql"] is None):
            raise complaint(
                "names no source" if value is None else "names two sources, sql and parquet",
                expected="exactly one of sql and parquet",
                cure="add sql: SELECT ... or parquet: data/*.parquet"
                if value is None
                else "remove one of them",
                at=("..",) if value is None else (),
            )
        if value is not None and info.data.get("tables"):
            raise complaint(
                "stands beside tables, which only sql can name",
                expected="sql with tables, or parquet alone",
                cure="write sql: SELECT … FROM the table's name, or remove tables",
                at=("..", "tables"),
            )
        return value

    @field_validator("partitions")
    @classmethod
    def _of_files(cls, value: dict[str, str] | None, info: ValidationInfo) -> dict[str, str] | None:
        return _of_parquet(value, info)

    @field_validator("targets_known_at")
    @classmethod
    def _of_a_target(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("keep_unlabelled"):
            raise complaint(
                "has no meaning with keep_unlabelled: an example is taken before its target is known",
                cure="remove one of the two",
            )
        if value is not None and info.data.get("targets") == ():
            raise complaint(
                "says when a target became known, and there is none", cure="add targets: [column]"
            )
        return value

    @field_validator("targets_known_at")
    @classmethod
    def _one_role_each(cls, value: str | None, info: ValidationInfo) -> str | None:
        roles = [("keys", name) for name in info.data.get("keys", ())]
        roles += [("timestamp", info.data["timestamp"])] if "timestamp" in info.data else []
        roles += [("targets", name) for name in info.data.get("targets", ())]
        roles += [("targets_known_at", value)] if value is not None else []
        seen: dict[str, str] = {}
        for role, name in roles:
            if (other := seen.get(name.casefold())) == "timestamp" and role == "targets_known_at":
                raise complaint(
                    f"is {name}, the time of the question: all targets would pass for known when they are asked for",
                    expected="the column with the time at which the target became known",
                    cure="name that column, or remove targets_known_at",
                )
            reserved = role in ("keys", "timestamp") and name.casefold() in PREDICTED
            if other or reserved:
                raise complaint(
                    f"names {name}, which is also {other}"
                    if other
                    else f"names {name}, a reserved name of the files with predictions",
                    expected="a column of its own for keys, timestamp, targets and targets_known_at",
                    cure="give one of them another name in the SQL: SELECT ... AS ...",
                    at=("..", role),
                )
            seen[name.casefold()] = role
        return value
