from __future__ import annotations

import re
from importlib.metadata import version

import pytest
import yaml

from airflow_mlops import __version__
from airflow_mlops.cli import main
from airflow_mlops.cli.init.command import render
from airflow_mlops.spec import load_application

WHEEL = f"airflow_mlops-{__version__}-py3-none-any.whl"


@pytest.fixture
def files() -> dict[str, str]:
    return render("house_price", "registry.example.com/team")


class TestPins:
    def test_packages_are_pinned_to_what_is_here(self, files):
        for name in ("requirements.txt", "requirements-dev.txt"):
            lines = [line for line in files[name].splitlines() if not line.startswith(("#", "-r"))]
            assert all(re.fullmatch(r"[a-z-]+==[0-9.]+", line) for line in lines), lines
        assert f"numpy=={version('numpy')}" in files["requirements.txt"].splitlines()

    def test_the_package_itself_and_the_base_are_pinned(self, files):
        assert f'ARG AIRFLOW_MLOPS="airflow-mlops=={__version__}"' in files["Dockerfile"]
        assert re.search(r"^ARG BASE_IMAGE=python:3\.\d+-slim-[a-z]+$", files["Dockerfile"], re.MULTILINE)
        for name in (".github/workflows/model.yml", ".gitlab-ci.yml"):
            assert f"--no-deps airflow-mlops=={__version__}" in files[name]
            assert re.findall(r"--no-deps airflow-mlops$", files[name], re.MULTILINE) == []

    def test_nothing_is_left_to_fill_in(self, files):
        assert [name for name, text in files.items() if re.search(r"%[a-z_]+%", text + name)] == []


class TestWheel:
    def test_it_goes_into_the_repository_and_what_is_written_takes_it(self, tmp_path):
        wheel = tmp_path / "dist" / WHEEL
        wheel.parent.mkdir()
        wheel.write_bytes(b"a wheel")
        folder = tmp_path / "house_price"
        assert main(["init", "house_price", "--folder", str(folder), "--wheel", str(wheel)]) == 0
        assert (folder / "wheels" / WHEEL).read_bytes() == b"a wheel"
        dockerfile = (folder / "Dockerfile").read_text()
        copied, named = (
            dockerfile.index(line)
            for line in ("COPY wheels /opt/code/wheels", f'ARG AIRFLOW_MLOPS="wheels/{WHEEL}"')
        )
        assert dockerfile.index("WORKDIR /opt/code") < copied < named
        assert "!wheels" in (folder / ".dockerignore").read_text()
        for name in (".github/workflows/model.yml", ".gitlab-ci.yml", "README.md"):
            assert f"wheels/{WHEEL}" in (folder / name).read_text()

    @pytest.mark.parametrize("name", ["gone.whl", "churn-1.0-py3-none-any.whl"])
    def test_another_one_is_refused_before_anything_is_written(self, tmp_path, capsys, name):
        (tmp_path / "churn-1.0-py3-none-any.whl").touch()
        words = ["--folder", str(tmp_path / "house_price"), "--wheel", str(tmp_path / name)]
        assert main(["init", "house_price", *words]) == 1
        assert "Cure: make one with" in capsys.readouterr().err
        assert not (tmp_path / "house_price").exists()


class TestTheLoop:
    def test_the_yaml_has_every_part_of_it(self, files):
        sections = set(yaml.safe_load(files["applications/house_price.yaml"]))
        parts = {"provisioning", "training", "evaluation", "delivery", "monitoring", "retraining"}
        assert parts <= sections

    def test_what_the_dag_brings_wakes_delivery_and_monitoring(self, files, tmp_path):
        for name, text in files.items():
            if name.startswith("applications/"):
                (tmp_path / name).parent.mkdir(exist_ok=True)
                (tmp_path / name).write_text(text)
        spec = load_application(tmp_path / "applications/house_price.yaml")
        names = {
            "__file__": str(tmp_path / "applications/house_price_data.py"),
            "__name__": "house_price_data",
        }
        exec(files["applications/house_price_data.py"], names)
        dag = names["bring_data"]()
        assert dag.dag_id == "house_price__data"
        brought = {asset.name for task in dag.tasks for asset in task.outlets}
        assert brought == {"house_price_rows"}
        for schedule in (spec.delivery[0].batch.schedule, spec.monitoring.schedule):
            assert set(schedule.assets) == brought
