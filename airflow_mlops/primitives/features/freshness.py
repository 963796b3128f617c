"""Whether the rows of a feature view are young enough."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_mlops.exceptions import SpecError
from airflow_mlops.spec.values import duration

__all__ = ["Freshness", "parse_age"]


@dataclass(frozen=True)
class Freshness:
    """A view at a moment.

    :param name: of the view.
    :param newest: event time of its newest row; ``None`` when it has none.
    :param moment: when it was looked at.
    :param max_age: how old that row may be.
    """

    name: str
    newest: datetime | None
    moment: datetime
    max_age: timedelta

    @property
    def fresh(self) -> bool:
        """Whether the newest row is young enough."""
        return self.newest is not None and self.moment - self.newest <= self.max_age

    def __str__(self) -> str:
        at = f"at {self.moment:%Y-%m-%d %H:%M:%S%z}"
        if self.newest is None:
            return f"feature view {self.name!r} has no row {at}; expected one not older than {self.max_age}"
        age = timedelta(seconds=round((self.moment - self.newest).total_seconds()))
        state = "fresh" if self.fresh else "stale"
        return (
            f"feature view {self.name!r} is {state} {at}: its newest row is of {self.newest:%Y-%m-%d %H:%M:%S%z}, "
            f"{age} old; at most {self.max_age} is allowed"
        )


def parse_age(text: str) -> timedelta:
    """An age such as ``2h``.

    :raises SpecError: it is none, or zero.
    """
    try:
        age = duration(text)
    except ValueError as error:
        raise SpecError(f"max_age {text!r} {error}; expected such as 90d, 24h or 30m") from error
    if age <= timedelta(0):
        raise SpecError(f"max_age {text!r} is nothing; expected such as 90d, 24h or 30m")
    return age
