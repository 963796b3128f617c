"""How long a prediction takes."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Rows = TypeVar("Rows")

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


def latencies(predict: Callable[[Rows], object], batches: Iterable[Rows]) -> Iterator[tuple[str, float, int]]:
    """Name of a quantile, seconds of a call, and number of calls.

    :param predict: what is timed; its first call goes before, untimed.
    :raises ValueError: there is no batch.
    """
    seconds: list[float] = []
    for batch in batches:
        if not seconds:
            predict(batch)
        began = time.perf_counter()
        predict(batch)
        seconds.append(time.perf_counter() - began)
    if not seconds:
        raise ValueError("There is no batch to measure a latency of.")
    seconds.sort()
    for name, share in QUANTILES.items():
        yield name, seconds[max(math.ceil(share * len(seconds)) - 1, 0)], len(seconds)
