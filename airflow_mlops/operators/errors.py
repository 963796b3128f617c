"""From the errors of this package to those that decide whether Airflow tries a task again."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from airflow_mlops.exceptions import MLOpsError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["airflow_errors"]


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Fail the task for good, unless the error says that the same call may succeed later.

    :raises AirflowException: for a retriable :class:`~airflow_mlops.exceptions.MLOpsError`.
    :raises AirflowFailException: for any other one.
    """
    try:
        yield
    except MLOpsError as error:
        kind = AirflowException if error.retriable else AirflowFailException
        raise kind(f"{type(error).__name__}: {error}") from error
