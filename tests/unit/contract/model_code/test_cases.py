from __future__ import annotations

import unittest
from xml.etree import ElementTree as ET

from airflow_mlops.contract.model_code.cases import Case, run_cases, write_junit


def test_every_outcome_is_reported_and_none_stops_the_others(tmp_path, capsys):
    def fails():
        raise AssertionError("off by <one> \x00\x1b[31m \ud800")

    def breaks():
        raise ZeroDivisionError("oh")

    def skips():
        raise unittest.SkipTest("no such column")

    cases = [Case("fails", fails), Case("breaks", breaks), Case("skips", skips), Case("passes", lambda: None)]
    results = run_cases(cases)
    write_junit(tmp_path / "tests.xml", "tiny 1.0", results)

    assert [result.outcome for result in results] == ["failed", "error", "skipped", "passed"]
    suite = ET.parse(tmp_path / "tests.xml").getroot().find("testsuite")
    assert {k: suite.get(k) for k in ("name", "tests", "failures", "errors", "skipped")} == {
        "name": "tiny 1.0",
        "tests": "4",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
    }
    by_name = {case.get("name"): case for case in suite}
    assert by_name["fails"].find("failure").get("message").startswith("off by <one> ")
    assert "ZeroDivisionError: oh" in by_name["breaks"].find("error").get("message")
    assert "breaks" in by_name["breaks"].find("error").text
    assert by_name["skips"].find("skipped").get("message") == "no such column"
    assert len(by_name["passes"]) == 0
    assert "error   breaks: ZeroDivisionError: oh" in capsys.readouterr().err
