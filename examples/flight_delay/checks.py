"""What must be true of a model before passengers are told anything."""

from __future__ import annotations

import unittest
from typing import TYPE_CHECKING

from measures import auc

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pandas as pd
    from sklearn.pipeline import Pipeline

WEATHER = (
    "temp",
    "dewp",
    "humid",
    "wind_dir",
    "wind_speed",
    "wind_gust",
    "precip",
    "pressure",
    "visib",
)


def late(model: Pipeline, flights: pd.DataFrame) -> np.ndarray:
    """Probability that each flight is late."""
    return model.predict_proba(flights)[:, 1]


def check_range(model: Pipeline, flights: pd.DataFrame) -> None:
    probability = late(model, flights)
    assert ((probability >= 0) & (probability <= 1)).all(), (
        f"probabilities from {probability.min()} to {probability.max()}"
    )
    assert probability.std() > 0.01, f"every flight is as risky as any other: sd {probability.std():.4f}"


def check_order(model: Pipeline, flights: pd.DataFrame) -> None:
    backwards = late(model, flights.iloc[::-1])[::-1]
    worst = abs(backwards - late(model, flights)).max()
    assert worst < 1e-12, f"a probability moved by {worst} when the rows were turned round"


def check_unseen(model: Pipeline, flights: pd.DataFrame, column: str) -> None:
    _need(flights, column)
    probability = late(model, flights.assign(**{column: "no such"}))
    assert ((probability >= 0) & (probability <= 1)).all()


def check_no_weather(model: Pipeline, flights: pd.DataFrame) -> None:
    weather = [name for name in WEATHER if name in flights]
    _need(flights, *weather[:1])
    probability = late(model, flights.assign(**dict.fromkeys(weather, float("nan"))))
    assert ((probability >= 0) & (probability <= 1)).all()


def check_riskier(
    model: Pipeline, flights: pd.DataFrame, bad: Mapping[str, float], good: Mapping[str, float], by: float
) -> None:
    """The same flights, once with the bad values and once with the good ones."""
    _need(flights, *bad)
    risk_bad, risk_good = (
        late(model, flights.assign(**bad)).mean(),
        late(model, flights.assign(**good)).mean(),
    )
    assert risk_bad >= risk_good + by, (
        f"mean probability {risk_bad:.3f} with {dict(bad)}, {risk_good:.3f} with {dict(good)}; "
        f"expected at least {by} more"
    )


def check_auc(model: Pipeline, flights: pd.DataFrame, features: list[str], target: str) -> None:
    """Not below one half by more than chance."""
    area, error = auc(flights[target].to_numpy(), late(model, flights[features]))
    assert area + 2 * error >= 0.5, f"AUC {area:.3f} (standard error {error:.3f}) on {len(flights)} flights"


def _need(flights: pd.DataFrame, *columns: str) -> None:
    missing = [name for name in columns if name not in flights]
    if missing or not columns:
        raise unittest.SkipTest(f"the model does not know {', '.join(missing) or 'such columns'}")
