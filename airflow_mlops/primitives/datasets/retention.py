"""Which dataset versions may go, and why each of the others stays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from airflow_mlops.exceptions import SpecError

__all__ = ["Keep", "Made", "RetentionRule", "Verdict", "VersionFacts", "decide"]


@dataclass(frozen=True)
class Keep:
    """How long versions of one retention class stay.

    :param last: that many of the newest of each line stay, however old.
    :param younger_than: all that are younger stay, however many.
    """

    last: int = 10
    younger_than: timedelta = timedelta(days=90)

    def __post_init__(self) -> None:
        if self.last < 0 or self.younger_than < timedelta(0):
            raise SpecError(
                f"retention cannot keep {self.last} versions and {self.younger_than}: give no less than 0"
            )


@dataclass(frozen=True)
class RetentionRule:
    """What stays, by retention class. A class that is not named here is kept as ``production``."""

    production: Keep = field(default_factory=Keep)
    experiment: Keep = field(default_factory=lambda: Keep(last=3, younger_than=timedelta(days=14)))

    def of(self, retention: str) -> Keep:
        """What holds for one class."""
        return self.experiment if retention == "experiment" else self.production


@dataclass(frozen=True)
class Made:
    """One time that a version was provisioned.

    :param line: the line of development, such as the reference that it moved.
    :param retention: ``production`` or ``experiment``.
    """

    time: datetime
    line: str = "latest"
    retention: str = "production"


@dataclass(frozen=True)
class VersionFacts:
    """What is known of one version.

    :param made: each time that it was provisioned, in any order; not empty.
    :param refs: names of the references that point to it.
    :param uses: who uses it, in words: a registered model, an open run, a window that waits to be measured.
    :param frozen: ids of the versions whose test it keeps.
    """

    id: str
    made: tuple[Made, ...]
    refs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()

    @property
    def newest(self) -> datetime:
        """When it was provisioned last."""
        return max(made.time for made in self.made)


@dataclass(frozen=True)
class Verdict:
    """What becomes of one version.

    :param reasons: why it stays, or why nothing holds it.
    """

    id: str
    keep: bool
    reasons: tuple[str, ...]


def decide(versions: Sequence[VersionFacts], rule: RetentionRule, now: datetime) -> list[Verdict]:
    """Judge every version; newest first.

    Whatever has a single reason to stay, stays: a reference, a use, its age, or its place among the newest of
    a line. A version that was provisioned in two lines or classes stays as long as one of them keeps it. A
    version stays as well while another one keeps its test, and itself stays for a reason of its own.

    :param now: the moment for which ages are taken. A version from the future is young.
    """
    places = _places(versions)
    ordered = sorted(versions, key=lambda version: (version.newest, version.id), reverse=True)
    verdicts = [_judge(version, rule, now, places) for version in ordered]
    return _with_frozen(verdicts, {version.id: version.frozen for version in versions})


def _judge(
    version: VersionFacts, rule: RetentionRule, now: datetime, places: Mapping[tuple[str, str, str], int]
) -> Verdict:
    reasons = [f"reference {name}" for name in sorted(version.refs)]
    reasons += [f"used by {use}" for use in version.uses]
    against: list[str] = []
    for retention, line in sorted({(made.retention, made.line) for made in version.made}):
        keep = rule.of(retention)
        place = places[retention, line, version.id]
        age = now - max(
            made.time for made in version.made if (made.retention, made.line) == (retention, line)
        )
        if place <= keep.last:
            reasons.append(f"number {place} of the {keep.last} newest {retention} versions of {line}")
        if age < keep.younger_than:
            reasons.append(f"{_days(age)} old, {retention} stays {_days(keep.younger_than)}")
        against.append(f"number {place} of {line}, {_days(age)} old, {retention}")
    return Verdict(version.id, bool(reasons), tuple(reasons or against))


def _with_frozen(verdicts: Sequence[Verdict], frozen: Mapping[str, Sequence[str]]) -> list[Verdict]:
    """The same, but that a version stays whose test is kept by one that stays.

    Not in chains: with ``freeze: latest`` each version would hold the one before it, and all would stay.
    """
    holders: dict[str, list[str]] = defaultdict(list)
    for verdict in verdicts:
        for name in frozen[verdict.id] if verdict.keep else ():
            if name != verdict.id:
                holders[name].append(verdict.id)
    return [_held(verdict, holders.get(verdict.id, ())) for verdict in verdicts]


def _held(verdict: Verdict, holders: Sequence[str]) -> Verdict:
    if not holders:
        return verdict
    others = f" and {len(holders) - 1} more" if len(holders) > 1 else ""
    reason = f"its test is frozen by version {holders[0][:12]}{others}"
    return Verdict(verdict.id, keep=True, reasons=(*(verdict.reasons if verdict.keep else ()), reason))


def _places(versions: Sequence[VersionFacts]) -> dict[tuple[str, str, str], int]:
    """Place of each version among those of its class and line, the newest being 1."""
    newest: dict[tuple[str, str], dict[str, datetime]] = defaultdict(dict)
    for version in versions:
        for made in version.made:
            group = newest[made.retention, made.line]
            group[version.id] = max(made.time, group.get(version.id, made.time))
    return {
        (*group, name): place
        for group, times in newest.items()
        for place, name in enumerate(sorted(times, key=lambda name: (times[name], name), reverse=True), 1)
    }


def _days(span: timedelta) -> str:
    hours = max(span, timedelta(0)) // timedelta(hours=1)
    return f"{hours // 24} d" if hours >= 48 else f"{hours} h"
