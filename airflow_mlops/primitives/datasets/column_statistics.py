"""Simple figures of the columns of two dataset versions, and how far each moved."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from airflow_mlops.primitives.datasets.comparison import SHOWN, json_value, rows_of
from airflow_mlops.primitives.sql.words import batches, identifier, literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from duckdb import DuckDBPyConnection

    from airflow_mlops.primitives.datasets.comparison import Side

__all__ = ["compare_distributions", "psi"]

_BINS = 10
_CATEGORIES = 20
_SAMPLE = 100_000
_VALUES_AT_ONCE = 1_000_000
_NUMBERS = ("int", "uint", "float", "double", "halffloat", "decimal")


def compare_distributions(connection: DuckDBPyConnection, old: Side, new: Side) -> list[dict[str, Any]]:
    """Simple figures of every input, feature and target that both versions have, and how far they moved.

    The population stability index is taken over tenths of the older version's values (numbers) or its twenty
    most frequent values (all else), with one more class for what is missing. Below 0.1 is commonly read as
    the same, above 0.25 as another distribution.

    :return: for each column ``column``, ``role``, ``kind``, ``missing`` (both shares), ``psi``, and for numbers
        ``mean`` and ``std``, else ``top`` (most frequent values with their shares); each as [before, after].
    """
    for table, side in (("_old", old), ("_new", new)):
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {table} AS {rows_of(side)}")
    after = {column.name: column.type for column in new.manifest.columns}
    columns = [
        column
        for column in old.manifest.columns
        if column.role in ("input", "feature", "target") and column.name in after
    ]
    numeric = [c.name for c in columns if c.type.startswith(_NUMBERS) and after[c.name].startswith(_NUMBERS)]
    figures: dict[str, dict[str, Any]] = {}
    for some in batches(numeric):
        figures |= _numbers(connection, some)
    for some in batches([column.name for column in columns if column.name not in figures]):
        figures |= _categories(connection, some)
    return [{"column": column.name, "role": column.role, **figures[column.name]} for column in columns]


def psi(old: Sequence[float], new: Sequence[float]) -> float:
    """Population stability index of counts in the same classes; an empty class counts as half a row.

    Source: Siddiqi, Credit Risk Scorecards (2006).
    """
    if not sum(old) or not sum(new):
        return 0.0
    shares = [
        (max(a, 0.5) / sum(old), max(b, 0.5) / sum(new)) for a, b in zip(old, new, strict=True) if a or b
    ]
    return sum((b - a) * math.log(b / a) for a, b in shares)


def _numbers(connection: DuckDBPyConnection, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Figures of columns of numbers: every version is read twice, whatever the number of columns."""
    if not names:
        return {}
    tables = ("_old", "_new")
    old, new = (_moments(connection, table, names) for table in tables)
    edges = _edges(connection, names)
    below = [_counts(connection, table, edges) for table in tables]
    found = {}
    for name in names:
        pair = (old[name], new[name])
        classes = [
            [*counts[name], figures[0] - figures[1]] for counts, figures in zip(below, pair, strict=True)
        ]
        found[name] = {
            "kind": "number",
            "missing": [_share(figures[0] - figures[1], figures[0]) for figures in pair],
            "psi": round(psi(*classes), 4),
            "mean": [json_value(figures[2]) for figures in pair],
            "std": [json_value(figures[3]) for figures in pair],
        }
    return found


