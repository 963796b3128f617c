"""The rules of a gate, as a YAML or an operator's argument says them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

About = Literal["metric", "fairness", "latency", "size"]

#: Fairness by rates of decisions; any other name is a metric whose gap is taken.
RATES = ("demographic_parity", "equal_opportunity")
CONFIDENCE = 0.95
MINIMUM_ROWS = 200


@dataclass(frozen=True)
class Rule:
    """One rule.

    :param about: what is judged.
    :param name: of the metric, of the rate, of the latency's quantile.
    :param slice: one part of the split, as ``origin=JFK``.
    :param per_slice: columns; the rule must hold in each of their values.
    :param champion: whether it compares with the champion.
    :param no_worse_by: how much worse still passes, surely.
    :param better_by: how much better is asked for, surely; ``None`` when no better is asked for.
    :param confidence: how sure; ``None`` for the figure itself.
    :param lenient: whether it passes when the champion cannot be evaluated.
    :param minimum_rows: a smaller part is not judged.
    """

    about: About
    name: str
    at_least: float | None = None
    at_most: float | None = None
    split: str = "test"
    slice: str | None = None
    per_slice: tuple[str, ...] = ()
    champion: bool = False
    no_worse_by: float = 0.0
    better_by: float | None = None
    confidence: float | None = None
    lenient: bool = True
    minimum_rows: int = MINIMUM_ROWS
    column: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the split that it needs."""
        named = (self.slice.partition("=")[0].strip(),) if self.slice and "=" in self.slice else ()
        return (*self.per_slice, *((self.column,) if self.column else ()), *named)


def read_rules(stated: Sequence[Mapping[str, Any]]) -> list[Rule]:
    """Read the rules of ``evaluation.require``.

    :raises SpecError: a rule that the YAML refuses as well.
    """
    return [_read(f"evaluation.require[{number}]", given) for number, given in enumerate(stated)]


def _read(where: str, stated: Mapping[str, Any]) -> Rule:
    from airflow_mlops.spec.evaluation import Requirement
    from airflow_mlops.spec.reading.sections import read_section

    given = {key: value for key, value in stated.items() if value is not None}
    section = read_section(Requirement, where, given)
    about = next(about for about in get_args(About) if getattr(section, about) is not None)
    champion = section.against is not None
    said: dict[str, Any] = {
        "at_least": section.at_least,
        "at_most": section.at_most,
        "split": section.split,
        "slice": section.slice,
        "per_slice": section.per_slice,
        "no_worse_by": section.no_worse_by,
        "better_by": section.better_by,
        "confidence": section.confidence or (CONFIDENCE if champion else None),
        "minimum_rows": section.minimum_rows,
        "column": section.column,
    }
    return Rule(
        about=about,
        name=getattr(section, about),
        champion=champion,
        lenient=section.if_champion_fails != "fail",
        **{key: value for key, value in said.items() if value is not None},
    )
