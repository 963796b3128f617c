from __future__ import annotations

import json

import duckdb
import pytest

from airflow_mlops.cli import main
from airflow_mlops.cli.contract import rehearsal
from airflow_mlops.cli.contract.data import find_rows
from airflow_mlops.cli.trial.tasks import LAST_LINES, TrialError
from airflow_mlops.contract.__main__ import run as run_contract
from airflow_mlops.exceptions import SourceError

NOTHING = {"keys": None, "timestamp": None, "targets": None}
ROLES = {"keys": ["id"], "timestamp": "at", "targets": ["y"]}


def land(file, what="SELECT 1 AS id, now() AS at, 2.5 AS x, true AS y"):
    file.parent.mkdir(parents=True, exist_ok=True)
    duckdb.sql(f"COPY ({what}) TO '{file}'")


class TestTheRowsOfAFolder:
    @pytest.mark.parametrize(
        ("name", "reader"),
        [("a.parquet", "read_parquet"), ("a.PARQ", "read_parquet"), ("a.csv.gz", "read_csv")],
    )
    def test_files_are_split_by_time(self, tmp_path, name, reader):
        land(tmp_path / "x.parquet")
        (tmp_path / "x.parquet").rename(tmp_path / name)
        (tmp_path / ".unfinished.csv").touch()
        (tmp_path / "README.md").touch()
        rows = find_rows(tmp_path, ROLES, {"depth": 3})
        assert rows.sql == f"SELECT * FROM {reader}(['{name}'])"
        assert (rows.predicted, rows.parameters) == ("", {"depth": 3})
        assert "split" not in rows.provisioning()

    def test_a_job_says_roles_splits_and_parameters_itself(self, tmp_path):
        for split in ("train", "validation", "test"):
            land(tmp_path / f"input/data/{split}/00000.parquet")
        config = tmp_path / "input/config/mlops.json"
        config.parent.mkdir()
        config.write_text(json.dumps({"columns": {**ROLES, "features": ["x"]}, "parameters": {"depth": 3}}))
        rows = find_rows(tmp_path, NOTHING)
        assert rows.roles == ROLES
        assert rows.parameters == {"depth": 3}
        assert rows.provisioning()["split"]["by"] == "column"
        assert rows.predicted == """SELECT "id", "at", "y", "x" FROM read_parquet(['test/00000.parquet'])"""

    def test_what_the_command_line_says_is_stronger(self, tmp_path):
        land(tmp_path / "input/data/a.parquet")
        config = tmp_path / "input/config/mlops.json"
        config.parent.mkdir()
        config.write_text(json.dumps({"columns": ROLES, "parameters": {"depth": 3}}))
        rows = find_rows(tmp_path, {**NOTHING, "targets": ["x"]}, {})
        assert (rows.roles["targets"], rows.parameters) == (["x"], {})

    @pytest.mark.parametrize(
        ("files", "said", "told"),
        [
            (["a.parquet"], {**ROLES, "timestamp": None}, "Cure: --timestamp COLUMN"),
            (["a.parquet"], {**ROLES, "keys": None}, "Cure: --keys COLUMN"),
            (["a.parquet", "b.csv"], ROLES, "files of several forms (parquet, csv)"),
            ([], ROLES, "no file of rows"),
            (["train/a.parquet"], ROLES, "no validation and test"),
        ],
    )
    def test_what_cannot_be_read_is_said_with_its_cure(self, tmp_path, files, said, told):
        for name in files:
            land(tmp_path / name)
        with pytest.raises(SourceError) as raised:
            find_rows(tmp_path, said)
        assert told in str(raised.value)
        assert "Cure: " in str(raised.value)

    def test_no_folder(self, tmp_path):
        with pytest.raises(SourceError, match=r"is no folder\. Cure: "):
            find_rows(tmp_path / "gone", ROLES)


class TestWhatFailed:
    def test_the_command_its_last_lines_and_the_cure(self):
        LAST_LINES.clear()
        LAST_LINES.extend(["epoch 1", "Traceback"])
        told = rehearsal._failure("churn:1", TrialError("train: of churn:1: KeyError", "train"))
        assert told.splitlines()[:4] == [
            "train: of churn:1: KeyError",
            "Its last lines:",
            "  | epoch 1",
            "  | Traceback",
        ]
        assert "Cure: mend `train` of the model code, build churn:1 again" in told

    def test_a_cure_of_the_operator_stays_the_only_one(self):
        told = rehearsal._failure("churn:1", TrialError("train: it failed. Cure: do this.", "train"))
        assert told.count("Cure:") == 1

    def test_a_test_that_ran_no_case_fails_as_in_the_gate(self):
        with pytest.raises(TrialError, match="no case ran"):
            rehearsal._check_cases({"total": 0, "failures": 0, "errors": 0, "skipped": 0, "failed": []})


class TestTheContractsOwnCommandLine:
    def test_without_the_whole_package_it_says_what_is_missing(self, monkeypatch, capsys):
        monkeypatch.setattr("airflow_mlops.contract.__main__.find_spec", lambda name: None)
        assert run_contract(["check", "churn:1", "--data", "rows"]) == 2
        assert "pip install airflow-mlops, without --no-deps" in capsys.readouterr().err

    def test_a_folder_that_a_job_left_has_no_data(self, tmp_path, capsys):
        assert main(["contract", "check", str(tmp_path), "--data", str(tmp_path)]) == 2
        assert "--data is for images" in capsys.readouterr().err

    def test_parameters_are_a_json_object(self, capsys):
        assert main(["contract", "check", "churn:1", "--parameters", "[1]"]) == 2
        assert "expected an object" in capsys.readouterr().err
