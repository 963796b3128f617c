"""How model code says what went wrong, and the exit code that says it to the outside.

::

    JobError             1   anything else
    ├── ParameterError  10   final: a parameter or the configuration
    ├── DataError       11   final: data that cannot be used
    ├── AssumptionError 12   final: a stated assumption does not hold
    ├── CasesFailedError 13  final: test cases of the model failed
    └── TryAgainError   75   the same job may succeed later
    StopRequested      143   SIGTERM; no Exception, so that ``except Exception`` lets it pass
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class JobError(Exception):
    """A failure whose message is all that a reader needs: no traceback is shown."""

    exit_code: int = 1


class ParameterError(JobError):
    """A parameter, or the job's configuration, cannot be used."""

    exit_code = 10


class DataError(JobError):
    """The data cannot be used: a file or column is missing, a value is impossible."""

    exit_code = 11


class AssumptionError(JobError):
    """An assumption that the model code states about its data does not hold.

    :param message: what does not hold, in a sentence.
    :param failures: each of them as a mapping of ``rule``, ``column``, ``expected``, ``observed`` and ``examples``
        (up to five rows); they go to ``output/assumptions.json``.
    """

    exit_code = 12

    def __init__(self, message: str, failures: Iterable[Mapping[str, object]] = ()) -> None:
        super().__init__(message)
        self.failures = [dict(failure) for failure in failures]


class CasesFailedError(JobError):
    """Test cases of the trained model failed."""

    exit_code = 13


class TryAgainError(JobError):
    """Something outside is away for the moment."""

    exit_code = 75


class StopRequested(BaseException):
    """SIGTERM arrived; raised in the main thread wherever it is."""

    exit_code = 143
