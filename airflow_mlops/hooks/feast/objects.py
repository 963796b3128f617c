"""Feast's objects from definitions, and descriptions of them that can be compared."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import FeatureStoreError
from airflow_mlops.hooks.feast.connection.session import feast_errors, import_feast
from airflow_mlops.hooks.feast.sources import batch_source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from feast import Entity, FeatureService, FeatureView

    from airflow_mlops.primitives.features.plan import Key

__all__ = ["FeastObjects", "build_objects", "describe", "kind_of"]

_LIST = re.compile(r"list\[(\w+)\]")
_TYPES = {
    "int64": "Int64",
    "int32": "Int32",
    "float64": "Float64",
    "float32": "Float32",
    "string": "String",
    "bool": "Bool",
    "timestamp": "UnixTimestamp",
    "bytes": "Bytes",
}
_KINDS = {
    "Project": "project",
    "Entity": "entity",
    "FeatureView": "feature_view",
    "BatchFeatureView": "feature_view",
    "StreamFeatureView": "stream_feature_view",
    "OnDemandFeatureView": "on_demand_feature_view",
    "LabelView": "label_view",
    "FeatureService": "feature_service",
    "Permission": "permission",
}
#: What a registry adds to an object, and what differs each time a function is pickled.
_VOLATILE = {
    "meta",
    "project",
    "body",
    "createdTimestamp",
    "lastUpdatedTimestamp",
    "state",
    "currentVersionNumber",
}
#: Told apart from the rest of a view, by names of our own.
_TOLD = {"name", "entities", "features", "entityColumns", "batchSource", "ttl", "version"}
_ABOUT = ("description", "tags", "owner")
_FIELDS = {
    "feature_view": (
        "kind", "name", "entities", "ttl_seconds", "timestamp", "created", "features", "source", "description",
        "tags", "owner", "online", "absent",
    ),
    "feature_service": ("kind", "name", "views", "description", "tags", "owner", "absent"),
    "entity": ("kind", "name", "absent"),
}  # fmt: skip


@dataclass(frozen=True)
class FeastObjects:
    """What shall be in the registry, and what shall not.

    :param wanted: Feast's objects by kind and name; entities come before views, views before services.
    :param absent: objects to remove.
    """

    wanted: dict[Key, Any] = field(default_factory=dict)
    absent: tuple[Key, ...] = ()


def build_objects(
    definitions: Sequence[Mapping[str, Any]], offline_store: str, view: Callable[[str], FeatureView]
) -> FeastObjects:
    """Make Feast's objects of definitions.

    :param definitions: feature views and services as JSON values; with ``absent: true`` beside kind and name, an
        object to remove.
    :param offline_store: type of the store, which decides about sources.
    :param view: finds a view of the registry that a service names and the definitions lack.
    :raises FeatureStoreError: a definition cannot be meant.
    """
    import_feast()
    wanted: dict[Key, Any] = {}
    absent: list[Key] = []
    for definition in sorted(definitions, key=lambda found: found.get("kind") == "feature_service"):
        _check(definition)
        key: Key = (definition["kind"], definition["name"])
        if definition.get("absent"):
            absent.append(key)
            continue
        if key in wanted:
            raise FeatureStoreError(f"{key[0]} {key[1]!r} is defined twice; rename one of them")
        with feast_errors(f"{key[0]} {key[1]!r}"):
            if key[0] == "feature_view":
                entities = [_entity(found, wanted) for found in definition.get("entities") or ()]
                wanted[key] = _view(definition, entities, offline_store)
            else:
                wanted[key] = _service(definition, wanted, view)
    order = ("entity", "feature_view", "feature_service")
    return FeastObjects(dict(sorted(wanted.items(), key=lambda item: order.index(item[0][0]))), tuple(absent))


def kind_of(thing: Any) -> str:
    """Kind of one of Feast's objects, as definitions name it."""
    return _KINDS.get(type(thing).__name__, "data_source")


def describe(thing: Any) -> dict[str, Any]:
    """What matters of an object, whether it comes from a definition, a repository or the registry."""
    kind = kind_of(thing)
    about = {name: _plain(getattr(thing, name, None)) for name in _ABOUT}
    about = {name: value for name, value in about.items() if value}
    if kind == "entity":
        return {"join_key": thing.join_key, "type": thing.value_type.name, **about}
    if kind == "feature_service":
        return {
            "views": {_used(member): _member(member) for member in thing.feature_view_projections},
            **about,
        }
    if not kind.endswith("view"):
        return _spec(thing)
    told = {
        "entities": [name for name in getattr(thing, "entities", ()) if name != "__dummy"],
        "join_keys": {
            column.name: str(column.dtype)
            for column in getattr(thing, "entity_columns", ())
            if column.name != "__dummy_id"
        },
        "features": {feature.name: str(feature.dtype) for feature in thing.features},
    }
    if ttl := getattr(thing, "ttl", None):
        told["ttl_seconds"] = ttl.total_seconds()
    if (source := getattr(thing, "batch_source", None)) is not None:
        told["timestamp"] = source.timestamp_field
        told["created"] = source.created_timestamp_column or ""
        told["source"] = {"class": type(source).__name__, **_spec(source)}
    return {**told, **{name: value for name, value in _spec(thing).items() if name not in _TOLD}}


