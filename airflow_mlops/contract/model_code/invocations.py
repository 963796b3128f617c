"""Requests in MLflow's scoring format, as rows."""

from __future__ import annotations

import json
import math
from typing import Any

from airflow_mlops.contract.protocol.failures import DataError

FORMATS = ("dataframe_split", "dataframe_records", "inputs")
MAX_ROWS = 10_000
LONGEST_INTEGER = 300
"""Characters; a double holds no longer one."""


def parse_invocation(body: bytes) -> list[dict[str, Any]]:
    """The rows of a request, each as column → value; NaN is ``None``.

    :param body: one JSON object with exactly one of ``dataframe_split`` ({columns, data}),
        ``dataframe_records`` ([{column: value}]) and ``inputs`` (rows as there, or {column: [values]}).
    :raises DataError: saying what is wrong, for the client.
    """
    content = _parse(body)
    given = [name for name in FORMATS if isinstance(content, dict) and name in content]
    if len(given) != 1:
        got = ", ".join(map(repr, content)) if isinstance(content, dict) else type(content).__name__
        raise DataError(
            f"Expected a JSON object with one of {', '.join(FORMATS)}; got {_cut(got) or 'an empty object'}."
        )
    value = content[given[0]]
    if given[0] == "dataframe_split":
        rows = _from_split(value)
    elif given[0] == "inputs" and isinstance(value, dict):
        rows = _from_columns(value)
    else:
        rows = _from_records(given[0], value)
    if not 0 < len(rows) <= MAX_ROWS:
        raise DataError(f"{given[0]}: expected 1 to {MAX_ROWS} rows, got {len(rows)}.")
    return rows


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_constant, parse_float=_float, parse_int=_int)
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"The body is not JSON: {_cut(str(error))}.") from error


def _constant(name: str) -> None:
    if name != "NaN":
        raise _not_finite(name)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _not_finite(text)
    return value


def _int(text: str) -> int:
    if len(text) > LONGEST_INTEGER:
        raise _not_finite(text)
    return int(text)


def _not_finite(text: str) -> DataError:
    return DataError(
        f"The body has the value {_cut(text)}; expected finite numbers, or null where one is missing."
    )


def _from_split(value: Any) -> list[dict[str, Any]]:
    columns = value.get("columns") if isinstance(value, dict) else None
    data = value.get("data") if isinstance(value, dict) else None
    if not isinstance(columns, list) or not isinstance(data, list):
        raise DataError("dataframe_split: expected an object with the lists `columns` and `data`.")
    if not all(isinstance(name, str) for name in columns) or len(set(columns)) != len(columns):
        raise DataError("dataframe_split.columns: expected different strings.")
    for index, row in enumerate(data):
        if not isinstance(row, list) or len(row) != len(columns):
            got = f"{len(row)}" if isinstance(row, list) else type(row).__name__
            raise DataError(f"dataframe_split.data[{index}]: expected {len(columns)} values, got {got}.")
    return [dict(zip(columns, row, strict=True)) for row in data]


def _from_columns(value: dict[str, Any]) -> list[dict[str, Any]]:
    lengths = {name: len(values) for name, values in value.items() if isinstance(values, list)}
    if len(lengths) != len(value) or len(set(lengths.values())) > 1:
        raise DataError("inputs: expected a list of values for every column, all of one length.")
    return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]


def _from_records(name: str, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise DataError(f"{name}: expected a list of rows, got {type(value).__name__}.")
    for index, row in enumerate(value):
        if not isinstance(row, dict):
            raise DataError(
                f"{name}[{index}]: expected an object with a value for each column, got {type(row).__name__}."
            )
    return value


def _cut(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "…"
