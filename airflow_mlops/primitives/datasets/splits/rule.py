"""How examples are divided: the rule of a YAML file, and times as they stand in rules and manifests."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow_mlops.exceptions import DataError, SpecError
from airflow_mlops.spec.values import duration, format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SPLITS", "By", "SplitRule", "iso", "parse_split", "parse_time"]

By = Literal["time", "hash", "group", "column"]

SPLITS = ("train", "validation", "test")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FOLDS = 100


@dataclass(frozen=True)
class SplitRule:
    """A split as it was asked for.

    :param by: ``time``, ``hash``, ``group`` or ``column``.
    :param shares: share of each split, in the order of ``SPLITS``; empty for ``column``.
    :param gap: time left out behind each bound, of ``time``.
    :param key: columns whose hash decides, of ``hash``, ``group`` and folds; none for the examples' keys.
    :param stratify: column in whose classes the shares hold.
    :param folds: number of folds within train; 0 for none.
    :param column: column that says the split.
    :param values: split by the text of that column's value.
    :param freeze: id or reference of the version whose test examples stay the test.
    :param seed: another number makes another division by hash.
    """

    by: By
    shares: Mapping[str, float] = field(default_factory=dict)
    gap: timedelta = timedelta(0)
    key: tuple[str, ...] = ()
    stratify: str | None = None
    folds: int = 0
    column: str | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    freeze: str | None = None
    seed: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The splits that must not be empty, in order."""
        asked = self.shares
        if self.by == "column":
            # Values that nobody listed may be absent; without train there is nothing to learn from.
            named = self.values.values() if self.values != _same() else ["train"]
            asked = dict.fromkeys(named, 1.0)
        return tuple(name for name in SPLITS if asked.get(name) or (self.freeze and name == "test"))

    @property
    def columns(self) -> tuple[str, ...]:
        """The examples' columns that it names."""
        named = [*self.key, *(name for name in (self.stratify, self.column) if name)]
        return tuple(dict.fromkeys(named))

    @property
    def words(self) -> str:
        """The rule in words, as an author says it: ``by time, train 0.7, test 0.3, gap 7d``."""
        said = [
            f"by {self.by}",
            *(f"{name} {self.shares[name]:g}" for name in SPLITS if self.shares.get(name)),
        ]
        if self.gap:
            said.append(f"gap {format_duration(self.gap)}")
        said += [f"{name} {', '.join(of)}" for name, of in (("key", self.key),) if of]
        said += [f"{name} {of}" for name, of in (("column", self.column), ("stratify", self.stratify)) if of]
        return ", ".join([*said, *([f"folds {self.folds}"] if self.folds else [])])

    def to_json(self) -> dict[str, Any]:
        """What decides about the division, as JSON values; the key must be settled."""
        found: dict[str, Any] = {"by": self.by}
        if self.shares:
            found["shares"] = {name: self.shares[name] for name in SPLITS if self.shares.get(name)}
        if self.by == "time":
            found["gap_seconds"] = self.gap.total_seconds()
        if self.key:
            found |= {"key": list(self.key), "seed": self.seed}
        if self.column:
            found |= {"column": self.column, "values": dict(self.values)}
        if self.stratify:
            found["stratify"] = self.stratify
        if self.folds:
            found["folds"] = self.folds
        return found


def parse_split(rule: Mapping[str, Any] | None) -> SplitRule | None:
    """Read a split as a YAML file states it.

    :return: ``None`` for no rule: all rows in one split.
    :raises SpecError: something is unknown, missing, or does not go together.
    """
    given = {key: value for key, value in (rule or {}).items() if value is not None}
    if not given:
        return None
    by = given.pop("by", "time")
    if by not in get_args(By):
        raise SpecError(f"split: by {by!r} is unknown, expected {', '.join(get_args(By))}")
    if by == "column":
        given = {key: value for key, value in given.items() if key not in SPLITS}
    key = given.pop("key", ())
    parsed = SplitRule(
        by=by,
        shares=_shares({name: given.pop(name) for name in SPLITS if name in given}, by),
        gap=_gap(given.pop("gap", None)),
        key=(key,) if isinstance(key, str) else tuple(key),
        stratify=given.pop("stratify", None),
        folds=given.pop("folds", 0),
        column=given.pop("column", None),
        values=_values(given.pop("values", None)) if by == "column" else given.pop("values", {}),
        freeze=given.pop("freeze", None),
        seed=given.pop("seed", 0),
    )
    if given:
        raise SpecError(f"split: unknown name(s) {', '.join(given)}; splits are {', '.join(SPLITS)}")
    _check(parsed)
    return parsed


def iso(microseconds: int) -> str:
    """A time in microseconds since 1970 as ISO 8601 UTC."""
    return (_EPOCH + timedelta(microseconds=microseconds)).isoformat()


def parse_time(text: str | datetime) -> int:
    """ISO 8601 to microseconds since 1970; a time without zone is UTC.

    :raises DataError: it is not a time.
    """
    try:
        moment = text if isinstance(text, datetime) else datetime.fromisoformat(str(text).strip())
    except ValueError as error:
        raise DataError(
            f"{text!r} is no time: expected ISO 8601 such as 2013-07-01T00:00:00+00:00"
        ) from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _shares(shares: dict[str, float], by: str) -> dict[str, float]:
    if by == "column":
        return {}
    if any(not 0 <= share <= 1 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        raise SpecError(f"split: shares must lie in [0, 1] and sum to 1, got {shares}")
    return shares


def _gap(gap: Any) -> timedelta:
    try:
        return duration(gap or timedelta(0))
    except ValueError as error:
        raise SpecError(f"split: gap {gap!r} {error}; expected such as 0s, 12h or 7d") from error


def _values(values: Mapping[str, Any] | None) -> dict[str, str]:
    """Split by value, from values by split."""
    found: dict[str, str] = {}
    for name, given in (values or _same()).items():
        if name not in SPLITS:
            raise SpecError(f"split: values: {name!r} is no split; splits are {', '.join(SPLITS)}")
        for value in given if isinstance(given, (list, tuple)) else (given,):
            text = str(value).lower() if isinstance(value, bool) else str(value)
            if text in found:
                raise SpecError(f"split: values: {text!r} stands for {found[text]} and for {name}")
            found[text] = name
    return found


def _same() -> dict[str, str]:
    return {name: name for name in SPLITS}


def _check(rule: SplitRule) -> None:
    """Refuse what does not go together; the YAML's own checks say the same with line and cure."""
    hashed = rule.by in ("hash", "group")
    wrong = {
        "gap": rule.gap and rule.by != "time",
        "key": rule.key and not (hashed or (rule.by == "column" and rule.folds)),
        "stratify": rule.stratify and not hashed,
        "column": rule.column and rule.by != "column",
        "values": rule.values and rule.by != "column",
    }
    if odd := [name for name, found in wrong.items() if found]:
        raise SpecError(f"split: by {rule.by} has no use for {', '.join(odd)}; leave it out")
    if rule.by == "group" and not rule.key:
        raise SpecError("split: by group needs key, the column(s) that name a group")
    if rule.by == "column" and not rule.column:
        raise SpecError("split: by column needs column, the column that says train, validation or test")
    if rule.folds and not 2 <= rule.folds <= _FOLDS:
        raise SpecError(f"split: folds {rule.folds!r}: expected 2 to {_FOLDS}")
    if rule.freeze and not any(rule.shares.get(name) for name in ("train", "validation")) and rule.shares:
        raise SpecError("split: freeze leaves the test alone, so train needs a share")