def _check(definition: Mapping[str, Any]) -> None:
    kind, name = definition.get("kind"), definition.get("name")
    if kind not in _FIELDS or not name:
        raise FeatureStoreError(
            f"a definition has kind {kind!r} and name {name!r}; expected a name, and kind {' or '.join(_FIELDS)}"
        )
    expected = _FIELDS[kind]
    for key in definition:
        if key not in expected:
            near = difflib.get_close_matches(key, expected, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise FeatureStoreError(f"{kind} {name!r}: unknown {key!r}, expected {', '.join(expected)}{hint}")
    needed = {"feature_view": ("timestamp", "features", "source"), "feature_service": ("views",)}.get(
        kind, ()
    )
    if missing := [key for key in needed if not definition.get(key) and not definition.get("absent")]:
        raise FeatureStoreError(f"{kind} {name!r} has no {' and no '.join(missing)}")
    if kind == "entity" and not definition.get("absent"):
        raise FeatureStoreError(f"entity {name!r}: entities are defined by the views that use them")


def _entity(found: Mapping[str, Any], wanted: dict[Key, Any]) -> Entity:
    from feast import Entity, ValueType

    name, join_key = str(found["name"]), str(found.get("join_key") or found["name"])
    kind = str(found.get("type") or "string")
    if kind not in ("string", "int64", "int32", "bytes"):
        raise FeatureStoreError(f"entity {name!r} has type {kind!r}; expected string, int64, int32 or bytes")
    made = Entity(name=name, join_keys=[join_key], value_type=ValueType[kind.upper()])
    before = wanted.setdefault(("entity", name), made)
    if describe(before) != describe(made):
        raise FeatureStoreError(
            f"entity {name!r} is defined twice and differently: {describe(before)} and {describe(made)}"
        )
    return before  # type: ignore[no-any-return]


def _type(kind: str, where: str) -> Any:
    from feast import types

    if inner := _LIST.fullmatch(kind):
        return types.Array(_type(inner[1], where))
    if kind not in _TYPES:
        raise FeatureStoreError(f"{where} has type {kind!r}; expected {', '.join(_TYPES)} or list[…] of them")
    return getattr(types, _TYPES[kind])


def _view(definition: Mapping[str, Any], entities: list[Entity], offline_store: str) -> FeatureView:
    from feast import FeatureView, Field
    from feast.types import from_value_type

    keys = [Field(name=entity.join_key, dtype=from_value_type(entity.value_type)) for entity in entities]
    features = [
        Field(name=found["name"], dtype=_type(str(found["type"]), f"feature {found['name']!r}"))
        for found in definition["features"]
    ]
    return FeatureView(
        name=definition["name"],
        entities=entities,
        ttl=timedelta(seconds=float(definition.get("ttl_seconds") or 0)),
        schema=[*keys, *features],
        source=batch_source(offline_store, definition),
        online=bool(definition.get("online", False)),
        description=definition.get("description") or "",
        tags=dict(definition.get("tags") or {}),
        owner=definition.get("owner") or "",
    )


def _service(
    definition: Mapping[str, Any], wanted: Mapping[Key, Any], lookup: Callable[[str], FeatureView]
) -> FeatureService:
    from feast import FeatureService

    members, names = [], [member["view"] for member in definition["views"]]
    for member in definition["views"]:
        name = member["view"]
        found: Any = wanted.get(("feature_view", name)) or lookup(name)
        known = [feature.name for feature in found.features]
        if features := member.get("features"):
            for feature in features:
                if feature not in known:
                    near = difflib.get_close_matches(feature, known, n=1)
                    hint = f"; did you mean {near[0]!r}?" if near else ""
                    raise FeatureStoreError(
                        f"feature service {definition['name']!r}: view {name!r} has no feature {feature!r}, "
                        f"it has {', '.join(known)}{hint}"
                    )
            found = found[list(features)]
        if member.get("alias") or names.count(name) > 1:
            # Feast sorts the views of a service, which it cannot when one has an alias and the same one has none.
            found = found.with_name(member.get("alias") or name)
        if member.get("join_keys"):
            found = found.with_join_key_map(dict(member["join_keys"]))
        members.append(found)
    return FeatureService(
        name=definition["name"],
        features=members,
        description=definition.get("description") or "",
        tags=dict(definition.get("tags") or {}),
        owner=definition.get("owner") or "",
    )


def _used(member: Any) -> str:
    return str(member.name_to_use())


def _member(member: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "view": member.name,
        "features": {feature.name: str(feature.dtype) for feature in member.features},
    }
    return {**found, "join_keys": dict(member.join_key_map)} if member.join_key_map else found


def _spec(thing: Any) -> dict[str, Any]:
    """An object as Feast would store it, without what a registry adds."""
    as_dict = importlib.import_module("google.protobuf.json_format").MessageToDict
    found: dict[str, Any] = as_dict(thing.to_proto())
    steady: dict[str, Any] = _steady(found.get("spec", found))
    return steady


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        steady = {name: _steady(inner) for name, inner in value.items() if name not in _VOLATILE}
        if "body" in value and not value.get("bodyText"):
            steady["body"] = hashlib.sha256(str(value["body"]).encode()).hexdigest()
        return steady
    return [_steady(inner) for inner in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value
