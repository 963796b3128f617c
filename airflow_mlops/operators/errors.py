"""From any error to those that decide whether Airflow tries a task again."""

from __future__ import annotations

import functools
import sys
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowNotFoundException

from airflow_mlops.exceptions import MLOpsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow.sdk import Context

__all__ = ["MLOpsTask", "airflow_errors"]

#: Characters of a message that a log, a tag or a page is given at most; of these at its end.
MESSAGE_LIMIT, END = 20_000, 5_000
#: Kinds of errors that the same data and the same code raise again, with what a user can do. The first that fits counts.
_FINAL: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((RecursionError,), "a value or a query is nested too deeply: flatten it"),
    ((MemoryError,), "give the worker more memory, or the task less data: a shorter window, fewer columns"),
    (
        (ArithmeticError,),
        "look for numbers and times out of range in the data, as a date of the year 1, and leave them out in the SQL",
    ),
    (
        (ValueError, TypeError, LookupError, AttributeError, NotImplementedError, AssertionError),
        "look at the data and the YAML that the traceback leads to; if both are right, report it with the traceback",
    ),
)
#: Clients of servers. What Python itself raises out of one, such as JSONDecodeError over the page of a gateway, or
#: ValueError over a connection that was closed, is about the answer that it got, and the next answer may be another one.
_CLIENTS = frozenset(
    [
        "aiohttp",
        "airflow",
        "boto3",
        "botocore",
        "docker",
        "fsspec",
        "grpc",
        "httpcore",
        "httpx",
        "kubernetes",
        "kubernetes_asyncio",
        "mlflow",
        "psycopg",
        "psycopg2",
        "redis",
        "requests",
        "s3transfer",
        "sqlalchemy",
        "urllib3",
    ]
)
#: The same of DuckDB's errors, by name: it is not imported for them.
_FINAL_DUCKDB = {
    "OutOfMemoryException": _FINAL[1][1],
    **dict.fromkeys(("DataError", "OutOfRangeException", "ConversionException"), _FINAL[2][1]),
    **dict.fromkeys(
        ("ProgrammingError", "NotSupportedError", "IntegrityError", "InternalError"), _FINAL[3][1]
    ),
}


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Fail the task for good, unless the error says that the same call may succeed later.

    Messages are bounded, and show nothing that this process was told to hide.

    :raises AirflowException: for a retriable :class:`~airflow_mlops.exceptions.MLOpsError`, or a connection of which
        Airflow does not say whether it is there.
    :raises AirflowFailException: for any other one, and for what the same data and code raise again.
    """
    try:
        yield
    except MLOpsError as error:
        kind = AirflowException if error.retriable else AirflowFailException
        # One traceback, from where it began: a log with one for each translation hides what it says.
        raise kind(_message(error)).with_traceback(error.__traceback__) from None
    except AirflowNotFoundException as error:
        raise _without_connection(error).with_traceback(error.__traceback__) from None
    except AirflowException as error:
        _shorten(error)
        raise
    except Exception as error:
        if cure := _cure(error):
            raise AirflowFailException(
                f"{_message(error)}. Another try would raise it again, so none is made. Cure: {cure}."
            ).with_traceback(error.__traceback__) from None
        if not _shorten(error):
            raise AirflowException(_message(error)) from None
        raise


class MLOpsTask(BaseOperator):
    """Base of all operators: whatever leaves one has gone through :func:`airflow_errors`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Wrap what Airflow calls."""
        super().__init_subclass__(**kwargs)
        if "execute" in cls.__dict__:
            setattr(cls, "execute", _translated(cls.__dict__["execute"]))  # noqa: B010  a method of the class

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral."""
        with airflow_errors():
            return super().resume_execution(next_method, next_kwargs, context)


def _translated(execute: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(execute)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with airflow_errors():
            return execute(*args, **kwargs)

    return wrapper


def bounded(text: str) -> str:
    """A text with its middle left out where it is longer than anybody reads."""
    if len(text) <= MESSAGE_LIMIT:
        return text
    left_out = len(text) - MESSAGE_LIMIT
    return f"{text[: MESSAGE_LIMIT - END]} … [{left_out} more characters] … {text[-END:]}"


def _message(error: BaseException) -> str:
    from airflow_mlops.hooks.connections.masking import without_known_secrets

    return bounded(str(without_known_secrets(f"{type(error).__name__}: {error}")))


def _cure(error: Exception) -> str:
    """What a user can do about an error that another try would raise again; empty for one that may pass."""
    if isinstance(error, OSError) or _is_about_an_answer(error):
        return ""
    for kinds, cure in _FINAL:
        if isinstance(error, kinds):
            return cure
    names = [kind.__name__ for kind in type(error).__mro__ if "duckdb" in kind.__module__]
    return next((_FINAL_DUCKDB[name] for name in names if name in _FINAL_DUCKDB), "")


def _is_about_an_answer(error: Exception) -> bool:
    """Whether a client of a server did not understand what it got: Python's own errors, and broken protocols."""
    if isinstance(error, (ArithmeticError, MemoryError, RecursionError)):
        return False
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if type(error).__module__ not in ("builtins", "json.decoder") and "ProtocolError" not in kinds:
        return False
    raised_by = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in sys.stdlib_module_names:
            raised_by = package
    return raised_by in _CLIENTS


def _without_connection(error: AirflowNotFoundException) -> AirflowException:
    """Final only where Airflow itself says that there is no such connection."""
    from airflow_mlops.hooks.connections.find import not_found

    missing = not_found(error, MLOpsError)
    return (AirflowException if missing.retriable else AirflowFailException)(str(missing))


def _shorten(error: BaseException) -> bool:
    """Bound the messages of an error and of what led to it; whether that could be done."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        text = str(each)
        if len(text) > MESSAGE_LIMIT:
            each.args = (bounded(text),)
            if len(str(each)) > 2 * MESSAGE_LIMIT:
                return False
        each = each.__cause__ or each.__context__
    return True