def _moments(connection: DuckDBPyConnection, table: str, names: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Rows, valid values, mean and standard deviation of each column."""
    figures = [f"count(x{n}), avg(x{n}), stddev_pop(x{n})" for n in range(len(names))]
    found = connection.execute(
        f"SELECT count(*), {', '.join(figures)} FROM {_valid(table, names)}"
    ).fetchone()
    rows, *values = found or (0,)
    return {name: (rows, *values[3 * n : 3 * n + 3]) for n, name in enumerate(names)}


def _edges(connection: DuckDBPyConnection, names: Sequence[str]) -> dict[str, list[float]]:
    """Bounds between tenths of the older version's values, by a sample."""
    steps = ", ".join(str(step / _BINS) for step in range(1, _BINS))
    figures = [f"quantile_disc(x{n}, [{steps}])" for n in range(len(names))]
    found = connection.execute(
        f"SELECT {', '.join(figures)} FROM (FROM {_valid('_old', names)} USING SAMPLE reservoir({_SAMPLE} ROWS) "
        "REPEATABLE (0))"
    ).fetchone()
    return {name: sorted(set(bounds or [])) for name, bounds in zip(names, found or (), strict=False)}


def _counts(
    connection: DuckDBPyConnection, table: str, edges: Mapping[str, Sequence[float]]
) -> dict[str, list[int]]:
    """How many values of each column are up to each bound, and above the last one."""
    names = [name for name, bounds in edges.items() if bounds]
    if not names:
        return {name: [] for name in edges}
    listed = (", ".join(literal(float(bound)) for bound in edges[name]) for name in names)
    figures = [f"map_entries(histogram(x{n}, [{bounds}]))" for n, bounds in enumerate(listed)]
    found = connection.execute(f"SELECT {', '.join(figures)} FROM {_valid(table, names)}").fetchone() or ()
    counts: dict[str, list[int]] = {name: [0] * (len(bounds) + 1) for name, bounds in edges.items()}
    for name, entries in zip(names, found, strict=True):
        for entry in entries or ():
            counts[name][bisect_left(edges[name], entry["key"])] += int(entry["value"])
    return counts


def _valid(table: str, names: Sequence[str]) -> str:
    """The columns as ``x0``, ``x1``, … of numbers, and null for what is none."""
    columns = [f"{identifier(name)}::DOUBLE" for name in names]
    numbers = [f"CASE WHEN isfinite({column}) THEN {column} END AS x{n}" for n, column in enumerate(columns)]
    return f"(SELECT {', '.join(numbers)} FROM {table})"


def _categories(connection: DuckDBPyConnection, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Figures of columns of anything else: a few queries, whatever the number of columns."""
    valid, about, rows = [], [], []
    for table in ("_old", "_new"):
        figures = [f"count(x{n}), approx_count_distinct(x{n})" for n in range(len(names))]
        found = connection.execute(f"SELECT count(*), {', '.join(figures)} FROM {_texts(table, names)}")
        total, *values = found.fetchone() or (0,)
        rows.append(total)
        valid.append(dict(zip(names, values[::2], strict=True)))
        about.append(values[1::2])
    figures_of = {}
    for some in _not_too_many(dict(zip(names, about[0], strict=True))):
        for name, frequent in _frequent(connection, some).items():
            figures_of[name] = _category(frequent, [one[name] for one in valid], rows)
    return figures_of


def _not_too_many(about: Mapping[str, int]) -> Iterator[list[str]]:
    """Columns to count the values of at once: together they have no more different ones than memory holds."""
    some: list[str] = []
    for name, different in about.items():
        if some and sum(about[one] for one in some) + different > _VALUES_AT_ONCE:
            yield some
            some = []
        some.append(name)
    if some:
        yield some


def _frequent(connection: DuckDBPyConnection, names: Sequence[str]) -> dict[str, list[tuple[str, int, int]]]:
    """The most frequent values of the older version, and how often each is in both."""
    listed = ", ".join(f"x{n}" for n in range(len(names)))

    def counted(table: str, among: str = "") -> str:
        long = f"(UNPIVOT {_texts(table, names)} ON {listed} INTO NAME name VALUE value)"
        return f"SELECT name, value, count(*) AS count FROM {long} {among} GROUP BY ALL"

    found = connection.execute(
        f"WITH top AS MATERIALIZED (FROM ({counted('_old')}) QUALIFY row_number() OVER "
        f"(PARTITION BY name ORDER BY count DESC, value) <= {_CATEGORIES}), later AS ({counted('_new', 'SEMI JOIN top USING (name, value)')}) "
        "SELECT t.name, t.value, t.count, coalesce(l.count, 0) FROM top t LEFT JOIN later l USING (name, value) "
        "ORDER BY t.count DESC, t.value"
    ).fetchall()
    frequent: dict[str, list[tuple[str, int, int]]] = {name: [] for name in names}
    for which, value, before, after in found:
        frequent[names[int(which[1:])]].append((value, before, after))
    return frequent


def _category(
    frequent: Sequence[tuple[str, int, int]], valid: Sequence[int], rows: Sequence[int]
) -> dict[str, Any]:
    counts = ([before for _, before, _ in frequent], [after for _, _, after in frequent])
    classes = [
        [*some, all_ - sum(some), total - all_] for some, all_, total in zip(counts, valid, rows, strict=True)
    ]
    return {
        "kind": "category",
        "missing": [_share(total - all_, total) for total, all_ in zip(rows, valid, strict=True)],
        "psi": round(psi(*classes), 4),
        "top": {value: [_share(a, rows[0]), _share(b, rows[1])] for value, a, b in frequent[:SHOWN]},
    }


def _texts(table: str, names: Sequence[str]) -> str:
    """The columns as ``x0``, ``x1``, … of text."""
    columns = (f"{identifier(name)}::VARCHAR AS x{n}" for n, name in enumerate(names))
    return f"(SELECT {', '.join(columns)} FROM {table})"


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0
