"""The kinds of values that a YAML author types: names, durations, sizes, schedules."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    AllowInfNan,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    PrivateAttr,
    StrictBool,
    StrictFloat,
    StrictInt,
    StringConstraints,
    Tag,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

_DURATION = re.compile(r"([0-9]{1,12})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_LONGEST = timedelta(days=36500)
_HORIZON = timedelta(days=3653)
#: Names that Airflow knows beside those of its parser.
_PRESETS = {"@quarterly": "0 0 1 */3 *"}
_SIZE = re.compile(r"([0-9]{1,12})([kmgt])")
_LARGEST = 1024**5
_BYTES = {"k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}

_DURATION_EXPECTED = "a duration: a whole number and one of s, m, h, d, w"
_SIZE_EXPECTED = "a size: a whole number and one of k, m, g, t (powers of 1024)"


class Section(BaseModel):
    """A mapping of the YAML: unknown keys are errors, values do not change after loading."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    def to_json(self) -> dict[str, Any]:
        """What was said, as JSON values in the form of the YAML (``2h``, ``4g``); nothing that is null."""
        return self.model_dump(mode="json", exclude_none=True)


class Document(Section):
    """A whole YAML file, which remembers where and how it was written."""

    _source_path: Path | None = PrivateAttr(default=None)
    _source_text: str = PrivateAttr(default="")

    @property
    def source_path(self) -> Path | None:
        """The YAML file this was loaded from; ``None`` when made in Python."""
        return self._source_path

    @property
    def source_text(self) -> str:
        """The YAML as its author wrote it; empty when made in Python."""
        return self._source_text


def section(description: str) -> Any:
    """A field that holds another section, all of whose keys have defaults."""
    return Field(default_factory=dict, validate_default=True, description=description)


def complaint(
    what: str, *, cure: str, expected: str = "", at: tuple[str | int, ...] = ()
) -> PydanticCustomError:
    """An error to raise in a validator, with the parts that the report shows on lines of their own.

    :param what: what is wrong, as a short clause without the key.
    :param expected: what a right value looks like.
    :param cure: what to type, in other words than ``expected``.
    :param at: key path below the validated field that the error belongs to.
    """
    return PydanticCustomError(
        "complaint", "{what}", {"what": what, "expected": expected, "cure": cure, "at": list(at)}
    )


def duration(value: Any) -> timedelta:
    """``90s``, ``15m``, ``6h``, ``30d`` or ``2w`` as a :class:`~datetime.timedelta`."""
    if isinstance(value, timedelta):
        return value
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        cure = (
            f"add a unit: {value}s for seconds, {value}d for days"
            if type(value) is int
            else "write 90s or 30d"
        )
        raise complaint("is not a duration", expected=_DURATION_EXPECTED, cure=cure)
    seconds = int(found[1]) * _SECONDS[found[2]]
    if seconds > _LONGEST.total_seconds():
        raise complaint("is too long", expected="at most 100 years", cure="write 36500d, or less")
    return timedelta(seconds=seconds)


def format_duration(value: timedelta) -> str:
    """The shortest text that :func:`duration` reads as ``value`` (whole seconds)."""
    seconds = int(value.total_seconds())
    if seconds == 0:
        return "0s"
    unit = next(unit for unit in "dhms" if seconds % _SECONDS[unit] == 0)
    return f"{seconds // _SECONDS[unit]}{unit}"


def size(value: Any) -> int:
    """``512m`` or ``4g`` as bytes."""
    found = _SIZE.fullmatch(value.lower()) if isinstance(value, str) else None
    if found is None:
        cure = f"add a unit: {value}m for MiB" if type(value) is int else "write 512m or 4g"
        raise complaint("is not a size", expected=_SIZE_EXPECTED, cure=cure)
    number = int(found[1]) * _BYTES[found[2]]
    if number > _LARGEST:
        raise complaint("is too large", expected="at most 1024 TiB", cure="write 1024t, or less")
    return number


def format_size(value: int) -> str:
    """The shortest text that :func:`size` reads as ``value`` (whole KiB)."""
    unit = next((unit for unit in "tgm" if value % _BYTES[unit] == 0), "k")
    return f"{value // _BYTES[unit]}{unit}"


def positive(value: timedelta) -> timedelta:
    """Refuse a duration of nothing."""
    if value <= timedelta(0):
        raise complaint("must be longer than zero", expected="a duration above 0s", cure="write 15m, say")
    return value


def _not_zero(value: Any) -> Any:
    return positive(duration(value))


def _some_bytes(value: Any) -> int:
    bytes_ = size(value)
    if bytes_ == 0:
        raise complaint("must be more than zero", expected=_SIZE_EXPECTED, cure="write 512m, say")
    return bytes_


def _check_cron(value: str) -> str:
    expression = value.strip()
    if problem := cron_problem(expression, datetime.now(UTC)):
        raise complaint(
            problem,
            expected="five fields: minute hour day month weekday, or @hourly @daily @weekly @monthly @yearly",
            cure="for every Monday at 03:00 UTC write: 0 3 * * 1",
        )
    return expression


