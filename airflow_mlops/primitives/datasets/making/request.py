"""Which dataset is wanted, and what a feature store must be able to do for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from airflow_mlops.exceptions import SpecError
from airflow_mlops.primitives.assumptions import Assumption, parse_assumptions
from airflow_mlops.primitives.datasets.query import ExamplesQuery
from airflow_mlops.primitives.datasets.splits.rule import SplitRule, parse_split, parse_time
from airflow_mlops.spec.values import duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta
    from pathlib import Path

    from airflow_mlops.primitives.datasets.manifest import Purpose

__all__ = ["DatasetRequest", "FeatureJoin", "JoinPlan", "TrainingSet"]


@dataclass(frozen=True)
class JoinPlan:
    """What a join of features would do, known before it is done.

    :param references: ``view:feature`` of each feature, by the name of its column, in order of the service.
    :param views: what is joined, as JSON values.
    :param semantics: name of the rules of the join.
    :param pins: the files behind the features, as the manifest keeps them.
    :param options: settings of the store that decide about values.
    """

    references: Mapping[str, str]
    views: tuple[Mapping[str, Any], ...]
    semantics: str
    pins: tuple[Mapping[str, Any], ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingSet:
    """Examples with their features in a Parquet file, and how they came about.

    :param path: the file; the order of its rows means nothing.
    :param rows: number of its rows.
    :param references: ``view:feature`` of each feature, by the name of its column, in order of the service.
    :param views: what was joined, as JSON values.
    :param semantics: name of the rules of the join.
    :param files: local files that the features came from, where there are no ``pins``.
    :param pins: the files behind the features, as the manifest keeps them.
    :param options: settings of the store that decide about values.
    """

    path: Path
    rows: int
    references: dict[str, str]
    views: tuple[dict[str, Any], ...]
    semantics: str
    files: tuple[str, ...] = field(default=(), repr=False)
    pins: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)


class FeatureJoin(Protocol):
    """What a feature store must be able to do: :class:`~airflow_mlops.hooks.feast.hook.FeastHook` can.

    It may also have ``plan_join(feature_service, between) -> JoinPlan | None``: what a join of examples
    between two moments would do, or ``None`` where that cannot be known or be repeated. Only with it are
    joined rows taken from earlier versions.
    """

    def entity_columns(self, feature_service: str) -> tuple[str, ...]:
        """Columns that examples must bring along."""
        ...

    def training_set(self, feature_service: str, entity_sql: str, destination: Path) -> TrainingSet:
        """Join the features as they were known at each example's ``event_timestamp``."""
        ...


@dataclass(frozen=True)
class DatasetRequest:
    """Which dataset is wanted.

    :param application: whose it is.
    :param purpose: ``training`` or ``prediction``.
    :param examples: where examples come from.
    :param features: feature service, if any.
    :param window: length of the window, if it is limited.
    :param start: examples lie after it; microseconds since 1970 UTC.
    :param end: up to it, likewise.
    :param rule: how examples are divided; ``None`` for one split of all.
    :param assumptions: what the rows must keep.
    """

    application: str
    purpose: Purpose
    examples: ExamplesQuery
    features: str | None = None
    window: timedelta | None = None
    start: int | None = None
    end: int | None = None
    rule: SplitRule | None = None
    assumptions: tuple[Assumption, ...] = ()

    @classmethod
    def parse(
        cls,
        *,
        application: str,
        purpose: Purpose,
        examples: Mapping[str, Any],
        features: str | None,
        window: str | None,
        window_start: str | None,
        window_end: str | None,
        split: Mapping[str, Any] | None,
        assumptions: Sequence[Mapping[str, Any]] | None,
    ) -> DatasetRequest:
        """Read a request from the JSON values of a YAML file and of templates.

        :raises SpecError: something cannot be meant.
        :raises DataError: an end of the window is no time.
        """
        if purpose not in ("training", "prediction"):
            raise SpecError(f"purpose {purpose!r} is unknown, expected training or prediction")
        # A template of nothing renders as the text None.
        start, end = (
            parse_time(text) if text and text != "None" else None for text in (window_start, window_end)
        )
        try:
            length = duration(window) if window else None
        except ValueError as error:
            raise SpecError(f"window {window!r} {error}; expected such as 90d, 24h or 30m") from error
        return cls(
            application=application,
            purpose=purpose,
            examples=ExamplesQuery.from_mapping(examples),
            features=None if features in ("", "None") else features,
            window=length,
            start=start,
            end=end,
            rule=parse_split(split),
            assumptions=parse_assumptions(assumptions or ()),
        )

    @property
    def division(self) -> SplitRule | None:
        """The rule that counts: a prediction is not divided."""
        return None if self.purpose == "prediction" else self.rule

    @property
    def split_column(self) -> str | None:
        """Column that says the split, which is no model input."""
        return self.rule.column if self.rule else None
