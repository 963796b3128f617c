"""How examples are divided: the rule of a YAML file, and times as they stand in rules and manifests."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow_mlops.exceptions import DataError
from airflow_mlops.spec.values import format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_mlops.spec.data.split import Split, SplitValues

__all__ = ["SPLITS", "By", "SplitRule", "iso", "parse_split", "parse_time"]

By = Literal["time", "hash", "group", "column"]

SPLITS = ("train", "validation", "test")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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

    @classmethod
    def of(cls, section: Split) -> SplitRule:
        """The rule of a section that was read."""
        shares = {} if section.by == "column" else {name: getattr(section, name) for name in SPLITS}
        return cls(
            by=section.by,
            shares={name: share for name, share in shares.items() if share is not None},
            gap=section.gap,
            key=section.key or (),
            stratify=section.stratify,
            folds=section.folds or 0,
            column=section.column,
            values=_by_value(section.values) if section.by == "column" else {},
            freeze=section.freeze,
            seed=section.seed,
        )

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
    """Read ``provisioning.split``.

    :return: ``None`` for no rule: all rows in one split.
    :raises SpecError: a key or a value that the YAML refuses as well.
    """
    from airflow_mlops.spec.data.split import Split
    from airflow_mlops.spec.reading.sections import read_section

    given = {key: value for key, value in (rule or {}).items() if value is not None}
    return SplitRule.of(read_section(Split, "split", given)) if given else None


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


def _by_value(values: SplitValues | None) -> dict[str, str]:
    """Split by the text of a value, from values by split."""
    if values is None:
        return _same()
    return {
        str(value).lower() if isinstance(value, bool) else str(value): name
        for name in SPLITS
        for value in getattr(values, name) or ()
    }


def _same() -> dict[str, str]:
    return {name: name for name in SPLITS}