def cron_problem(expression: str, now: datetime) -> str:
    """Why Airflow would not start a DAG by this cron expression; empty if it would.

    The parser is the one that Airflow's timetable asks, and it is asked for the same two times: the last one and
    the next one.

    :param expression: without spaces around it.
    :param now: with time zone; a next time that is more than ten years later is none.
    """
    from croniter import CroniterBadDateError, croniter

    never, start = "never comes to pass", now.astimezone(UTC).replace(tzinfo=None)
    try:
        cron = croniter(_PRESETS.get(expression, expression), start)
        cron.get_prev(datetime)
        coming = cron.get_next(datetime, start_time=start)
    except CroniterBadDateError:
        return never
    except (ValueError, LookupError, TypeError, ArithmeticError) as error:  # what a parser makes of odd text
        return f"is not a cron expression: {error}"
    return never if coming - start > _HORIZON else ""


def no_doubles(value: tuple[Any, ...]) -> tuple[Any, ...]:
    doubles = sorted({str(item) for item in value if value.count(item) > 1})
    if doubles:
        raise complaint(
            f"names {', '.join(doubles)} more than once", expected="each name once", cure="keep one of each"
        )
    return value


def _folder(value: str) -> str:
    if value.startswith("~"):
        raise complaint("begins with ~, which is another folder for every user", cure="write the whole path")
    if any(ord(character) < 32 for character in value):
        raise complaint(
            "contains a control character",
            expected="the path of a folder",
            cure="remove it: it may be a line break or a tab",
        )
    return value


_PRINTABLE = r"^[^\x00-\x1f\x7f]*[^\x00-\x1f\x7f\s][^\x00-\x1f\x7f]*$"

Flag = StrictBool
WholeNumber = StrictInt
Number = Annotated[StrictFloat, AllowInfNan(False)]
Share = Annotated[Number, Field(gt=0, lt=1)]
Probability = Annotated[Number, Field(gt=0, lt=1)]

ApplicationName = Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Text = Annotated[str, StringConstraints(strict=True, min_length=1, pattern=r"\S")]
FreeText = Annotated[str, StringConstraints(strict=True)]
FolderPath = Annotated[Text, AfterValidator(_folder)]
Label = Annotated[str, StringConstraints(strict=True, max_length=100, pattern=_PRINTABLE)]
ColumnName = Annotated[
    str, StringConstraints(strict=True, max_length=255, pattern=r'^[^\x00-\x20"\x7f][^\x00-\x1f"\x7f]*$')
]
TableName = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
ConnectionId = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9_.\-/]{1,250}$")]
AssetName = Annotated[str, StringConstraints(strict=True, max_length=1500, pattern=r"^[!-~]([ -~]*[!-~])?$")]
ImageReference = Annotated[
    str, StringConstraints(strict=True, max_length=512, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-/:@]*$")
]

_DURATION_SCHEMA = WithJsonSchema(
    {"type": "string", "pattern": r"^[0-9]{1,12}[smhdw]$", "examples": ["90s", "30d"]}
)
_DURATION_OUT = PlainSerializer(format_duration, return_type=str, when_used="json")
Duration = Annotated[timedelta, BeforeValidator(duration), _DURATION_OUT, _DURATION_SCHEMA]
PositiveDuration = Annotated[timedelta, BeforeValidator(_not_zero), _DURATION_OUT, _DURATION_SCHEMA]
Size = Annotated[
    int,
    BeforeValidator(_some_bytes),
    PlainSerializer(format_size, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]{1,12}[kmgtKMGT]$", "examples": ["512m", "4g"]}),
]

UniqueColumns = Annotated[tuple[ColumnName, ...], AfterValidator(no_doubles)]


def _columns(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Columns = Annotated[
    UniqueColumns,
    Field(min_length=1),
    BeforeValidator(_columns),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    ),
]
"""One column, or a list of columns."""
AssetNames = Annotated[tuple[AssetName, ...], AfterValidator(no_doubles)]


class AssetSchedule(Section):
    """Run whenever one of these assets has news."""

    assets: AssetNames = Field(
        min_length=1, description="Names of Airflow assets; an update of any of them starts the DAG."
    )


_CRON, _ASSETS = SCHEDULE_KINDS = ("<cron>", "<assets>")  # pydantic puts these into the paths of errors


def _schedule_kind(value: Any) -> str:
    return _ASSETS if isinstance(value, (dict, AssetSchedule)) else _CRON


def _cron_or(value: Any, what: str, expected: str, cure: str) -> str:
    if not isinstance(value, str):
        raise complaint(f"is not a {what}", expected=f"a cron expression in quotes, {expected}", cure=cure)
    return _check_cron(value)


def _cron(value: Any) -> str:
    cure = 'write schedule: "0 3 * * 1" or schedule: {assets: [flights_landed]}'
    return _cron_or(value, "schedule", "{assets: [name, ...]}, or null", cure)


def _cron_only(value: Any) -> str:
    return _cron_or(value, "cron expression", "or null", 'write schedule: "0 3 * * 1"')


CronSchedule = Annotated[str, BeforeValidator(_cron_only)]
"""A cron expression in UTC."""

Schedule = Annotated[
    Annotated[str, BeforeValidator(_cron), Tag(_CRON)] | Annotated[AssetSchedule, Tag(_ASSETS)],
    Discriminator(_schedule_kind),
]
"""A cron expression in UTC (``str``) or :class:`AssetSchedule`; fields add ``| None`` for no schedule."""


def unstated(schema: dict[str, Any]) -> None:
    """Leave out of the JSON schema a default that is worked out from other keys."""
    schema.pop("default", None)
