"""What a tuning may try: the parameters that the model code offers, narrowed by the YAML."""

from __future__ import annotations

from airflow_mlops.primitives.training.search_space.dimension import Dimension
from airflow_mlops.primitives.training.search_space.space import (
    GRID_LIMIT,
    default_point,
    grid,
    search_space,
    search_space_json,
)

__all__ = ["GRID_LIMIT", "Dimension", "default_point", "grid", "search_space", "search_space_json"]
