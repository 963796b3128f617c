from __future__ import annotations

import json
import platform
import threading
import time
from importlib import metadata
from xml.etree import ElementTree as ET

import pytest

from airflow_mlops.contract import AssumptionError, Columns, ModelCode, execute, main
from airflow_mlops.contract.protocol.progress import is_system, parse_progress
from airflow_mlops.contract.tools.check import check_output
from tests.unit.contract.tiny import Tiny


class TrainOnly(ModelCode):
    name = "train-only"
    version = "1"
    seen: list = []  # noqa: RUF012

    def train(self, job):
        self.seen.append(job)
        return "model"

    def save(self, model, directory, job):
        (directory / "model.txt").write_text(model)


def test_describe_prints_one_json_object(capsys):
    assert execute(Tiny, "describe") == 0
    printed = capsys.readouterr().out
    description = json.loads(printed)
    assert max(map(len, printed.splitlines())) < 1000  # a log may cut long lines
    assert description["contract"] == 1
    assert (description["name"], description["version"]) == ("tiny", "0.1.0")
    assert description["commands"] == ["describe", "train", "evaluate", "test", "predict", "serve"]
    assert description["parameters"]["properties"]["smoothing"]["maximum"] == 10


def test_the_commands_are_those_that_the_class_has():
    assert TrainOnly.commands() == ["describe", "train"]


def test_train_writes_model_metrics_and_progress(prepare, capsys):
    paths = prepare({"rounds": 2})
    assert execute(Tiny, "train", paths) == 0
    assert set(json.loads((paths.model / "model.json").read_text())) == {"a", "b"}
    assert json.loads(paths.metrics.read_text())[1] == {
        "name": "loss",
        "value": 0.5,
        "step": 2,
        "split": "validation",
        "direction": "minimize",
    }
    lines = [parse_progress(line) for line in capsys.readouterr().out.splitlines()]
    (last,) = [line for line in lines if line and line["step"] == 2]
    assert abs(last.pop("time") / 1000 - time.time()) < 60
    assert last == {"metrics": {"loss": 0.5}, "step": 2, "total": 2}


def test_train_says_what_it_ran_with(prepare, tmp_path, monkeypatch):
    lock = tmp_path / "my.lock"
    lock.write_text("pytest==1\n")
    monkeypatch.setenv("MLOPS_LOCK_FILE", str(lock))
    paths = prepare()
    assert execute(Tiny, "train", paths) == 0
    found = json.loads((paths.environment / "environment.json").read_text())
    assert found["python"] == platform.python_version()
    assert found["packages"]["pytest"] == metadata.version("pytest")
    assert found["lock_file"] == "my.lock"
    assert (paths.environment / "my.lock").read_text() == "pytest==1\n"


def test_system_metrics_come_when_asked_for(prepare, capsys):
    assert execute(Tiny, "train", prepare(system_metrics=0.05)) == 0
    (*_, line) = [line for line in capsys.readouterr().out.splitlines() if is_system(line)]
    last = parse_progress(line)["metrics"]
    assert 0 <= last["system/cpu_utilization_percentage"] <= 100
    assert 10 < last["system/system_memory_usage_megabytes"] < 100_000
    assert 0 < last["system/system_memory_usage_percentage"] <= 100
    assert not any(thread.name == "system-metrics" for thread in threading.enumerate())
    assert execute(Tiny, "train", prepare()) == 0
    assert "system/" not in capsys.readouterr().out


def test_evaluate_test_and_predict_use_the_model(prepare):
    paths = prepare()
    assert execute(Tiny, "train", paths) == 0
    assert execute(Tiny, "evaluate", paths) == 0
    assert json.loads(paths.metrics.read_text())[0]["name"] == "brier"
    assert execute(Tiny, "test", paths) == 0
    assert ET.parse(paths.tests).getroot().find("testsuite").get("failures") == "0"
    assert execute(Tiny, "predict", paths) == 0
    assert len(json.loads(paths.predictions.read_text())) == 20


@pytest.mark.parametrize(
    ("parameters", "exit_code", "said"),
    [
        ({"smoothing": 11}, 10, "smoothing is 11"),
        ({"smothing": 1}, 10, "did you mean smoothing?"),
        ({"fail": "data"}, 11, "no such thing"),
        ({"fail": "assumption"}, 12, "never negative"),
        ({"fail": "again"}, 75, "licence server"),
        ({"fail": "bug"}, 1, "KeyError: 'left_over'"),
    ],
)
def test_a_failure_has_its_exit_code_and_its_reason(prepare, capsys, parameters, exit_code, said):
    paths = prepare(parameters)
    assert execute(Tiny, "train", paths) == exit_code
    assert said in paths.failure.read_text()
    assert said.split(":")[0] in capsys.readouterr().err
    assert ("Traceback" in paths.failure.read_text()) == (exit_code == 1)


def test_broken_assumptions_are_written_for_a_program_to_read(prepare, monkeypatch):
    failures = [{"column": "x", "expected": "≥ 0", "observed": "-3", "examples": [{"id": 7}], "when": {1, 2}}]

    def train(self, job):
        raise AssumptionError("x is never negative.", failures=failures)

    monkeypatch.setattr(Tiny, "train", train)
    paths = prepare()
    assert execute(Tiny, "train", paths) == 12
    (found,) = json.loads(paths.assumptions.read_text())
    assert (found["column"], found["expected"], found["examples"]) == ("x", "≥ 0", [{"id": 7}])
    assert "never negative" in paths.failure.read_text()
    monkeypatch.undo()
    assert execute(Tiny, "train", paths) == 0
    assert not paths.assumptions.exists()


