"""Reading the report of a model's test cases (JUnit XML) from a container that nobody trusts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from xml.parsers import expat

from airflow_mlops.contract.protocol.storable import storable_text
from airflow_mlops.exceptions import ContractError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Bounds of a report. A larger one is refused, not cut: a cut report could hide a failure.
BYTES_LIMIT = 8 * 1024**2
CASES_LIMIT = 100_000
DEPTH_LIMIT = 32
#: Failed cases that are named, and characters of each message. The counts are always complete.
NAMED_LIMIT = 20
MESSAGE_LIMIT = 300
#: Message of the case that no report names.
UNNAMED = "the model code said that its tests failed (exit code 13), and its report names no failed case"

_WORST_LAST = ("passed", "skipped", "failure", "error")


@dataclass(frozen=True)
class TestSummary:
    """What became of the test cases.

    :param total: all cases, skipped ones included.
    :param failures: cases with a false assertion.
    :param errors: cases that broke in another way.
    :param failed: ``name`` and ``message`` of the first failed or broken cases.
    """

    __test__: ClassVar[bool] = False  # no test class, whatever pytest thinks of the name

    total: int = 0
    failures: int = 0
    errors: int = 0
    skipped: int = 0
    failed: tuple[Mapping[str, str], ...] = field(default=())

    @property
    def passed(self) -> int:
        """Cases that ran and held."""
        return self.total - self.failures - self.errors - self.skipped

    def with_unnamed_failure(self) -> TestSummary:
        """The summary of a program that said that cases failed: where the report names none, one case broke."""
        if self.failures + self.errors:
            return self
        unnamed = {"name": "unnamed", "message": UNNAMED}
        return replace(self, total=self.total + 1, errors=1, failed=(unnamed,))

    def to_dict(self) -> dict[str, Any]:
        """The summary as JSON values."""
        return {**asdict(self), "failed": [dict(case) for case in self.failed]}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> TestSummary:
        """Read what :meth:`to_dict` wrote."""
        counts = {key: int(value.get(key) or 0) for key in ("total", "failures", "errors", "skipped")}
        return cls(**counts, failed=tuple(value.get("failed") or ()))


def read_test_summary(report: Path | bytes) -> TestSummary:
    """Count the cases of a JUnit report, naming the failed ones.

    :param report: the file, or its bytes.
    :raises ContractError: the report is no JUnit XML, declares a document type or entities, or is larger than
        a report of test cases can be.
    """
    data = _bounded(report)
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = reader.refuse
    parser.EntityDeclHandler = reader.refuse
    try:
        parser.Parse(data, True)
    # An encoding that Python does not know is a LookupError, one of several bytes a character a ValueError.
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise ContractError(
            f"The test report (output/tests.xml) is no XML: {error}. Expected JUnit XML with <testsuite> and "
            "<testcase> elements. Cure: let the test runner write it, and only it."
        ) from error
    return reader.summary()


def count_cases(file: str) -> dict[str, Any]:
    """As :func:`read_test_summary`, of JSON values, for a child."""
    return read_test_summary(Path(file)).to_dict()


class _Reader:
    def __init__(self) -> None:
        self.counts = dict.fromkeys(_WORST_LAST, 0)
        self.failed: list[dict[str, str]] = []
        self.depth = 0
        self.name = ""
        self.outcome: str | None = None
        self.message: list[str] = []
        self.listening = False

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if self.depth == 0 and tag not in ("testsuite", "testsuites"):
            raise ContractError(
                f"The test report (output/tests.xml) begins with <{tag[:80]}>; expected <testsuites> or <testsuite>."
            )
        self.depth += 1
        if self.depth > DEPTH_LIMIT:
            raise ContractError(
                f"The test report (output/tests.xml) is nested deeper than {DEPTH_LIMIT} elements."
            )
        if tag == "testcase":
            self._start_case(attributes)
        elif self.outcome is not None and tag in _WORST_LAST:
            self.outcome = max(self.outcome, tag, key=_WORST_LAST.index)
            if tag != "skipped" and not self.message:
                self.message = [attributes.get("message", "")[:MESSAGE_LIMIT]]
                self.listening = True

    def end(self, tag: str) -> None:
        self.depth -= 1
        if tag in _WORST_LAST:
            self.listening = False
        if tag != "testcase" or self.outcome is None:
            return
        self.counts[self.outcome] += 1
        if self.outcome in ("failure", "error") and len(self.failed) < NAMED_LIMIT:
            message = " ".join(" ".join(self.message).split())[:MESSAGE_LIMIT]
            case = {"name": self.name, "message": message}
            self.failed.append({key: storable_text(text) for key, text in case.items()})
        self.outcome = None

    def text(self, data: str) -> None:
        # The attribute is the message; the text, mostly a traceback, stands in when there is none.
        if self.listening and not self.message[0]:
            self.message = [data.strip()[-MESSAGE_LIMIT:]]

    def refuse(self, *_: Any) -> None:
        raise ContractError(
            "The test report (output/tests.xml) declares a document type or entities, which no JUnit report needs. "
            "It was not read further. Cure: write plain JUnit XML."
        )

    def summary(self) -> TestSummary:
        return TestSummary(
            total=sum(self.counts.values()),
            failures=self.counts["failure"],
            errors=self.counts["error"],
            skipped=self.counts["skipped"],
            failed=tuple(self.failed),
        )

    def _start_case(self, attributes: dict[str, str]) -> None:
        if sum(self.counts.values()) >= CASES_LIMIT:
            raise ContractError(f"The test report (output/tests.xml) has more than {CASES_LIMIT} cases.")
        name, group = attributes.get("name", "unnamed"), attributes.get("classname", "")
        self.name = (f"{group}.{name}" if group else name)[:MESSAGE_LIMIT]
        self.outcome, self.message, self.listening = "passed", [], False


def _bounded(report: Path | bytes) -> bytes:
    if isinstance(report, Path):
        with report.open("rb") as file:
            report = file.read(BYTES_LIMIT + 1)
    if len(report) > BYTES_LIMIT:
        raise ContractError(
            f"The test report (output/tests.xml) is larger than {BYTES_LIMIT // 1024**2} MiB. "
            "Cure: keep the output of the cases out of it."
        )
    return report
