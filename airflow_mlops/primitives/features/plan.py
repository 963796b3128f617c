"""
What applying feature definitions would change, and which of it takes something away.

Objects are told by descriptions, JSON values with what matters of them: an entity has ``join_key`` and
``type``; a view has ``entities``, ``join_keys``, ``features`` (name → type), ``timestamp``, ``created``,
``source`` and more; a service has ``views`` (name in the service → ``view``, ``features``, ``join_keys``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from airflow_mlops.exceptions import FeatureStoreError

__all__ = ["Change", "Difference", "FeaturePlan", "Key", "columns_of", "plan_features"]

#: Kind and name of an object.
Key = tuple[str, str]
Action = Literal["add", "change", "remove"]

_SIGNS = {"add": "+", "change": "~", "remove": "-"}
_SHOWN = 60


@dataclass(frozen=True)
class Difference:
    """One value that changes.

    :param path: where it is in the description, such as ``features.temp``.
    :param before: its value now; ``None`` when there is none.
    :param after: its value then, likewise.
    :param harm: what the change takes away, or empty.
    """

    path: str
    before: Any
    after: Any
    harm: str = ""

    def __str__(self) -> str:
        text = f"{self.path}: {_short(self.before)} → {_short(self.after)}"
        return f"{text} (destructive: {self.harm})" if self.harm else text

    def to_json(self) -> dict[str, Any]:
        """As a JSON value."""
        found = {"path": self.path, "before": self.before, "after": self.after}
        return {**found, "destructive": self.harm} if self.harm else found


@dataclass(frozen=True)
class Change:
    """One object that is added, changed or removed."""

    action: Action
    kind: str
    name: str
    differences: tuple[Difference, ...] = ()
    harm: str = ""

    @property
    def key(self) -> Key:
        """Kind and name."""
        return self.kind, self.name

    @property
    def harms(self) -> tuple[str, ...]:
        """What it takes away, in sentences."""
        what = f"{self.kind} {self.name}"
        inner = tuple(f"{what}: {found.path} ({found.harm})" for found in self.differences if found.harm)
        return ((f"{what}: removed ({self.harm})",) if self.harm else ()) + inner

    def __str__(self) -> str:
        lines = [f"{_SIGNS[self.action]} {self.kind} {self.name}"]
        if self.harm:
            lines[0] += f" (destructive: {self.harm})"
        return "\n    ".join([*lines, *(str(found) for found in self.differences)])

    def to_json(self) -> dict[str, Any]:
        """As a JSON value."""
        found: dict[str, Any] = {"action": self.action, "kind": self.kind, "name": self.name}
        if self.differences:
            found["differences"] = [difference.to_json() for difference in self.differences]
        return {**found, "destructive": list(self.harms)} if self.harms else found


@dataclass(frozen=True)
class FeaturePlan:
    """All changes, and how many objects stay as they are."""

    changes: tuple[Change, ...] = ()
    unchanged: int = 0
    broken: tuple[str, ...] = field(default=())

    @property
    def harms(self) -> tuple[str, ...]:
        """What the changes take away."""
        return tuple(harm for change in self.changes for harm in change.harms)

    def keys(self, *actions: Action) -> tuple[Key, ...]:
        """Objects with one of these actions."""
        return tuple(change.key for change in self.changes if change.action in actions)

    def check(self, *, destructive: bool) -> None:
        """Make sure that the plan may be carried out.

        :param destructive: whether something may be taken away.
        :raises FeatureStoreError: it takes something away, or leaves a service without its view.
        """
        if self.broken:
            raise FeatureStoreError(
                "these changes would leave feature services without what they read: "
                f"{'; '.join(self.broken)}. Change or remove those services in the same step"
            )
        if self.harms and not destructive:
            raise FeatureStoreError(
                f"{len(self.harms)} destructive change(s) of feature definitions, nothing was applied:\n  "
                + "\n  ".join(self.harms)
                + "\nGive the new definition another name (weather_v2) and keep the old one while models use it, "
                "or set destructive=True if nobody does"
            )

    def __str__(self) -> str:
        if not self.changes:
            return f"no change; {self.unchanged} object(s) are as defined"
        return "\n".join([*(str(change) for change in self.changes), f"  {self.unchanged} unchanged"])

    def to_json(self) -> dict[str, Any]:
        """As a JSON value."""
        return {
            "changes": [change.to_json() for change in self.changes],
            "unchanged": self.unchanged,
            "destructive": list(self.harms),
        }


def columns_of(definitions: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """The columns that each feature view of these definitions reads, by the view's name."""
    found = {}
    for view in definitions:
        if view.get("kind") == "feature_view" and not view.get("absent"):
            names = [entity.get("join_key") or entity["name"] for entity in view.get("entities") or ()]
            names += [view["timestamp"], *([view["created"]] if view.get("created") else [])]
            names += [feature["name"] for feature in view.get("features") or ()]
            found[str(view["name"])] = tuple(dict.fromkeys(names))
    return found


