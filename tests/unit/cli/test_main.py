"""The command line as a person and a script see it: real processes."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_mlops import __version__
from airflow_mlops.cli import main
from airflow_mlops.exceptions import MLOpsError
from tests.fixtures.deadlines import DEADLINE
from tests.unit.spec.samples import FULL, MINIMAL

TINY = MINIMAL + "store: /s\n"


@pytest.fixture
def cli(tmp_path):
    """Run ``airflow-mlops`` in a fresh folder."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "airflow_mlops.cli", *words]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=DEADLINE
        )

    return run


def test_the_entry_point_of_the_installation():
    done = subprocess.run(
        [str(Path(sys.executable).with_name("airflow-mlops")), "--version"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"airflow-mlops {__version__}\n")


@pytest.mark.parametrize("words", [[], ["no-such"], ["validate"], ["validate", "--no-such", "x"]])
def test_wrong_usage_is_2(words, capsys):
    assert main(words) == 2
    assert "usage: airflow-mlops" in capsys.readouterr().err


def test_help_is_0_and_lists_the_commands(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("validate", "schema", "plan", "generate"))


def test_our_own_errors_are_one_message_without_a_traceback(monkeypatch, capsys):
    def refuse(arguments):
        raise MLOpsError("no such thing. Cure: none")

    monkeypatch.setattr("airflow_mlops.cli.application.schema.run", refuse)
    assert main(["schema"]) == 1
    assert capsys.readouterr().err == "airflow-mlops schema: no such thing. Cure: none\n"


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    (tmp_path / "a.yaml").write_text(TINY)
    command = f"{sys.executable} -m airflow_mlops.cli schema | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("{\n", "")


@pytest.mark.parametrize("words", [["validate", "app.yaml"], ["schema"]])
def test_quick_and_without_airflow(cli, tmp_path, words):
    (tmp_path / "app.yaml").write_text(FULL)
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert cli(*words).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 1  # CPU seconds, as other tests may keep the machine busy; 0.3 s of wall time alone
    code = (
        "import sys; from airflow_mlops.cli import main; assert main(sys.argv[1:]) == 0;"
        "print([name for name in sys.modules if name.split('.')[0] in ('airflow', 'numpy', 'pandas')], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]\n"


class TestSchema:
    def test_it_is_a_schema(self, cli):
        import jsonschema

        done = cli("schema")
        assert done.returncode == 0
        jsonschema.Draft202012Validator.check_schema(json.loads(done.stdout))

    def test_the_reference_as_markdown(self, cli):
        done = cli("schema", "--markdown")
        assert (done.returncode, done.stderr) == (0, "")
        assert "| `window` | duration | `365d` |" in done.stdout
        assert "| `features` | text or `null` | **required** |" in done.stdout


class TestValidate:
    def test_good_files_are_0(self, cli, tmp_path):
        (tmp_path / "app.yaml").write_text(TINY)
        done = cli("validate", "app.yaml")
        assert (done.returncode, done.stdout, done.stderr) == (0, "OK  app.yaml: tiny\n", "")

    def test_problems_are_1_with_places_relative_to_here(self, cli, tmp_path):
        (tmp_path / "apps").mkdir()
        (tmp_path / "apps" / "good.yaml").write_text(TINY)
        (tmp_path / "apps" / "bad.yaml").write_text(
            FULL.replace("owner:", "ower:").replace("seed: 7", "seed: x")
        )
        done = cli("validate", "apps")
        lines = done.stdout.splitlines()
        assert (done.returncode, done.stderr) == (1, "")
        assert lines[:2] == ["OK  apps/good.yaml: tiny", "apps/bad.yaml:3:1: ower is not a known key"]
        assert "    nearest:  owner" in lines
        assert any(line.startswith("apps/bad.yaml:38:3: training.seed ") for line in lines)
        assert lines[-1] == "2 problems in 1 file"

    def test_json(self, cli, tmp_path):
        (tmp_path / "good.yaml").write_text(TINY)
        (tmp_path / "bad.yaml").write_text(FULL.replace("owner:", "ower:"))
        done = cli("validate", "--json", ".")
        assert done.returncode == 1
        found = json.loads(done.stdout)
        assert found["ok"] is False
        assert found["applications"] == [{"application": "tiny", "file": "good.yaml"}]
        [problem] = found["problems"]
        assert (problem["file"], problem["line"], problem["column"]) == ("bad.yaml", 3, 1)
        assert (problem["key"], problem["got"], problem["nearest"]) == ("ower", "ower", "owner")
        (tmp_path / "bad.yaml").unlink()
        assert json.loads(cli("validate", "--json", ".").stdout)["ok"] is True

    def test_a_problem_of_the_defaults_is_told_once(self, cli, tmp_path):
        for name in ("a", "b"):
            (tmp_path / f"{name}.yaml").write_text(TINY.replace("tiny\n", f"{name}\n"))
        (tmp_path / "defaults.yaml").write_text("ower: me\n")
        for path in (".", "defaults.yaml"):
            done = cli("validate", path)
            assert done.returncode == 1
            assert done.stdout.count("defaults.yaml:1:1: ower is not a known key") == 1
            assert done.stdout.endswith("1 problem in 2 files\n")

    def test_two_applications_of_one_name_name_both_files(self, cli, tmp_path):
        (tmp_path / "a.yaml").write_text(TINY)
        (tmp_path / "b.yaml").write_text(TINY)
        done = cli("validate", "a.yaml", "b.yaml")
        assert done.returncode == 1
        assert "a.yaml:1:1: application has the name of another application, in " in done.stdout
        assert "b.yaml:1:1: application has the name of another application, in " in done.stdout

    @pytest.mark.parametrize(
        ("path", "words"), [("no.yaml", "does not exist"), (".", "has no YAML file in it")]
    )
    def test_nothing_to_check_is_2(self, cli, path, words):
        done = cli("validate", path)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr
        assert "Cure: " in done.stderr
