"""Writes readings of pumps into ``data/readings.parquet``: few are faulty, and of fewer still it is known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def readings(count: int = 20_000, faulty: float = 0.01, known: float = 0.2, seed: int = 7) -> pa.Table:
    """Readings; ``fault`` is 0, 1, or null where nobody looked."""
    random = np.random.default_rng(seed)
    load = random.uniform(0.3, 1.0, count)
    columns = np.column_stack([2 + 3 * load, 40 + 30 * load, 6 - 2 * load, 10 + 25 * load])
    columns += random.normal(size=columns.shape) * (0.2, 1.5, 0.15, 1.0)
    fault = random.random(count) < faulty
    # A worn bearing: each value by itself is usual, but not at this load.
    columns[fault] += random.normal(size=(fault.sum(), 4)) * 0.2 + (1.5, 9.0, -0.9, 0.0)
    looked = random.random(count) < known
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    names = ("vibration", "temperature", "pressure", "current")
    return pa.table(
        {
            "reading_id": range(count),
            "read_at": [begin + timedelta(minutes=number) for number in range(count)],
            **dict(zip(names, columns.T, strict=True)),
            "fault": pa.array(fault.astype("int64"), mask=~looked),
        }
    )


if __name__ == "__main__":
    folder = Path(__file__).with_name("data")
    folder.mkdir(exist_ok=True)
    pq.write_table(readings(), folder / "readings.parquet")
