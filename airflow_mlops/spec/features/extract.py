"""``extract:``, ``transform:`` and ``prepare:``: where rows come from, and what is made of them."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, JsonValue, ValidationInfo, field_validator

from airflow_mlops.spec.code import ProcessCode
from airflow_mlops.spec.data.texts import ReadAsText, check_read_as_text
from airflow_mlops.spec.places import PLACES, Place
from airflow_mlops.spec.places.docker import DockerOptions
from airflow_mlops.spec.training.resources import TrainingResources
from airflow_mlops.spec.values import (
    ColumnName,
    ConnectionId,
    Duration,
    Flag,
    ImageReference,
    PositiveDuration,
    Section,
    TableName,
    Text,
    WholeNumber,
    complaint,
    duration,
    section,
    unstated,
)

__all__ = ["Extract", "Http", "Prepare", "Transform"]

#: A parameter of the window in SQL; not a cast (``x::after``) and not inside a name.
_BOUND = re.compile(r"(?<![:\w]):(after|until)\b")


class Http(Section):
    """An answer over HTTP that holds rows."""

    connection: ConnectionId = Field(
        default="http_default", description="Airflow connection of type http: host, headers, password."
    )
    endpoint: Text = Field(description="Path below the connection's host, such as v1/observations.")
    format: Literal["json", "csv", "parquet"] = Field(default="json", description="What the answer is.")
    params: dict[Text, JsonValue] = Field(
        default={},
        description="Parameters of the query; in their values, :after and :until stand for the bounds of the window.",
    )
    records: Text | None = Field(
        default=None, description="Keys to the list of rows in a JSON answer, such as data.items."
    )
    next: Text | None = Field(
        default=None,
        description="Keys to the link to the next answer in a JSON one, such as links.next; the header Link is "
        "followed by itself.",
    )


class Extract(ReadAsText):
    """Where new rows come from: a database, files or HTTP; exactly one of them."""

    connection: ConnectionId | None = Field(
        default=None, description="Airflow connection of a database; with sql."
    )
    sql: Text | None = Field(
        default=None,
        description="Query in the database's own SQL. Where it writes :after and :until, the driver gets the "
        "bounds of the window as values; without them the query is wrapped in a comparison with watermark.",
        validate_default=True,
    )
    files: Text | None = Field(
        default=None,
        description="Parquet, CSV or JSON files: a path or glob, or s3://bucket/folder/*.parquet.",
    )
    http: Http | None = Field(
        default=None, description="An answer over HTTP that holds rows.", validate_default=True
    )
    watermark: ColumnName | None = Field(
        default=None,
        description="Column that grows with time; only rows above the last run's largest value are new. "
        "Default: everything is read each time, and rows that are published already are left out.",
    )
    late: Duration = Field(
        default=duration("0s"),
        description="How far behind the watermark rows may still arrive: so much is read again. With window: "
        "interval, how far before the interval reading begins.",
        validate_default=True,
    )
    window: Literal["watermark", "interval"] = Field(
        default="watermark",
        description="What a run reads: watermark: whatever came since the last run; interval: the data interval "
        "of the run, so that a backfill reads exactly the past that it names. A form's start and end are stronger.",
        validate_default=True,
    )
    batch_rows: WholeNumber = Field(
        default=50_000, ge=1, le=10_000_000, description="Rows that are fetched from a database at a time."
    )

    @field_validator("sql")
    @classmethod
    def _with_connection(cls, value: str | None, info: ValidationInfo) -> str | None:
        if "connection" in info.data and (value is None) != (info.data["connection"] is None):
            missing = "sql" if value is None else "connection"
            raise complaint(
                f"has {'connection' if value is None else 'sql'} without {missing}",
                expected="connection and sql together",
                cure="add sql: SELECT ..." if value is None else "add connection: my_database",
                at=("..",),
            )
        return value

    @field_validator("http")
    @classmethod
    def _one_source(cls, value: Http | None, info: ValidationInfo) -> Http | None:
        if not {"connection", "sql", "files"} <= info.data.keys():
            return value  # a part is wrong in itself: said already
        given = [name for name in ("sql", "files") if info.data[name] is not None]
        given += ["http"] if value is not None else []
        if len(given) != 1:
            raise complaint(
                f"names {len(given)} sources, {' and '.join(given)}" if given else "names no source",
                expected="exactly one of connection with sql, files, http",
                cure="keep one of them" if given else "add files: data/*.parquet, or connection and sql",
                at=("..",),
            )
        check_read_as_text(info, files=given != ["sql"], expected="files or http")
        return value

    @field_validator("late")
    @classmethod
    def _behind_something(cls, value: Any, info: ValidationInfo) -> Any:
        if value and "watermark" in info.data and info.data["watermark"] is None:
            raise complaint(
                "needs a watermark to be late behind",
                cure="add watermark: the column that says when a row changed, or remove late",
            )
        return value

    @field_validator("window")
    @classmethod
    def _has_bounds(cls, value: str, info: ValidationInfo) -> str:
        if not {"sql", "watermark"} <= info.data.keys() or info.data["watermark"] is not None:
            return value
        asked = sorted(set(_BOUND.findall(info.data["sql"] or "")))
        if asked:
            raise complaint(
                f"has {' and '.join(f':{name}' for name in asked)}, and no watermark fills them",
                expected="watermark: the column that says how far the source was read",
                cure="add watermark: updated_at",
                at=("..", "sql"),
            )
        if value == "interval":
            raise complaint(
                "is interval, and nothing says which rows lie in it",
                expected="watermark: the column with the time of a row",
                cure="add watermark: updated_at",
            )
        return value


class Transform(Section):
    """What is made of the extracted rows, in DuckDB's SQL."""

    sql: Text = Field(
        default="SELECT * FROM extracted",
        description="Query over the table extracted and those of tables; its rows are published.",
    )
    tables: dict[TableName, Text] = Field(
        default={}, description="More tables for the query: name and Parquet file, glob or s3:// address."
    )

    @field_validator("tables")
    @classmethod
    def _own_names(cls, value: dict[str, str]) -> dict[str, str]:
        if any(name.lower() == "extracted" for name in value):
            raise complaint(
                "names a table extracted, which is what was extracted", cure="give it another name"
            )
        return value


