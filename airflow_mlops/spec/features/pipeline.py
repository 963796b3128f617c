"""``FeaturesSpec``: a feature pipeline, shared by applications, as one YAML file describes it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from airflow_mlops.spec.data.assumptions import Assumption
from airflow_mlops.spec.features.extract import Extract, Prepare, Transform
from airflow_mlops.spec.features.views import FeastName, Service, View, checked_services
from airflow_mlops.spec.store import StoreUri
from airflow_mlops.spec.values import (
    ApplicationName,
    AssetSchedule,
    ColumnName,
    ConnectionId,
    Document,
    Duration,
    Flag,
    FolderPath,
    FreeText,
    Label,
    PositiveDuration,
    Schedule,
    Section,
    Text,
    UniqueColumns,
    WholeNumber,
    complaint,
    duration,
    section,
    unstated,
)

__all__ = ["FeaturesSpec", "Publish"]

#: Rules that a feature pipeline cannot keep, for lack of what they are about.
_OF_DATASETS = ("groups_stay_together", "no_duplicates_across_splits", "max_target_leakage", "distribution")


class Publish(Section):
    """What a published row is known by, and how the files are laid out."""

    keys: UniqueColumns = Field(
        default=(),
        description="Columns that say what a row is about. Default: the join keys of the views.",
        json_schema_extra=unstated,
    )
    timestamp: ColumnName = Field(description="Column with the time from which a row holds.")
    created: ColumnName | None = Field(
        default=None,
        description="Column with the time at which a row was written: it is not used for any earlier moment. "
        "published_at: a column that the publication fills itself. Without any, a second row of the same keys and "
        "time is refused.",
        validate_default=True,
    )
    partition: Literal["day", "month", "year"] = Field(
        default="month", description="What of the timestamp the files are divided by."
    )
    table: Text | None = Field(
        default=None,
        description="Where the same rows are found by a Feast offline store that reads a database and no files. "
        "Default: the name of the pipeline.",
    )

    @field_validator("created")
    @classmethod
    def _one_role_each(cls, value: str | None, info: ValidationInfo) -> str | None:
        keys, timestamp = info.data.get("keys", ()), info.data.get("timestamp")
        if timestamp in keys:
            raise complaint(
                f"names {timestamp}, which is also the timestamp",
                expected="what a row is about, without its time",
                cure="remove it from keys",
                at=("..", "keys"),
            )
        if value is not None and (value in keys or value == timestamp):
            raise complaint(
                f"names {value}, which is also {'the timestamp' if value == timestamp else 'a key'}",
                expected="a column of its own",
                cure="leave created out, or name the column with the time of writing",
            )
        return value


class FeaturesSpec(Document):
    """One feature pipeline, as its YAML file and the defaults of its folder describe it."""

    features: ApplicationName = Field(
        description="Unique name: a lower-case letter, then letters, digits and underscores; prefix of its DAG."
    )
    description: FreeText = Field(
        default="", description="One sentence for people: what is measured of what."
    )
    owner: Label = Field(default="airflow", description="Owner of the DAG.")
    task_timeout: PositiveDuration = Field(
        default=duration("6h"),
        description="How long a task may be at work on a worker; a job of prepare has prepare.timeout for itself.",
    )
    tags: tuple[Label, ...] = Field(default=(), description="Tags of the DAG and of the views.")
    store: StoreUri = Field(
        description="Folder (or file:// or s3:// URL) for the published rows, shared by all workers; relative to "
        "the file that names it. Usually written in defaults.yaml."
    )
    folder: FolderPath = Field(
        default=".",
        description="Folder that relative paths in extract.files and transform.tables are seen from; itself "
        "relative to the file that names it. Default: the folder of this file. Usually written in defaults.yaml.",
    )
    feature_store: ConnectionId = Field(
        default="feast_default", description="Airflow connection of type feast."
    )
    schedule: Schedule | None = Field(
        default=None, description="When it runs: cron (UTC), {assets: [...]}, or null."
    )
    extract: Extract = Field(description="Where new rows come from.")
    transform: Transform = section("What is made of the extracted rows, in DuckDB's SQL.")
    prepare: Prepare | None = Field(
        default=None, description="The model code's own command prepare in place of SQL."
    )
    assumptions: tuple[Assumption, ...] = Field(
        default=(), description="Rules that the rows must keep before anything is published."
    )
    views: tuple[View, ...] = Field(min_length=1, description="Feature views over the published rows.")
    publish: Publish = Field(description="What a published row is known by, and how the files are laid out.")
    services: dict[FeastName, Service] = Field(
        default={},
        description="Feature services: name, and the views that they join; a view's name alone stands for all "
        "of its features.",
    )
    materialize: Flag = Field(
        default=True, description="false: views that are online are brought there by somebody else."
    )
    retries: WholeNumber = Field(default=2, ge=0, le=100, description="Tries after the first, of every task.")
    retry_delay: Duration = Field(default=duration("1m"), description="Pause between tries.")

    @field_validator("extract")
    @classmethod
    def _interval_of_a_clock(cls, value: Extract, info: ValidationInfo) -> Extract:
        schedule: AssetSchedule | str | None = info.data.get("schedule")
        if "schedule" in info.data and value.window == "interval" and not isinstance(schedule, str):
            raise complaint(
                "is interval, but the schedule has no intervals",
                expected="a cron schedule",
                cure='write schedule: "@daily", or window: watermark',
                at=("window",),
            )
        return value

    @field_validator("prepare")
    @classmethod
    def _sql_or_image(cls, value: Prepare | None, info: ValidationInfo) -> Prepare | None:
        transform: Transform | None = info.data.get("transform")
        if value is not None and transform is not None and transform.model_fields_set:
            raise complaint(
                "stands beside transform",
                expected="either transform or prepare",
                cure="remove one of them",
            )
        return value

    @field_validator("assumptions")
    @classmethod
    def _without_splits(cls, value: tuple[Assumption, ...]) -> tuple[Assumption, ...]:
        for number, rule in enumerate(value):
            for name in _OF_DATASETS:
                if getattr(rule, name, None) is not None:
                    raise complaint(
                        "is about the splits, targets or versions of a dataset, and features have none",
                        expected="a rule about rows and columns",
                        cure="move it to provisioning.assumptions of the applications",
                        at=(number, name),
                    )
        return value

    @field_validator("views")
    @classmethod
    def _each_name_once(cls, value: tuple[View, ...], info: ValidationInfo) -> tuple[View, ...]:
        if len(value) == 1 and not value[0].name:
            return (value[0].model_copy(update={"name": info.data.get("features", "")}),)
        seen: set[str] = set()
        for number, view in enumerate(value):
            if not view.name or view.name in seen:
                raise complaint(
                    "has the name of the view above" if view.name else "has no name, and is one of several",
                    expected="a name of its own",
                    cure=f"add name: {info.data.get('features', 'my_view')}_{number + 1}",
                    at=(number, "name") if view.name else (number,),
                )
            seen.add(view.name)
        return value

    @field_validator("publish")
    @classmethod
    def _keys_of_the_views(cls, value: Publish, info: ValidationInfo) -> Publish:
        views: tuple[View, ...] = info.data.get("views", ())
        join_keys = tuple(dict.fromkeys(key for view in views for key in view.join_keys))
        taken = {value.timestamp: "timestamp", value.created: "created"}
        for view in views:
            for column in (*view.features, *view.join_keys):
                if column in taken:
                    raise complaint(
                        f"names {column}, which the view {view.name} has as a "
                        f"{'feature' if column in view.features else 'join key'}",
                        expected="a column of its own",
                        cure="give one of them another name in transform.sql: SELECT ... AS ...",
                        at=(taken[column],),
                    )
        if not value.keys:
            return value.model_copy(update={"keys": join_keys})
        missing = [key for key in join_keys if key not in value.keys]
        if missing:
            raise complaint(
                f"lacks {', '.join(missing)}, by which the views are joined",
                expected=f"at least {', '.join(join_keys)}",
                cure="add it, or leave keys out",
                at=("keys",),
            )
        return value

    @field_validator("services", mode="after")
    @classmethod
    def _of_known_views(cls, value: dict[str, Service], info: ValidationInfo) -> dict[str, Service]:
        return checked_services(value, info.data.get("views", ()))
