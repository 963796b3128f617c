"""A place is one section class and one line in the list; nothing else knows its name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_mlops.spec.places import PLACES
from airflow_mlops.spec.places.place import AnyGpus, Place
from tests.fixtures.markdown import ROOT
from tests.unit.spec.samples import MINIMAL

#: The section of a new place, as a file beside the others.
NOMAD = """
from typing import ClassVar

from pydantic import Field

from airflow_mlops.spec.places.place import CountedGpus, Gpus, Place


class NomadOptions(Place):
    about: ClassVar[str] = "For run_on: nomad."
    needs: ClassVar = {"datacenter": "datacenter: dc1"}
    gpus: ClassVar[Gpus] = CountedGpus
    machines: ClassVar[bool] = True
    keeps_secrets: ClassVar[bool] = False
    staged: ClassVar[bool] = True

    datacenter: str | None = Field(default=None, description="Data centre.")
    staging: str | None = Field(default=None, description="Bucket.")

    def runner(self, jobs, time_limit):
        seconds = time_limit.total_seconds()
        return {"kind": "nomad", "datacenter": self.datacenter, "staging": self.staging, "seconds": seconds}
"""
#: The line in the one list.
LINE = (
    "PLACES: dict[str, type[Place]] = {",
    """from airflow_mlops.spec.places.nomad import NomadOptions
PLACES: dict[str, type[Place]] = {
    "nomad": NomadOptions,""",
)
ASK = """
import json, sys
from pathlib import Path

from airflow_mlops.exceptions import SpecError
from airflow_mlops.factories.application import code_of, runner_of
from airflow_mlops.spec import json_schema, load_application

try:
    spec = load_application(Path(sys.argv[1]))
except SpecError as error:
    print(json.dumps({"error": str(error)}))
else:
    known = "nomad" in json.dumps(json_schema())
    print(json.dumps({"runner": runner_of(spec), "code": code_of(spec), "known": known}))
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package with one file and one line more."""
    root = tmp_path_factory.mktemp("package")
    ignored = shutil.ignore_patterns("__pycache__", "template")
    copy = Path(shutil.copytree(ROOT / "airflow_mlops", root / "airflow_mlops", ignore=ignored))
    (copy / "spec/places/nomad.py").write_text(NOMAD)
    places = copy / "spec/places/__init__.py"
    assert places.read_text().count(LINE[0]) == 1
    places.write_text(places.read_text().replace(*LINE))
    return root


@pytest.fixture
def nomad(package, tmp_path):
    """What becomes of an application that runs in the new place."""

    def load(training: str, store: str = "s3://lake/mlops") -> dict:
        path = tmp_path / "tiny.yaml"
        path.write_text(f"{MINIMAL}store: {store}\ntraining: {{run_on: nomad, {training}}}\n")
        done = subprocess.run(
            [sys.executable, "-c", ASK, str(path)], capture_output=True, text=True, cwd=package, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return load


def test_a_new_place_validates_and_has_its_runner(nomad):
    found = nomad("nomad: {datacenter: dc1}, distributed: {nodes: 2}, timeout: 1h")
    assert found == {
        "runner": {"kind": "nomad", "datacenter": "dc1", "staging": "s3://lake/mlops", "seconds": 3600.0},
        "code": {"image": "tiny:1"},
        "known": True,
    }


@pytest.mark.parametrize(
    ("training", "store", "words"),
    [
        ("nomad: {}", "s3://lake/mlops", ("training.nomad.datacenter", "add datacenter: dc1")),
        (
            "nomad: {datacenter: dc1}, resources: {gpus: all}",
            "s3://lake/mlops",
            ("training.resources.gpus", "must be a number with run_on: nomad"),
        ),
        (
            "nomad: {datacenter: dc1}, secrets: {w: warehouse}",
            "s3://lake/mlops",
            ("training.secrets", "cannot be handed over with run_on: nomad"),
        ),
        ("nomad: {datacenter: dc1}", "/srv/mlops", ("training.nomad.staging", "must be on S3")),
    ],
)
def test_what_a_new_place_declares_is_checked(nomad, training, store, words):
    message = nomad(training, store)["error"]
    for word in words:
        assert word in message


def test_one_machine_is_told_which_places_have_several(load_problem):
    message = load_problem("{distributed: {nodes: 2}}")
    assert "run_on: docker has one machine" in message
    assert "run_on: kubernetes, aws_batch or sagemaker" in message


def test_every_place_declares_what_it_says():
    for name, place in PLACES.items():
        assert issubclass(place, Place)
        assert set(place.needs) <= set(place.model_fields), name
        assert not place.staged or "staging" in place.model_fields, name
        assert place.gpus is AnyGpus or place.gpus.problem, name
        assert place.runs in ("image", "process"), name


@pytest.fixture
def load_problem(tmp_path):
    def load(training: str) -> str:
        from airflow_mlops.exceptions import SpecError
        from airflow_mlops.spec import load_application

        path = tmp_path / "tiny.yaml"
        path.write_text(f"{MINIMAL}store: /srv/mlops\ntraining: {training}\n")
        with pytest.raises(SpecError) as told:
            load_application(path)
        return str(told.value)

    return load