def plan_features(
    there: Mapping[Key, Mapping[str, Any]],
    wanted: Mapping[Key, Mapping[str, Any]],
    absent: tuple[Key, ...] = (),
) -> FeaturePlan:
    """Compare what the registry holds with what it should.

    Objects of the registry that are neither wanted nor absent are left alone: they belong to others.

    :param there: descriptions of the registry's objects.
    :param wanted: descriptions of the objects as defined.
    :param absent: objects that shall not be there.
    """
    used = _uses({**there, **wanted}, absent)
    changes: list[Change] = []
    for key, after in wanted.items():
        before = there.get(key)
        if before is None:
            changes.append(Change("add", *key))
        elif found := tuple(_judged(key, before, after, used)):
            changes.append(Change("change", *key, found))
    removed = [key for key in absent if key in there]
    changes += [Change("remove", *key, harm=_removal(key, used)) for key in removed]
    broken = tuple(
        f"service {service} reads {name}"
        for kind, name in removed
        if kind.endswith("view")
        for service in sorted(used.get((name, None), ()))
    )
    unchanged = len(wanted) - sum(change.action != "remove" for change in changes)
    return FeaturePlan(tuple(changes), unchanged, broken)


def _uses(
    objects: Mapping[Key, Mapping[str, Any]], absent: tuple[Key, ...]
) -> dict[tuple[str, str | None], set[str]]:
    """(view, feature) → services that read it; feature ``None`` for any."""
    used: dict[tuple[str, str | None], set[str]] = {}
    for (kind, service), description in objects.items():
        if kind != "feature_service" or (kind, service) in absent:
            continue
        for member in description.get("views", {}).values():
            for feature in (None, *member.get("features", {})):
                used.setdefault((member["view"], feature), set()).add(service)
    return used


def _removal(key: Key, used: Mapping[tuple[str, str | None], set[str]]) -> str:
    kind, name = key
    if services := sorted(used.get((name, None), ())):
        return f"feature service(s) {', '.join(services)} read it"
    return (
        "training sets that name it can no longer be made" if kind != "entity" else "views are joined by it"
    )


def _judged(
    key: Key,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    used: Mapping[tuple[str, str | None], set[str]],
) -> Iterator[Difference]:
    found = tuple(_differences("", before, after))
    gained = {
        difference.path: difference.after
        for difference in found
        if difference.path.startswith("features.") and difference.before is None
    }
    for difference in found:
        harm = _harm(key, difference, used)
        if harm and difference.path.startswith("features.") and difference.after is None:
            alike = [
                path.removeprefix("features.") for path, kind in gained.items() if kind == difference.before
            ]
            harm += (
                f"; it looks renamed to {alike[0]}, which is a removal and an addition"
                if len(alike) == 1
                else ""
            )
        yield Difference(difference.path, difference.before, difference.after, harm)


def _harm(key: Key, difference: Difference, used: Mapping[tuple[str, str | None], set[str]]) -> str:
    kind, name = key
    top, _, rest = difference.path.partition(".")
    if difference.before in (None, "", {}):
        # Something new takes nothing away, but a key that is new joins other rows.
        joins = top in ("entities", "join_keys") or ".join_keys" in rest
        return "it is joined by something else" if joins else ""
    if kind == "entity":
        return "views and the online store are keyed by it" if top in ("join_key", "type") else ""
    if kind == "feature_service":
        return _harm_to_service(top, rest, difference)
    return _harm_to_view(name, top, rest, difference, used) if kind.endswith("view") else ""


def _harm_to_view(
    name: str,
    top: str,
    feature: str,
    difference: Difference,
    used: Mapping[tuple[str, str | None], set[str]],
) -> str:
    if top == "features":
        services = sorted(used.get((name, feature), ()))
        by = f", which feature service(s) {', '.join(services)} read" if services else ""
        return f"{'removes a feature' if difference.after is None else 'changes its type'}{by}"
    return {
        "entities": "the view is joined by something else",
        "join_keys": "the view is joined by something else",
        "timestamp": "rows get another time",
        "created": "rows count from another time; without one, corrections leak into the past",
    }.get(top, "")


def _harm_to_service(top: str, rest: str, difference: Difference) -> str:
    if top != "views":
        return ""
    if rest.endswith((".view", ".join_keys")) or ".join_keys." in rest:
        return "models get other values under the same names"
    return "models of this service expect it" if difference.after is None or ".features." in rest else ""


def _differences(path: str, before: Any, after: Any) -> Iterator[Difference]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in dict.fromkeys((*before, *after)):
            yield from _differences(f"{path}.{name}" if path else name, before.get(name), after.get(name))
    elif before != after:
        yield Difference(path, before, after)


def _short(value: Any) -> str:
    text = "nothing" if value in (None, "", {}, []) else str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