class Prepare(Section):
    """The model code's own command ``prepare`` in place of SQL."""

    image: ImageReference | None = Field(
        default=None, description="Image with the label ai.airflow-mlops.contract=1, for run_on: docker."
    )
    process: ProcessCode | None = Field(default=None, description="Command line, for run_on: process.")
    run_on: Literal["docker", "process"] = Field(
        default="docker",
        description="Where it runs. Default: docker when image is given, else process.",
        json_schema_extra=unstated,
        validate_default=True,
    )
    docker: DockerOptions = section(DockerOptions.about)
    resources: TrainingResources = section("Limits of the container.")
    parameters: dict[Text, JsonValue] = Field(default={}, description="Parameters of the command.")
    seed: WholeNumber = Field(default=0, ge=0, le=2**32 - 1, description="Seed of all randomness.")
    timeout: PositiveDuration = Field(default=duration("2h"), description="Longest time of the command.")
    deferrable: Flag = Field(default=True, description="Wait in the triggerer instead of holding a worker.")

    @property
    def place(self) -> Place:
        """The section of the place where the command runs."""
        return self.docker if self.run_on == "docker" else PLACES[self.run_on]()

    @field_validator("run_on")
    @classmethod
    def _where_it_runs(cls, value: str, info: ValidationInfo) -> str:
        if not {"image", "process"} <= info.data.keys():
            return value
        if info.data["image"] is None and info.data["process"] is None:
            raise complaint(
                "names no code",
                expected="image, or process with directory and command",
                cure="add image: my-features:1.0.0",
                at=("..",),
            )
        needed = "image" if value == "docker" else "process"
        return value if info.data[needed] is not None else ("process" if value == "docker" else "docker")
