"""A repository that `airflow-mlops init` wrote: its tests pass, its notebook runs, its loop can be tried, in its image, too."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

from airflow_mlops.cli.main import main
from airflow_mlops.contract.tools.announce import PASSWORD, TOKEN, USER
from tests.fixtures.deadlines import DEADLINE


@pytest.fixture(scope="module")
def repository(tmp_path_factory, wheel) -> Path:
    folder = tmp_path_factory.mktemp("init") / "house_price"
    words = ["--folder", str(folder), "--registry", "registry.example.com/team", "--wheel", str(wheel)]
    assert main(["init", "house_price", *words]) == 0
    return folder


def make(repository: Path, *words: str) -> str:
    """Run targets of its Makefile, with the commands of this environment and nothing of its Airflow's."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    words = (
        "env",
        "--unset=AIRFLOW_CONN_FEAST_DEFAULT",
        "--unset=AIRFLOW_CONN_MLFLOW_DEFAULT",
        "make",
        *words,
    )
    return run(*words, cwd=repository, PATH=path, AIRFLOW_HOME=str(repository / "airflow"))


@pytest.fixture(scope="module")
def landed(repository) -> Path:
    """The repository with its rows and its feature store."""
    make(repository, "data")
    return repository


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def step(repository: Path, name: str) -> str:
    """A step of GitHub's recipe."""
    recipe = yaml.safe_load((repository / ".github/workflows/model.yml").read_text())
    return next(one["run"] for one in recipe["jobs"]["model"]["steps"] if one.get("name") == name)


def test_its_tests_pass(repository):
    assert "passed" in run(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", cwd=repository
    )


def test_its_notebook_runs(repository):
    cells = json.loads((repository / "notebooks/draft.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    said = run(sys.executable, "-c", f"{code}\nprint(len(pq.read_table(paths.predictions)))", cwd=repository)
    assert "train ended with 0" in said
    assert "evaluate ended with 0" in said
    assert said.splitlines()[-1] == "200"


def test_its_loop_is_checked_and_tried(landed):
    assert "OK  applications/house_price.yaml: house_price" in make(landed, "check")
    before = {path for path in landed.rglob("*") if path.is_file()}
    assert "The candidate passed all 3 checks." in make(landed, "try")
    left = {path for path in landed.rglob("*") if path.is_file()} - before
    assert {path for path in left if not path.is_relative_to(landed / "airflow")} <= set(
        landed.rglob("__pycache__/*")
    )


def test_its_yaml_is_an_application(repository, capsys):
    assert main(["validate", str(repository / "applications")]) == 0
    assert "house_price" in capsys.readouterr().out


def test_its_recipes_name_the_same_steps(repository):
    github = yaml.safe_load((repository / ".github/workflows/model.yml").read_text())
    gitlab = yaml.safe_load((repository / ".gitlab-ci.yml").read_text())
    steps = "\n".join(step.get("run", "") for step in github["jobs"]["model"]["steps"])
    scripts = "\n".join([*gitlab["test"]["script"], *gitlab["image"]["script"]])
    for told in (steps, scripts):
        for word in (
            "pytest",
            "docker build",
            "contract check",
            "docker push",
            "contract announce house_price",
            '--build-arg BASE_DIGEST="',
        ):
            assert word in told
    assert 'id="$GITHUB_RUN_ID-$GITHUB_RUN_ATTEMPT"' in steps
    assert 'id="$CI_JOB_ID"' in scripts
    hands_on = next(step for step in github["jobs"]["model"]["steps"] if step.get("name") == "Tell Airflow")
    assert {TOKEN, USER, PASSWORD} == set(hands_on["env"])
    assert github["jobs"]["model"]["env"]["IMAGE"] == "registry.example.com/team/house-price"
    assert gitlab["variables"]["IMAGE"] == "registry.example.com/team/house-price"


@pytest.mark.docker
def test_its_image_keeps_the_contract(repository, docker_engine, packages_image):
    """The two commands of the recipe, with this very package in place of a released one."""
    build, check = step(repository, "Build"), step(repository, "Hold the image to the contract")
    words = {"IMAGE": "airflow-mlops-test-house-price", "GITHUB_SHA": "abc123"}
    words |= {"BASE": packages_image, "BASE_DIGEST": "sha256:ba5e"}
    run("sh", "-c", build, cwd=repository, **words)
    check = check.replace("python -m", f"{sys.executable} -m")
    assert "nothing breaks contract 1" in run("sh", "-c", check, cwd=repository, **words)
    labels = docker_engine(
        "image", "inspect", "--format", "{{json .Config.Labels}}", "airflow-mlops-test-house-price:abc123"
    )
    assert json.loads(labels)["org.opencontainers.image.revision"] == "abc123"
    assert json.loads(labels)["org.opencontainers.image.base.digest"] == "sha256:ba5e"
    lock = docker_engine(
        "run", "--rm", "--entrypoint", "cat", "airflow-mlops-test-house-price:abc123", "requirements.lock"
    )
    assert re.search(r"^numpy==\d", lock, re.MULTILINE)
    docker_engine("rmi", "airflow-mlops-test-house-price:abc123")


@pytest.mark.docker
def test_its_loop_is_tried_in_its_image(landed, docker_engine, packages_image):
    image = "registry.example.com/team/house-price:main"
    base = ("--build-arg", f"BASE_IMAGE={packages_image}")
    docker_engine("build", "--quiet", *base, "--tag", image, str(landed))
    try:
        assert "The candidate passed all 3 checks." in make(landed, "try", "TRY=--run-on docker --rows 2000")
    finally:
        docker_engine("rmi", image)


@pytest.mark.docker
def test_the_base_is_pinned_by_its_digest(repository, docker_engine, registry, tmp_path):
    with tarfile.open(tmp_path / "base.tar", "w") as archive:
        archive.add(__file__, "base.txt")
    docker_engine("import", str(tmp_path / "base.tar"), "airflow-mlops-test-base:1")
    pushed = registry.push(docker_engine, "airflow-mlops-test-base:1", "base:1")
    words = {"BASE_IMAGE": f"{registry.address}/base:1", "GITHUB_ENV": str(tmp_path / "environment")}
    run(
        "sh", "-c", step(repository, "Pin the base"), cwd=repository,
        DOCKER_CONFIG=str(registry.folder / "docker"), **words,
    )  # fmt: skip
    found = dict(line.split("=", 1) for line in (tmp_path / "environment").read_text().splitlines())
    assert found["BASE_DIGEST"] == pushed.partition("@")[2]
    assert found["BASE"].endswith(f"@{found['BASE_DIGEST']}")
    docker_engine("rmi", f"{registry.address}/base:1", "airflow-mlops-test-base:1")


@pytest.mark.docker
def test_an_image_that_does_not_keep_it_is_told_why(docker_engine, base_image):
    done = subprocess.run(
        [sys.executable, "-m", "airflow_mlops.contract", "check", base_image],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "must carry the label ai.airflow-mlops.contract=1" in done.stdout
    assert "has no ENTRYPOINT" in done.stdout


def test_nothing_is_overwritten(repository, capsys):
    assert main(["init", "house_price", "--folder", str(repository)]) == 1
    assert "nothing is overwritten. Cure: --folder" in capsys.readouterr().err


def test_a_name_that_no_application_may_have_is_refused(tmp_path, capsys):
    assert main(["init", "House-Price", "--folder", str(tmp_path / "x")]) == 1
    assert "lower-case letters" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
