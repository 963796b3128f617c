"""Writes customers of four kinds into ``data/customers.parquet``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

#: Visits a month, money a visit, days since the last visit, share of returns.
KINDS = [(2, 120, 20, 0.05), (12, 25, 3, 0.02), (1, 15, 90, 0.3), (6, 60, 8, 0.15)]
SPREAD = (0.8, 8, 4, 0.02)


def customers(count: int = 4000, seed: int = 7) -> pa.Table:
    """Customers, and when each was looked at."""
    random = np.random.default_rng(seed)
    rows = np.array(KINDS)[random.integers(len(KINDS), size=count)] + random.normal(size=(count, 4)) * SPREAD
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    names = ("visits", "spend", "days_since_last", "returned_share")
    return pa.table(
        {
            "customer_id": range(count),
            "seen_at": [begin + timedelta(minutes=10 * number) for number in range(count)],
            **dict(zip(names, rows.clip(min=0).T, strict=True)),
        }
    )


if __name__ == "__main__":
    folder = Path(__file__).with_name("data")
    folder.mkdir(exist_ok=True)
    pq.write_table(customers(), folder / "customers.parquet")
