"""The dataset's files as tables, and predictions as a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_mlops.contract import DataError, Job

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import pandas as pd

# A model of one winter must not learn that June is unknown territory: the season is in the weather.
LEFT_OUT = ("month",)


@dataclass(frozen=True)
class Inputs:
    """The inputs of a model: numbers, then strings."""

    numbers: tuple[str, ...]
    strings: tuple[str, ...]

    @property
    def all(self) -> list[str]:
        """In the order of the model's columns."""
        return [*self.numbers, *self.strings]


def inputs_of(job: Job, split: str) -> Inputs:
    """The configured features that a model can use, by the types in the data.

    Columns of other types (timestamps, lists) are left out.
    """
    import pyarrow.parquet as pq
    from pyarrow import types

    schema = pq.read_schema(job.files(split)[0])
    features = [name for name in job.columns.features if name not in LEFT_OUT]
    if not features:
        raise DataError("columns.features of input/config/mlops.json is empty: the model needs inputs.")
    job.require_columns(schema.names, features, f"The {split} split")

    def those(*tests) -> tuple[str, ...]:
        return tuple(name for name in features if any(test(schema.field(name).type) for test in tests))

    return Inputs(
        numbers=those(types.is_integer, types.is_floating, types.is_boolean, types.is_decimal),
        strings=those(types.is_string, types.is_large_string),
    )


def target_of(job: Job) -> str:
    """The one target."""
    if len(job.columns.targets) != 1:
        raise DataError(f"columns.targets: expected one column, got {list(job.columns.targets)}.")
    return job.columns.targets[0]


def read_split(job: Job, split: str, inputs: Inputs, others: Iterable[str] = ()) -> pd.DataFrame:
    """Inputs and other columns of all files of a split, in the order of the files.

    Numbers are ``float64`` with NaN, strings are objects with ``None``.
    """
    import pandas as pd
    import pyarrow.parquet as pq

    wanted = list(dict.fromkeys([*inputs.all, *others]))
    tables = []
    for path in job.files(split):
        job.require_columns(pq.read_schema(path).names, wanted, f"{split}/{path.name}")
        tables.append(pq.read_table(path, columns=wanted).to_pandas())
    frame = pd.concat(tables, ignore_index=True)
    if frame.empty:
        raise DataError(f"The {split} split has no row.")
    for name in inputs.numbers:
        try:
            frame[name] = frame[name].astype("float64")
        except (TypeError, ValueError) as error:
            raise DataError(f"{name} of the {split} split: expected numbers: {error}.") from error
    return frame.assign(**{name: as_strings(frame[name]) for name in inputs.strings})


def as_strings(values: pd.Series) -> pd.Series:
    """Objects, ``None`` where a value is missing."""
    return values.astype("object").where(values.notna(), None)


def labels(frame: pd.DataFrame, target: str, split: str) -> np.ndarray:
    """The target as 0 and 1, both present."""
    values = frame[target]
    missing, found = int(values.isna().sum()), sorted(values.dropna().unique())
    if missing or found != [0, 1]:
        raise DataError(
            f"{target} of the {split} split: expected 0 and 1 in every row and both of them; "
            f"got {', '.join(map(str, found[:5])) or 'nothing'}, and {missing} missing values."
        )
    return values.to_numpy(dtype="int64")


def write_predictions(job: Job, frame: pd.DataFrame, probability: np.ndarray) -> None:
    """The keys of every row with its ``prediction``."""
    job.paths.output.mkdir(parents=True, exist_ok=True)
    table = frame[list(job.columns.keys)].assign(prediction=probability)
    table.to_parquet(job.paths.predictions, index=False)
