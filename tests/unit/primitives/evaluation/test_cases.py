"""Reading JUnit reports from containers."""

from __future__ import annotations

import time
import unittest

import pytest

from airflow_mlops.exceptions import ContractError
from airflow_mlops.primitives.evaluation import cases
from airflow_mlops.primitives.evaluation.cases import TestSummary, read_test_summary

REPORT = b"""<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="model" tests="5" failures="1" errors="1" skipped="1">
  <properties><property name="seed" value="7"/></properties>
  <testcase classname="cases.Behaviour" name="late_stays_late" time="0.1"/>
  <testcase classname="cases.Behaviour" name="rain_delays">
    <failure message="0.3 is not greater than 0.4" type="AssertionError">Traceback
      line</failure><system-out>noise</system-out>
  </testcase>
  <testcase name="breaks"><error type="KeyError">Traceback: KeyError: 'origin'</error></testcase>
  <testcase name="not_here"><skipped message="no GPU"/></testcase>
  <testcase name="fine"><system-out>all good</system-out></testcase>
</testsuite></testsuites>"""


def test_counts_and_names():
    summary = read_test_summary(REPORT)
    assert (summary.total, summary.failures, summary.errors, summary.skipped, summary.passed) == (
        5,
        1,
        1,
        1,
        2,
    )
    assert list(summary.failed) == [
        {"name": "cases.Behaviour.rain_delays", "message": "0.3 is not greater than 0.4"},
        {"name": "breaks", "message": "Traceback: KeyError: 'origin'"},
    ]
    assert TestSummary.from_dict(summary.to_dict()) == summary


def test_a_file_with_one_suite_as_root(tmp_path):
    report = tmp_path / "tests.xml"
    report.write_bytes(b'<testsuite><testcase name="a"/></testsuite>')
    assert read_test_summary(report).to_dict() == {
        "total": 1,
        "failures": 0,
        "errors": 0,
        "skipped": 0,
        "failed": [],
    }


def test_a_case_that_failed_and_then_broke_counts_once():
    report = (
        b'<testsuite><testcase name="a"><failure message="f"/><error message="e"/></testcase></testsuite>'
    )
    summary = read_test_summary(report)
    assert (summary.total, summary.failures, summary.errors) == (1, 0, 1)
    assert summary.failed[0]["message"] == "f"


def test_a_program_that_says_that_cases_failed_is_believed():
    summary = read_test_summary(b'<testsuite><testcase name="a"/></testsuite>').with_unnamed_failure()
    assert (summary.total, summary.passed, summary.errors) == (2, 1, 1)
    assert "its report names no failed case" in summary.failed[0]["message"]
    named = read_test_summary(b'<testsuite><testcase name="a"><failure/></testcase></testsuite>')
    assert named.with_unnamed_failure() == named


def test_the_attributes_of_the_suite_are_not_believed():
    report = b'<testsuite tests="9" failures="0"><testcase name="a"><failure/></testcase></testsuite>'
    assert read_test_summary(report).failures == 1


def test_a_failure_element_outside_a_case_is_no_case():
    assert read_test_summary(b"<testsuite><failure/></testsuite>").total == 0


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (b"", "no XML"),
        (b"all tests passed", "no XML"),
        (b'<testsuite><testcase name="a">', "no XML"),
        (b"\xff\xfe\x00", "no XML"),
        (b'<?xml version="1.0" encoding="klingon"?><testsuite/>', "no XML: unknown encoding"),
        (b'<?xml version="1.0" encoding="big5"?><testsuite/>', "no XML: multi-byte encodings"),
        (b"<html><body/></html>", "begins with <html>"),
        (b"<testsuite>" + b"<a>" * 40 + b"</a>" * 40 + b"</testsuite>", "nested deeper"),
    ],
)
def test_what_is_no_report_is_refused(report, said):
    with pytest.raises(ContractError, match=said):
        read_test_summary(report)


BOMBS = {
    "billion laughs": b'<!DOCTYPE t [<!ENTITY a "aaaaaaaaaa">'
    + b"".join(b'<!ENTITY a%d "%s">' % (n, b"&a%d;" % (n - 1) * 10 if n else b"&a;" * 10) for n in range(12))
    + b']><testsuite><testcase name="&a11;"/></testsuite>',
    "a file of the worker": b'<!DOCTYPE t [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    b'<testsuite><testcase name="a"><failure>&x;</failure></testcase></testsuite>',
    "a document type elsewhere": b'<!DOCTYPE testsuite SYSTEM "http://127.0.0.1/x.dtd"><testsuite/>',
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_entities_are_refused_before_they_grow(bomb):
    start = time.process_time()
    with pytest.raises(ContractError, match="declares a document type or entities"):
        read_test_summary(bomb)
    assert time.process_time() - start < 30


def test_a_huge_report_is_refused_and_not_read_whole(tmp_path):
    report = tmp_path / "tests.xml"
    with report.open("wb") as file:
        file.write(b"<testsuite>")
        file.truncate(20 * 1024**3)  # sparse: reading it would take the machine's memory
    with pytest.raises(ContractError, match="larger than 8 MiB"):
        read_test_summary(report)


def test_too_many_cases_are_refused(monkeypatch):
    monkeypatch.setattr(cases, "CASES_LIMIT", 10)
    with pytest.raises(ContractError, match="more than 10 cases"):
        read_test_summary(b"<testsuite>" + b"<testcase/>" * 11 + b"</testsuite>")


def test_the_names_are_bounded_and_the_counts_complete():
    case = b'<testcase name="%s"><failure message="%s"/></testcase>' % (b"n" * 5000, b"m" * 5000)
    summary = read_test_summary(b"<testsuite>" + case * 200 + b"</testsuite>")
    assert summary.failures == 200
    assert len(str(summary.to_dict())) < 20_000


def test_the_summary_is_no_test_class():
    assert not unittest.TestLoader().loadTestsFromModule(cases).countTestCases()
    assert TestSummary.__test__ is False
