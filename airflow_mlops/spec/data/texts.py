"""``csv:`` and ``json:``: how files of text are read."""

from __future__ import annotations

import re
import warnings
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo

from airflow_mlops.spec.values import ColumnName, Flag, FreeText, Section, Text, complaint

__all__ = ["CsvFiles", "JsonFiles", "ReadAsText", "check_read_as_text"]

_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_ ]*(\([0-9, ]+\))?")


def _pattern(value: str | None) -> str | None:
    if value is not None and not {"%d", "%j"} & set(re.findall("%-?[A-Za-z]", value.replace("%-", "%"))):
        raise complaint(
            "has no day",
            expected="a pattern of day, month and year, as strptime reads it",
            cure="write '%d/%m/%Y'",
        )
    return value


def _known(value: dict[str, str]) -> dict[str, str]:
    for name, kind in value.items():
        if not _TYPE.fullmatch(kind.strip()):
            raise complaint(
                f"has {kind!r} for {name}, which is no type",
                expected="a type of DuckDB, such as VARCHAR, BIGINT, DOUBLE, DATE",
                cure=f"write {{{name}: VARCHAR}}",
            )
    return value


_Dates = Annotated[Text | None, AfterValidator(_pattern)]
_Types = Annotated[dict[ColumnName, Text], AfterValidator(_known)]


class JsonFiles(Section):
    """How JSON files are read; without this, types follow from all values and texts stay texts."""

    dates: _Dates = Field(
        default=None,
        description="Order of day, month and year, as strptime reads it, such as '%d/%m/%Y': texts that are all of it "
        "become dates, or times if it has hours. Default: only 2026-01-31 and the like are dates.",
    )
    types: _Types = Field(
        default={},
        description="Columns and their DuckDB types, such as {zip: VARCHAR}. Default: by all values.",
    )


class CsvFiles(Section):
    """How CSV files are read; without this, types follow from all values, and what can be read in two ways is refused."""

    delimiter: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=4)] | None = Field(
        default=None,
        description="What stands between two fields. Default: whichever of comma, semicolon, tab and | the first line has "
        "most of.",
    )
    encoding: Text | None = Field(
        default=None,
        description="utf-8, utf-16 or latin-1. Default: utf-8, with a byte order mark or without.",
    )
    header: Flag | None = Field(
        default=None,
        description="Whether the first line names the columns; with false they are column0, column1 and so on. Default: "
        "true, and an error where no name has a letter.",
    )
    nulls: tuple[FreeText, ...] | None = Field(
        default=None, description="What means no value, such as ['', NA]. Default: the empty field."
    )
    decimal: Literal[".", ","] = Field(
        default=".", description="What stands before the digits of a fraction."
    )
    dates: _Dates = Field(
        default=None,
        description="Order of day, month and year, as strptime reads it, such as '%d/%m/%Y': columns that are all of it "
        "become dates, or times if it has hours. Default: 2026-01-31 is a date; 31/01/2026 is one where a day above 12 "
        "shows the order, and else an error.",
    )
    types: _Types = Field(
        default={},
        description="Columns and their DuckDB types, such as {zip: VARCHAR}. Default: by all values.",
    )


with warnings.catch_warnings():
    # pydantic's own method of this name is deprecated, and not used here.
    warnings.filterwarnings("ignore", 'Field name "json"', UserWarning)

    class ReadAsText(Section):
        """A section with files that may be CSV or JSON."""

        csv: CsvFiles | None = Field(default=None, description="How CSV is read.")
        json: JsonFiles | None = Field(default=None, description="How JSON is read.")  # type: ignore[assignment]


def check_read_as_text(info: ValidationInfo, *, files: bool, expected: str) -> None:
    """Make sure that ``csv`` and ``json`` stand beside files, and not both."""
    given = [key for key in ("csv", "json") if info.data.get(key) is not None]
    if given and not files:
        raise complaint(
            "says how files are read, and there are none",
            expected=expected,
            cure="remove it",
            at=("..", given[0]),
        )
    if len(given) > 1:
        raise complaint(
            "stands beside csv, and all files are of one format",
            expected="csv or json",
            cure="remove one of them",
            at=("..", "json"),
        )
