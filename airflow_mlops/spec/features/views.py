"""``views:`` and ``services:``: what the published rows are to Feast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
    ValidationInfo,
    field_validator,
)
from pydantic_core import CoreSchema, core_schema

from airflow_mlops.spec.values import (
    ColumnName,
    Duration,
    Flag,
    FreeText,
    Section,
    complaint,
    duration,
    no_doubles,
    unstated,
)

__all__ = ["Entity", "FeastName", "FeatureType", "ServiceView", "View"]

FeastName = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z][A-Za-z0-9_]{0,62}$")]

FeatureType = Literal[
    "int64",
    "int32",
    "float64",
    "float32",
    "string",
    "bool",
    "timestamp",
    "bytes",
    "list[int64]",
    "list[int32]",
    "list[float64]",
    "list[float32]",
    "list[string]",
    "list[bool]",
    "list[timestamp]",
    "list[bytes]",
]


@dataclass(frozen=True)
class _ShortFor:
    """A plain word in place of a mapping of one key."""

    key: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(
            lambda value: {self.key: value} if isinstance(value, str) else value, handler(source)
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        section = handler(schema)
        word = handler.resolve_ref_schema(section)["properties"][self.key]
        short = {name: value for name, value in word.items() if name in ("type", "enum", "pattern")}
        return {"anyOf": [short, section]}


class Entity(Section):
    """What a view has one row of at a time. A type alone will do: ``origin: string``."""

    type: Literal["string", "int64", "int32", "bytes"] = Field(description="Type of the join key.")
    join_key: ColumnName | None = Field(
        default=None, description="Column that identifies it. Default: the entity's name."
    )


class View(Section):
    """A feature view of Feast over the published rows."""

    name: FeastName = Field(
        default="",
        description="Name of the view. Default: that of the file, where it has one view.",
        json_schema_extra=unstated,
    )
    description: FreeText = Field(default="", description="One sentence for people.")
    entities: dict[FeastName, Annotated[Entity, _ShortFor("type")]] = Field(
        min_length=1, description="Name of each entity, and the type of its join key."
    )
    ttl: Duration = Field(
        default=duration("0s"),
        description="How old a value may be when it is used; 0s: it does not age.",
    )
    features: dict[ColumnName, FeatureType] = Field(
        min_length=1, description="Column of each feature, and its type."
    )
    online: Flag = Field(
        default=False, description="Whether the newest values are kept in the online store as well."
    )

    @property
    def join_keys(self) -> tuple[str, ...]:
        """The columns that the view is joined by."""
        return tuple(entity.join_key or name for name, entity in self.entities.items())

    @field_validator("entities")
    @classmethod
    def _each_key_once(cls, value: dict[str, Entity]) -> dict[str, Entity]:
        no_doubles(tuple(entity.join_key or name for name, entity in value.items()))
        return value

    @field_validator("features")
    @classmethod
    def _no_key(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        entities: dict[str, Entity] = info.data.get("entities", {})
        for name, entity in entities.items():
            if (entity.join_key or name) in value:
                raise complaint(
                    f"is also the join key of the entity {name}",
                    cure="leave it out here: keys come along by themselves",
                    at=(entity.join_key or name,),
                )
        return value


class ServiceView(Section):
    """A view within a feature service. Its name alone will do, for all of its features."""

    view: FeastName = Field(description="Name of a view, of this file or of the registry.")
    features: tuple[ColumnName, ...] | None = Field(
        default=None, min_length=1, description="Some of its features. Default: all."
    )
    join_keys: dict[ColumnName, ColumnName] = Field(
        default={},
        description="Join key of the view and the examples' column that stands for it, as dest: origin.",
    )
    alias: FeastName | None = Field(
        default=None,
        description="Another name, for a view that the service has twice. Features of one name then carry that of "
        "their view: alias__feature.",
    )

    @field_validator("features")
    @classmethod
    def _each_once(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if value is None else no_doubles(value)


Service = Annotated[tuple[Annotated[ServiceView, _ShortFor("view")], ...], Field(min_length=1)]


def checked_services(services: dict[str, Any], views: tuple[View, ...]) -> dict[str, Any]:
    """The services, held against the views of the same file.

    :param views: those of the file; a service may name others, which Feast's registry knows.
    """
    known = {view.name: view for view in views}
    for service, members in services.items():
        seen: set[str] = set()
        for number, member in enumerate(members):
            at: tuple[str | int, ...] = (service, number)
            name = member.alias or member.view
            if name in seen:
                raise complaint(
                    f"has {name} twice",
                    expected="each view once",
                    cure="keep one of them, or give one an alias and join_keys",
                    at=at,
                )
            seen.add(name)
            if member.view in known:
                _check_member(member, known[member.view], at)
    return services


def _check_member(member: ServiceView, view: View, at: tuple[str | int, ...]) -> None:
    for number, feature in enumerate(member.features or ()):
        if feature not in view.features:
            raise complaint(
                f"is no feature of the view {view.name}",
                expected=f"one of {', '.join(view.features)}",
                cure=f"add it to the view, or remove it here: {feature}",
                at=(*at, "features", number),
            )
    for key in member.join_keys:
        if key not in view.join_keys:
            raise complaint(
                f"is no join key of the view {view.name}",
                expected=f"one of {', '.join(view.join_keys)}",
                cure="write the view's key first, then the examples' column",
                at=(*at, "join_keys", key),
            )
