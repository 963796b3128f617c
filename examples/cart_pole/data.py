"""Writes the starts of episodes into ``data/episodes.parquet``: where cart and pole are, and how they move."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def episodes(count: int = 400, seed: int = 7) -> pa.Table:
    """Starts near the middle, pole nearly upright."""
    random = np.random.default_rng(seed)
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    names = ("position", "velocity", "angle", "spin")
    return pa.table(
        {
            "episode": range(count),
            "begun_at": [begin + timedelta(hours=number) for number in range(count)],
            **dict(zip(names, random.uniform(-0.05, 0.05, size=(4, count)), strict=True)),
        }
    )


if __name__ == "__main__":
    folder = Path(__file__).with_name("data")
    folder.mkdir(exist_ok=True)
    pq.write_table(episodes(), folder / "episodes.parquet")
