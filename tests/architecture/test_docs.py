"""The documentation says what is: its commands run, its links lead somewhere, and it leaves nothing out."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

import airflow_mlops
from airflow_mlops import exceptions
from airflow_mlops.cli import main
from airflow_mlops.cli.main import _parser
from airflow_mlops.contract.protocol import failures
from airflow_mlops.contract.protocol.paths import Paths
from airflow_mlops.contract.tools.check import check_output
from airflow_mlops.primitives.reasons import ReasonKind
from airflow_mlops.primitives.training.outcome import EXIT_CODES
from airflow_mlops.spec.reading.reference import keys
from tests.fixtures.deadlines import DEADLINE
from tests.fixtures.markdown import ROOT, blocks, prose, write_files

PAGES = sorted(
    page
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md"))
    if ".demo" not in page.parts
)
PACKAGE = Path(airflow_mlops.__file__).parent
MODULES = sorted(
    ".".join(("airflow_mlops", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
)


def source_of(module: str) -> str:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def script(page: Path) -> str:
    """A page as a shell script: its files are written and its commands run where they stand."""
    lines = ["set -e"]
    for block in blocks(page):
        if block.file:
            lines.append(f"cat > {block.file} <<'END_OF_FILE'\n{block.text}END_OF_FILE")
        elif block.mark == "run":
            lines.append(block.text)
    return "\n".join(lines)


def run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


class TestLinks:
    @pytest.mark.parametrize("page", PAGES, ids=named)
    def test_every_relative_link_leads_somewhere(self, page):
        for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
            if re.match(r"[a-z]+:", link):
                continue
            target, _, anchor = link.partition("#")
            file = (page.parent / target).resolve() if target else page
            assert file.exists(), f"{link} leads nowhere"
            assert file.is_relative_to(ROOT), f"{link} leads out of the repository"
            if anchor:
                assert anchor in anchors(file), f"{link}: no such heading"

    def test_every_page_of_the_docs_can_be_reached(self):
        linked = {
            (page.parent / link.partition("#")[0]).resolve()
            for page in PAGES
            for link in re.findall(r"\]\(([^)\s]+)\)", prose(page))
        }
        docs = {page for page in PAGES if page.is_relative_to(ROOT / "docs")}
        assert {named(page) for page in docs if page not in linked and page.parent not in linked} == set()

    def test_nothing_is_said_of_the_machine_it_was_written_on(self):
        for page in PAGES:
            assert not re.search(r"/(root|work|home/[a-z]+)/", page.read_text()), named(page)


#: Pages whose ``sh run`` blocks the classes below run.
RUN = {
    "README.md",
    "docs/tutorial.md",
    "docs/howto/feature-pipelines.md",
    "docs/howto/model-repository.md",
    "docs/howto/paradigms.md",
}


class TestCode:
    """What the blocks that nobody runs say."""

    def test_every_block_that_says_run_is_run(self):
        assert {named(page) for page in PAGES if any(block.mark == "run" for block in blocks(page))} == RUN

    @pytest.mark.parametrize("page", PAGES, ids=named)
    def test_every_command_of_ours_is_understood(self, page, capsys):
        for block in blocks(page):
            if block.language != "sh":
                continue
            for line in re.findall(r"^airflow-mlops .*$", block.text, re.MULTILINE):
                words = shlex.split(line.partition(" > ")[0], comments=True)[1:]
                try:
                    _parser(words).parse_args(words)
                except SystemExit:
                    pytest.fail(f"{line}\n{capsys.readouterr().err}")

    @pytest.mark.parametrize("page", PAGES, ids=named)
    def test_everything_of_ours_can_be_imported(self, page):
        for block in blocks(page):
            if block.language != "python":
                continue
            for node in ast.walk(ast.parse(block.text)):
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith("airflow_mlops"):
                    names = ", ".join(name.name for name in node.names)
                    exec(f"from {node.module} import {names}", {})

    def test_the_hash_of_splits_is_as_written(self):
        text = next(
            block.text for block in blocks(ROOT / "docs/howto/splits.md") if block.language == "python"
        )
        assert "assert bucket(" in text
        exec(text, {})

    def test_every_how_to_is_in_the_index(self):
        linked = set(re.findall(r"\]\((docs/[^)#]+)", (ROOT / "README.md").read_text()))
        assert {named(page) for page in PAGES if page.is_relative_to(ROOT / "docs/howto")} <= linked

    def test_every_extra_is_explained(self):
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        text = (ROOT / "docs/howto/install.md").read_text()
        rows = re.findall(r"^\| (`[a-z`, ]+`) \|", text, re.MULTILINE)
        assert set(extras) <= set(re.findall(r"`(\w+)`", " ".join(rows)))

    def test_decisions_are_numbered_without_gaps(self):
        pages = sorted((ROOT / "docs/adr").glob("*.md"))
        assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
        assert [page.read_text().split(".")[0] for page in pages] == [f"# {n + 1}" for n in range(len(pages))]


class TestReadme:
    def smallest(self) -> str:
        (block,) = [block for block in blocks(ROOT / "README.md") if block.language == "yaml"]
        return block.text

    def test_its_yaml_validates_and_builds_its_dags(self, tmp_path, capsys):
        from airflow_mlops.factories import build_dags
        from airflow_mlops.spec import load_application

        file = tmp_path / "churn.yaml"
        file.write_text(self.smallest())
        assert main(["validate", str(file)]) == 0, capsys.readouterr().out
        assert set(build_dags(load_application(file))) == {"churn__provisioning", "churn__training"}
        file.write_text(self.smallest() + "delivery: [{batch: {}}]\n")
        assert {"churn__delivery", "churn__monitoring"} <= set(build_dags(load_application(file)))

    def test_its_commands_of_ours_run(self, tmp_path):
        (tmp_path / "dags/applications").mkdir(parents=True)
        for file in (ROOT / "dags/applications").glob("*.yaml"):
            (tmp_path / "dags/applications" / file.name).write_text(file.read_text())
        run(["bash", "-c", script(ROOT / "README.md")], tmp_path)
        assert json.loads((tmp_path / "application.schema.json").read_text())["required"] == ["application"]

    def test_make_has_its_doors(self):
        text = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
        doors = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert set(re.findall(r"\bmake ([a-z]+)\b(?!')", text)) <= doors


class TestTutorial:
    def test_everything_up_to_airflow_runs_as_written(self, tmp_path):
        said = run(["bash", "-c", script(ROOT / "docs/tutorial.md")], tmp_path).stdout
        assert "OK  applications/churn.yaml: churn" in said
        assert "churn__monitoring: on news of churn.predictions" in said
        assert (tmp_path / "churn/applications/churn.py").exists()


class TestFeaturePipelines:
    def test_its_files_and_commands_fit_together(self, tmp_path):
        said = run(["bash", "-c", script(ROOT / "docs/howto/feature-pipelines.md")], tmp_path).stdout
        assert "OK  features/usage.yaml: usage (features)" in said
        assert "OK  applications/churn.yaml: churn" in said
        assert "warning" not in said
        assert "usage__features: at 15 * * * * UTC" in said
        assert (tmp_path / "features/usage.py").exists()


class TestModelRepository:
    def test_what_it_writes_is_what_the_page_names(self, tmp_path):
        page = ROOT / "docs/howto/model-repository.md"
        said = run(["bash", "-c", script(page)], tmp_path).stdout
        assert "OK  house_price/applications/house_price.yaml: house_price" in said
        rows = re.findall(r"^\| (`.*?) \|", page.read_text(), re.MULTILINE)
        named = {name for row in rows for name in re.findall(r"`([^`]*[./][^`]*|Dockerfile|Makefile)`", row)}
        written = {
            str(path.relative_to(tmp_path / "house_price"))
            for path in (tmp_path / "house_price").rglob("*")
            if path.is_file()
        }
        assert named <= written
        assert {name for name in written - named if not name.endswith("ignore")} == {
            "README.md",
            "requirements-dev.txt",
        }


class TestParadigms:
    def test_the_examples_are_applications(self, tmp_path):
        shutil.copytree(
            ROOT / "examples",
            tmp_path / "examples",
            ignore=shutil.ignore_patterns("flight_delay", "data", "store", "__pycache__"),
        )
        said = run(["bash", "-c", script(ROOT / "docs/howto/paradigms.md")], tmp_path).stdout
        assert said.count("OK  ") == 3
        assert "cart_pole__training: on news of" in said
        assert len([*tmp_path.glob("examples/*/data/*.parquet")]) == 3


class TestContract:
    """The examples of ``docs/contract.md`` do what the page promises."""

    @pytest.fixture
    def files(self, tmp_path):
        found = {block.file: block.text for block in blocks(ROOT / "docs/contract.md") if block.file}
        write_files(tmp_path, found)
        return tmp_path

    @pytest.mark.parametrize(
        ("command", "words"),
        [
            (["sh", "model.sh"], ("train", "evaluate", "test")),
            (["python", "base_rate.py"], ("train", "evaluate", "test", "predict")),
        ],
        ids=["sh", "python"],
    )
    def test_the_smallest_model_codes_keep_it(self, files, tmp_path, command, words):
        from airflow_mlops.jobs.files import read_metrics
        from airflow_mlops.primitives.evaluation.cases import read_test_summary
        from airflow_mlops.primitives.monitoring.performance import expected_loss
        from airflow_mlops.primitives.training.description import parse_description

        job = tmp_path / "job"
        prepare(job)
        description = parse_description(run([*command, "describe"], files).stdout)
        assert set(words) <= set(description["commands"])
        for word in words:
            run([*command, word], files, MLOPS_ROOT=str(job))
            if word in ("train", "evaluate"):
                metrics = read_metrics(job / "output/metrics.json")
            if word == "test":
                assert read_test_summary(job / "output/tests.xml").passed == 1
            assert check_output(Paths(job)) == []
        assert (job / "model/MLmodel").exists()
        assert expected_loss(metrics, "brier", "the page").mean == pytest.approx(0.25)

    def test_it_names_every_exit_code(self):
        text = (ROOT / "docs/contract.md").read_text()
        codes = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
        assert codes == set(EXIT_CODES)
        ours = {
            kind.exit_code for _, kind in inspect.getmembers(failures, inspect.isclass) if kind.exit_code != 1
        }
        assert ours <= codes

    def test_its_configuration_has_the_keys_that_jobs_get(self):
        given = next(
            json.loads(block.text.replace("…", ""))
            for block in blocks(ROOT / "docs/contract.md")
            if block.language == "json" and '"command"' in block.text
        )
        from airflow_mlops.jobs.files import column_config

        source = inspect.getsource(column_config)
        assert all(f'"{role}"' in source for role in given["columns"])
        assert set(given) == {"contract", "command", "seed", "paradigm", "parameters", "columns", "run"}


class TestReference:
    def test_yaml_md_is_up_to_date(self, capsys):
        assert main(["schema", "--markdown"]) == 0
        cure = "Cure: airflow-mlops schema --markdown > docs/yaml.md"
        assert capsys.readouterr().out == (ROOT / "docs/yaml.md").read_text(), cure

    def test_every_key_is_described(self):
        assert [key for key, meaning in keys().items() if not meaning] == []
        assert {"application", "provisioning.examples.keys", "evaluation.require[].metric"} <= set(keys())

    def test_every_reason_is_explained(self):
        text = (ROOT / "docs/howto/retraining.md").read_text()
        assert set(get_args(ReasonKind)) == set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))


class TestNames:
    @pytest.mark.parametrize("module", [name for name in MODULES if "\n__all__ = " in source_of(name)])
    def test_what_a_module_offers_exists(self, module):
        found = import_module(module)
        assert [name for name in found.__all__ if not hasattr(found, name)] == []
        assert len(set(found.__all__)) == len(found.__all__)

    def test_every_error_is_in_the_tree(self):
        drawn = re.findall(r"^[ │├└─]*([A-Z]\w+)(?: {2,}.*)?$", exceptions.__doc__ or "", re.MULTILINE)
        defined = [
            name
            for name, kind in inspect.getmembers(exceptions, inspect.isclass)
            if kind.__module__ == exceptions.__name__
        ]
        assert sorted(drawn) == sorted(defined)

    @pytest.mark.parametrize(
        "module", [name for name in MODULES if re.search(r"\.(operators|sensors)\.", name)]
    )
    def test_operators_explain_each_argument(self, module):
        for node in ast.parse(source_of(module)).body:
            if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
                continue
            text = ast.get_docstring(node) or ""
            assert text, f"{node.name} has no docstring"
            explained = set(re.findall(r"^:param (\w+):", text, re.MULTILINE))
            arguments = {
                argument.arg
                for method in node.body
                if isinstance(method, ast.FunctionDef) and method.name == "__init__"
                for argument in (*method.args.args[1:], *method.args.kwonlyargs)
            }
            assert arguments == explained, f"{node.name}: arguments and :param of its docstring differ"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def prepare(root: Path) -> None:
    """A job's folder with a few rows in every split."""
    import duckdb

    for split in ("train", "validation", "test", "predict"):
        folder = root / "input/data" / split
        folder.mkdir(parents=True)
        columns = "i AS id, i % 7 AS x" + ("" if split == "predict" else ", i % 2 AS y")
        duckdb.sql(f"SELECT {columns} FROM range(100) t(i)").write_parquet(str(folder / "00000.parquet"))
    columns = {"keys": ["id"], "timestamp": None, "targets": ["y"], "features": ["x"]}
    config = {"contract": 1, "command": "train", "parameters": {}, "seed": 7, "columns": columns, "run": {}}
    (root / "input/config").mkdir()
    (root / "input/config/mlops.json").write_text(json.dumps(config))
    for name in ("model", "output"):
        (root / name).mkdir()
