"""Test cases of a trained model: how they run, and their JUnit report."""

from __future__ import annotations

import re
import sys
import time
import traceback
import unittest
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from xml.etree import ElementTree as ET

from airflow_mlops.contract.protocol.results import write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

# What XML 1.0 cannot say even when escaped.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MESSAGE_LENGTH = 2000


@dataclass(frozen=True)
class Case:
    """One thing that must be true of the trained model.

    :param name: short and unique among the cases; it is shown to people.
    :param check: raises ``AssertionError`` when it does not hold, ``unittest.SkipTest`` when it
        cannot be said of this data.
    """

    name: str
    check: Callable[[], object]


@dataclass(frozen=True)
class CaseResult:
    """What came out of one case.

    :param outcome: ``error`` is a check that broke, ``failed`` one that did not hold.
    :param seconds: how long it took.
    """

    name: str
    outcome: Literal["passed", "failed", "error", "skipped"]
    message: str = ""
    details: str = ""
    seconds: float = 0.0


def run_cases(cases: Iterable[Case]) -> list[CaseResult]:
    """Run every case, whatever the ones before it did, and say each outcome on stderr."""
    results = []
    for case in cases:
        result = _run(case)
        results.append(result)
        message = f": {result.message}" if result.message else ""
        print(f"{result.outcome:8}{result.name}{message}", file=sys.stderr, flush=True)
    return results


def write_junit(path: Path, suite: str, results: list[CaseResult]) -> None:
    """Write ``tests.xml``.

    :param suite: name of the suite: the model code and its version.
    """
    count = {kind: sum(r.outcome == kind for r in results) for kind in ("failed", "error", "skipped")}
    element = ET.Element(
        "testsuite",
        name=_clean(suite),
        tests=str(len(results)),
        failures=str(count["failed"]),
        errors=str(count["error"]),
        skipped=str(count["skipped"]),
        time=f"{sum(r.seconds for r in results):.3f}",
    )
    for result in results:
        case = ET.SubElement(
            element,
            "testcase",
            classname=_clean(suite),
            name=result.name,
            time=f"{result.seconds:.3f}",
        )
        tag = {"failed": "failure", "error": "error", "skipped": "skipped"}.get(result.outcome)
        if tag:
            ET.SubElement(case, tag, message=result.message).text = result.details
    root = ET.Element("testsuites")
    root.append(element)
    ET.indent(root)
    write_text(
        path, "<?xml version='1.0' encoding='utf-8'?>\n" + ET.tostring(root, encoding="unicode") + "\n"
    )


def _run(case: Case) -> CaseResult:
    started = time.perf_counter()

    def result(
        outcome: Literal["passed", "failed", "error", "skipped"], error: Exception | None
    ) -> CaseResult:
        message = "" if error is None else str(error) or type(error).__name__
        details = traceback.format_exc() if outcome in ("failed", "error") else ""
        if outcome == "error":
            message = f"{type(error).__name__}: {error}"
        return CaseResult(
            name=_clean(case.name),
            outcome=outcome,
            message=_clean(message[:_MESSAGE_LENGTH]),
            details=_clean(details),
            seconds=time.perf_counter() - started,
        )

    try:
        case.check()
    except unittest.SkipTest as skip:
        return result("skipped", skip)
    except AssertionError as failure:
        return result("failed", failure)
    except Exception as error:  # noqa: BLE001 (a broken check is a result too)
        return result("error", error)
    return result("passed", None)


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
