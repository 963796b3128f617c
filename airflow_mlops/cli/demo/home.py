"""The demo's folder: data, Feast repository, DAGs, store and servers, all below one home."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from airflow_mlops.exceptions import CommandError
from airflow_mlops.primitives.texts.documents import json_text

APPLICATION = "flight_delay"
IMAGE = "flight-delay:1.0.0"
LOCAL_BASE = "airflow-mlops-base:3.11"
PUBLIC_BASE = "python:3.11-slim"
_MARK = ".airflow-mlops-demo"
#: Applications beside the demo's own, and with them the feature pipelines: the demo tells one story.
_OTHERS = ("long_delay", "early_arrival")


class DemoError(CommandError):
    """The demo cannot go on."""


@dataclass(frozen=True)
class DemoHome:
    """
    Where the demo keeps everything.

    :param path: the folder; deleting it deletes the demo.
    :param project: checkout with ``dags/``, ``examples/`` and ``docker/``.
    """

    path: Path
    project: Path

    @property
    def applications(self) -> Path:
        """Folder of the application YAML files."""
        return self.path / "dags" / "applications"

    @property
    def store(self) -> Path:
        """Folder of the artifact store."""
        return self.path / "store"

    def clear(self) -> None:
        """Delete what an earlier demo left.

        :raises DemoError: for a folder that no demo has made.
        """
        if self.path.is_dir() and any(self.path.iterdir()):
            if not (self.path / _MARK).is_file():
                raise DemoError(
                    f"{self.path} is not empty and no demo made it: it is not deleted. "
                    "Cure: name another folder with --home, or empty it yourself."
                )
            shutil.rmtree(self.path, ignore_errors=True)

    def claim(self) -> None:
        """Make the folder, and mark it as the demo's own.

        :raises DemoError: for a folder that is somebody else's.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / _MARK).exists():
            if any(self.path.iterdir()) and not (self.path / "airflow").is_dir():
                raise DemoError(
                    f"{self.path} is not empty and no demo made it. Cure: name another folder with --home."
                )
            (self.path / _MARK).write_text("Everything here was made by `airflow-mlops demo`.\n")

    def prepare(self, run_on: str) -> None:
        """Copy DAGs and examples, land the first month, and apply the Feast repository. Idempotent."""
        made, others = ("__pycache__", "*.pyc"), ("features", *(f"{name}.*" for name in _OTHERS))
        for name, left_out in (("dags", (*made, *others)), ("examples/flight_delay", made)):
            ignore = shutil.ignore_patterns(*left_out)
            shutil.copytree(self.project / name, self.path / name, dirs_exist_ok=True, ignore=ignore)
        (self.applications / "defaults.yaml").write_text(self._defaults(run_on))
        self._flights(
            "land", "--folder", self.path / "data", "--through", "2013-01", "--labels-through", "2013-01"
        )
        self._flights("features", "--home", self.path)
        feast = Path(sys.executable).with_name("feast")
        self._run([str(feast), "--chdir", str(self.path / "features"), "apply"])

    def _defaults(self, run_on: str) -> str:
        return (
            "# What holds for every application of this folder: written by the demo.\n"
            f"store: {json_text(str(self.store))}\n"
            "provisioning:\n"
            "  examples:\n"
            f"    folder: {json_text(str(self.path / 'data'))}\n"
            "training:\n"
            f"  run_on: {run_on}\n"
            "  # Airflow 3.3 sometimes fails a task that comes back within seconds of its deferral; the retry adopts the job.\n"
            "  retry_delay: 5s\n"
        )

    def _flights(self, *arguments: object) -> None:
        self._run([sys.executable, str(self.path / "examples/flight_delay/flights.py"), *map(str, arguments)])

    def _run(self, command: list[str]) -> None:
        environment = {**os.environ, "FLIGHTS_HOME": str(self.path), "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DemoError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def engine_answers() -> bool:
    """Whether a Docker Engine and its command line are at hand."""
    return bool(shutil.which("docker")) and _docker("version")


def build_image(project: Path, log: Path) -> None:
    """Build the example's image on the base that can be had: the given one, Docker Hub's, or one made here."""
    base = os.environ.get("AIRFLOW_MLOPS_BASE_IMAGE") or _base_image(project, log)
    dockerfile = project / "examples/flight_delay/Dockerfile"
    command = [
        "docker",
        "build",
        "-t",
        IMAGE,
        "-f",
        str(dockerfile),
        "--build-arg",
        f"BASE_IMAGE={base}",
        str(project),
    ]
    _logged(command, log)


def remove_jobs(home: DemoHome) -> None:
    """Stop and remove what an interrupted demo left running; a later run starts those jobs again."""
    from airflow_mlops.exceptions import RunnerError
    from airflow_mlops.runners import get_runner

    root = home.store / APPLICATION / "jobs"
    if root.is_dir():
        runner = get_runner("process", root=str(root))
        for folder in root.iterdir():
            with suppress(RunnerError):
                runner.stop(folder.name)
                runner.cleanup(folder.name)
    if engine_answers():
        # By the store: another Airflow on this engine may have an application of this name.
        ours = f"label=ai.airflow-mlops.store={home.store}"
        listed = subprocess.run(
            ["docker", "ps", "-aq", "--filter", ours], capture_output=True, text=True, check=False
        )
        if ids := listed.stdout.split():
            _docker("rm", "--force", "--volumes", *ids)


def _base_image(project: Path, log: Path) -> str:
    for image in (PUBLIC_BASE, LOCAL_BASE):
        if _docker("image", "inspect", image):
            return image
    if _docker("pull", "--quiet", PUBLIC_BASE):
        return PUBLIC_BASE
    _logged(["bash", str(project / "docker/base_image.sh"), LOCAL_BASE], log)
    return LOCAL_BASE


def _docker(*arguments: str) -> bool:
    return subprocess.run(["docker", *arguments], capture_output=True, check=False).returncode == 0


def _logged(command: list[str], log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHON": sys.executable, "DOCKER_CLI_HINTS": "false"}
    with log.open("ab") as output:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        raise DemoError(f"{' '.join(command[:2])} failed; see {log}")