def test_failed_cases_end_with_13_and_a_report(prepare):
    assert execute(Tiny, "train", prepare()) == 0
    paths = prepare({"fail": "case"})
    assert execute(Tiny, "test", paths) == 13
    assert paths.failure.read_text().startswith("1 of 2 test cases failed:\nas asked: asked to")
    assert ET.parse(paths.tests).getroot().find("testsuite").get("failures") == "1"


def test_a_missing_column_is_named_with_the_nearest(prepare):
    paths = prepare(columns={"keys": ["id"], "targets": ["y"], "features": ["groups"]})
    assert execute(Tiny, "train", paths) == 11
    assert "The train split lacks groups (nearest: group)" in paths.failure.read_text()


def test_no_file_of_a_split_is_a_data_failure(prepare):
    paths = prepare()
    (paths.split("train") / "part-0.parquet").unlink()
    assert execute(Tiny, "train", paths) == 11
    assert "`train` needs the train split" in paths.failure.read_text()


def test_a_command_that_needs_the_model_says_that_there_is_none(prepare):
    paths = prepare()
    assert execute(Tiny, "predict", paths) == 11
    assert "No model in" in paths.failure.read_text()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "expected a JSON object, got list"),
        ('{"contract": 2}', "contract 2, but this image speaks contract 1"),
        ('{"seed": "x"}', "seed: expected a whole number"),
        ('{"parameters": []}', "parameters: expected an object"),
        ('{"columns": []}', "columns: expected an object"),
    ],
)
def test_a_broken_configuration_is_final_and_named(prepare, content, said):
    paths = prepare()
    paths.config.write_text(content)
    if content == '{"columns": []}':
        said = "columns: expected an object, got list"
    assert execute(Tiny, "train", paths) == 10
    assert said in paths.failure.read_text()


def test_parameters_come_as_strings_where_nothing_types_them(prepare, monkeypatch):
    paths = prepare()
    paths.config.unlink()
    paths.hyperparameters.write_text('{"rounds": "5"}')
    monkeypatch.setattr(TrainOnly, "seen", [])
    monkeypatch.setattr(TrainOnly, "parameters", {"rounds": {"type": "integer"}})
    assert execute(TrainOnly, "train", paths) == 0
    assert TrainOnly.seen[0].parameters == {"rounds": 5}
    assert TrainOnly.seen[0].columns == Columns()


def test_results_of_an_earlier_job_do_not_stay(prepare):
    assert execute(Tiny, "train", prepare()) == 0
    paths = prepare({"fail": "bug"})
    assert execute(Tiny, "train", paths) == 1
    assert not paths.metrics.exists()
    assert execute(Tiny, "train", prepare()) == 0
    assert not paths.failure.exists()


def test_an_old_model_does_not_stay_beside_the_new_one(prepare):
    paths = prepare()
    (paths.model / "old").mkdir(parents=True)
    (paths.model / "old" / "weights").write_text("x")
    assert execute(Tiny, "train", paths) == 0
    assert [path.name for path in paths.model.iterdir()] == ["model.json"]


def test_a_save_that_wrote_nothing_is_a_failure(prepare, monkeypatch):
    monkeypatch.setattr(Tiny, "save", lambda *_: None)
    paths = prepare()
    assert execute(Tiny, "train", paths) == 1
    assert "save wrote nothing" in paths.failure.read_text()


def test_a_predict_that_wrote_nothing_is_a_failure(prepare, monkeypatch):
    paths = prepare()
    assert execute(Tiny, "train", paths) == 0
    monkeypatch.setattr(Tiny, "predict", lambda *_: None)
    assert execute(Tiny, "predict", paths) == 1
    assert "did not write" in paths.failure.read_text()


@pytest.mark.parametrize(("words", "code"), [([], 2), (["trian"], 2), (["train", "x"], 2), (["--help"], 0)])
def test_the_command_line_is_one_known_word(words, code, capsys):
    with pytest.raises(SystemExit) as stop:
        main(Tiny, words)
    assert stop.value.code == code
    assert "expected one of describe, train, evaluate" in capsys.readouterr().err


def test_the_root_comes_from_the_environment(prepare, monkeypatch):
    paths = prepare()
    monkeypatch.setenv("MLOPS_ROOT", str(paths.root))
    with pytest.raises(SystemExit) as stop:
        main(Tiny, ["train"])
    assert stop.value.code == 0
    assert paths.metrics.exists()


def test_what_a_job_left_can_be_checked(prepare):
    paths = prepare()
    assert execute(Tiny, "train", paths) == 0
    assert check_output(paths) == []
    paths.metrics.write_text('[{"name": "a"}]')
    paths.predictions.write_text("no")
    paths.tests.write_text("no")
    assert [problem.split(":")[0] for problem in check_output(paths)] == [
        "output/metrics.json",
        "output/tests.xml",
        "output/predictions.parquet",
    ]
