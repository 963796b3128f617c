from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_mlops.contract import Paths
from tests.unit.contract.tiny import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROWS = [{"id": i, "at": f"2013-01-0{1 + i % 9}", "group": "ab"[i % 2], "x": i, "y": i % 2} for i in range(20)]


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., Paths]:
    """Write the inputs of one job of the tiny model code; more keys go into mlops.json."""

    def write(parameters: dict[str, Any] | None = None, **config: Any) -> Paths:
        paths = Paths(tmp_path / "ml")
        for split in ("train", "validation", "test", "predict"):
            paths.split(split).mkdir(parents=True, exist_ok=True)
            (paths.split(split) / "part-0.parquet").write_text(json.dumps(ROWS))
        paths.config.parent.mkdir(parents=True, exist_ok=True)
        content = {"contract": 1, "parameters": parameters or {}, "seed": 7, "columns": COLUMNS, **config}
        paths.config.write_text(json.dumps(content))
        return paths

    return write
