"""Figures, times and tables for a narrow terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.primitives.texts.documents import json_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "brief",
    "compact",
    "heading",
    "moment",
    "more",
    "number_text",
    "print_pairs",
    "print_table",
    "short",
    "size_text",
    "splits_text",
]


def short(dataset_id: str) -> str:
    """As much of an id as people say."""
    return dataset_id[:12]


def moment(text: str) -> str:
    """A time for people: UTC, to the second."""
    return str(text)[:19].replace("T", " ")


def splits_text(splits: Mapping[str, int]) -> str:
    """Rows of each split in one line."""
    return ", ".join(f"{name} {rows:,}" for name, rows in splits.items()) or "no rows"


def compact(value: Any) -> str:
    """A JSON value in one line."""
    if isinstance(value, str):
        return " ".join(value.split())
    text = json_text(value, ensure_ascii=False, default=str)
    return text if len(text) <= 300 else f"{text[:297]}…"


def brief(value: Any) -> str:
    """A value, no longer than a digest's beginning."""
    text = str(value)
    return text if len(text) <= 20 else f"{text[:16]}…"


def number_text(value: Any) -> str:
    """A figure in four digits."""
    return "none" if value is None else f"{value:.4g}" if isinstance(value, (int, float)) else str(value)


def size_text(size: int) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size = size // 1000 if unit == "B" else round(size / 1000)
    return f"{size:,} {unit}"


def heading(title: str) -> None:
    """Print the title of a part."""
    print(f"\n{title}")


def more(number: int, indent: str = "  ") -> None:
    """Print how many are not shown."""
    if number > 0:
        print(f"{indent}… and {number:,} more")


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Print names and values."""
    for name, value in pairs:
        print(f"  {name:<17} {value}")


def print_table(rows: Sequence[Sequence[str]], indent: str = "") -> None:
    """Print rows in columns."""
    if not rows:
        return
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        print(
            (indent + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))).rstrip()
        )
