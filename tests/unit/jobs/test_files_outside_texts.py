"""What a container or a CI job says can be kept by every database and server, wherever it goes."""

from __future__ import annotations

import hashlib
import json

import pytest

from airflow_mlops.contract.protocol.storable import storable
from airflow_mlops.contract.tools import announce as announcement
from airflow_mlops.exceptions import ContractError
from airflow_mlops.hooks.mlflow.values import to_pairs, to_text
from airflow_mlops.jobs.broken_assumptions import report_broken
from airflow_mlops.jobs.files import read_metrics, read_text
from airflow_mlops.operators.training.record import environment_record
from airflow_mlops.primitives.evaluation.cases import read_test_summary
from airflow_mlops.primitives.training.description import parse_description
from airflow_mlops.primitives.training.outcome import broken_assumptions

BAD, KEPT = "a\0b\ud800", r"a\x00b\ud800"


def assert_kept(value):
    assert storable(value, size=None) == value
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def test_names_and_slices_of_metrics(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps([{"name": BAD, "value": 1, "split": BAD, "slice": BAD}]))
    (metric,) = read_metrics(path)
    assert metric == {"name": KEPT, "value": 1, "split": KEPT, "slice": KEPT}


def test_a_slice_of_a_megabyte(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps([{"name": "auc", "value": 1, "slice": "s" * 10**6}]))
    (metric,) = read_metrics(path)
    assert len(metric["slice"]) < 5000


def test_values_that_are_no_numbers_break_the_contract(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text('[{"name": "auc", "value": NaN}]')
    with pytest.raises(ContractError, match="finite number"):
        read_metrics(path)


def test_why_a_job_failed(tmp_path):
    (tmp_path / "failure").write_bytes(b"no\0t a number \x1b[31m\xff")
    assert read_text(tmp_path / "failure") == "no\\x00t a number \\x1b[31m�"
    (tmp_path / "failure").write_bytes(b"\0" * 10**6)
    assert len(read_text(tmp_path / "failure")) <= 64 * 1024


def test_assumptions_that_do_not_hold():
    found = broken_assumptions(json.dumps([{"rule": BAD, "examples": [{"x": "v" * 10**6}]}]).encode())
    assert found[0]["rule"] == KEPT
    assert_kept(found)
    assert len(json.dumps(found)) < 70_000


def test_names_of_test_cases(tmp_path):
    report = tmp_path / "tests.xml"
    report.write_text(
        '<testsuite><testcase name="a\x7fb"><failure message="no"/></testcase></testsuite>', encoding="utf-8"
    )
    summary = read_test_summary(report)
    assert_kept(summary.to_dict())
    assert summary.failed[0]["name"] == r"a\x7fb"


def test_a_description():
    said = {"contract": 1, "commands": ["train"], "name": BAD, "parameters": {"properties": {BAD: {}}}}
    description = parse_description(json.dumps(said))
    assert (description["name"], list(description["parameters"]["properties"])) == (KEPT, [KEPT])
    assert_kept(description)


def test_a_description_that_is_a_data_set():
    said = {"contract": 1, "commands": ["train"], "rows": [["x" * 100] * 100] * 100}
    with pytest.raises(ContractError, match="Cure: describe the parameters only"):
        parse_description(json.dumps(said))


def test_what_a_ci_job_announces(monkeypatch):
    posted = []

    def call(method, url, token, content=None):
        posted.append(content)
        return {"assets": [{"id": 3, "name": "tiny.code"}], "id": 8}

    monkeypatch.setattr(announcement, "_call", call)
    extra = {"message": BAD, "log": "x" * 10**6}
    assert announcement.announce("http://airflow", "tiny", extra, {"AIRFLOW_TOKEN": "t"}) == 8
    said = posted[-1]["extra"]
    assert (said["reason"], said["message"]) == ("new_code", KEPT)
    assert len(json.dumps(said)) < 10_000


def test_parameters_and_tags_of_mlflow():
    assert to_text(BAD) == KEPT
    assert to_pairs({"why": BAD}) == [{"key": "why", "value": KEPT}]


ENVIRONMENTS = {
    "packages that are no mapping": ('{"python": "3.12", "packages": 7}', {"python": "3.12"}),
    "no number": ('{"python": NaN}', {"python": "nan"}),
    "nested without end": ("[" * 100_000, {}),
    "a list": ("[1]", {}),
    "too long": (json.dumps({"packages": {f"p{n}": "1" * 100 for n in range(10_000)}}), {}),
    "a key that no server keeps": (json.dumps({"packages": {BAD: BAD}}), {"packages": {KEPT: KEPT}}),
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_packages_of_a_training(tmp_path, name):
    text, expected = ENVIRONMENTS[name]
    (tmp_path / "environment.json").write_text(text)
    assert environment_record(tmp_path) == expected


def test_the_lock_file_of_a_training(tmp_path):
    (tmp_path / "environment.json").write_text('{"lock_file": "uv.lock"}')
    (tmp_path / "uv.lock").write_bytes(b"x" * 10**6)
    assert environment_record(tmp_path)["lock_sha256"] == hashlib.sha256(b"x" * 10**6).hexdigest()


def test_a_report_of_assumptions_that_is_too_long_is_left_out_and_said(tmp_path, caplog):
    (tmp_path / "output").mkdir()
    (tmp_path / "output/assumptions.json").write_bytes(b" " * (16 * 1024**2 + 1))
    with caplog.at_level("WARNING"):
        assert report_broken(tmp_path, str(tmp_path / "store"), "a", "train") == ""
    assert "output/assumptions.json has 16777217 bytes; at most 16777216 are read" in caplog.text
