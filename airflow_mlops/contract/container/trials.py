"""Several short trainings in one job: each in folders of its own, one after the other."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.contract.protocol.documents import json_text
from airflow_mlops.contract.protocol.failures import ParameterError, StopRequested
from airflow_mlops.contract.protocol.paths import Paths
from airflow_mlops.contract.protocol.results import write_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class TrialPaths(Paths):
    """Where one trial finds the data of all and writes what is its own.

    :param number: of the trial, in its tuning.
    """

    number: int = 0

    @property
    def own(self) -> Path:
        """Folder of everything that the trial writes; gone when the next one begins."""
        return self.root / "trials" / str(self.number)

    @property
    def result(self) -> Path:
        """What stays of the trial: ``metrics.json``, or ``failure``."""
        return self.root / "output" / "trials" / str(self.number)

    @property
    def config(self) -> Path:
        """As the job's, with the trial's parameters."""
        return self.own / "mlops.json"

    @property
    def model(self) -> Path:
        """The trial's model."""
        return self.own / "model"

    @property
    def checkpoints(self) -> Path:
        """The trial's checkpoints."""
        return self.own / "checkpoints"

    @property
    def output(self) -> Path:
        """The trial's results."""
        return self.own / "output"


def read_trials(paths: Paths) -> list[dict[str, Any]]:
    """The trials that the job's configuration lists, each with ``number`` and ``parameters``; mostly none.

    :raises ParameterError: they are no such list.
    """
    try:
        config = json.loads(paths.config.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return []  # whoever reads the configuration itself says what is wrong with it
    trials = config.get("trials") if isinstance(config, dict) else None
    if trials is None:
        return []
    if not isinstance(trials, list) or not all(
        isinstance(trial, dict)
        and isinstance(trial.get("number"), int)
        and isinstance(trial.get("parameters"), dict)
        for trial in trials
    ):
        raise ParameterError(
            f"{paths.config}: trials: expected a list of objects with number and parameters, got {str(trials)[:200]}."
        )
    return trials


def run_trials(trials: list[dict[str, Any]], paths: Paths, execute: Callable[[TrialPaths], int]) -> int:
    """Do every trial, whatever became of those before it.

    :param execute: trains below the paths that it is given and returns the exit code of the contract.
    :returns: 0, also when trials failed; 143 when the job was stopped.
    """
    config = json.loads(paths.config.read_text(encoding="utf-8"))
    shutil.rmtree(paths.output / "trials", ignore_errors=True)
    for trial in trials:
        own = TrialPaths(paths.root, int(trial["number"]))
        content = {key: value for key, value in config.items() if key != "trials"}
        write_text(
            own.config, json_text({**content, "parameters": trial["parameters"], "resume": False}, indent=1)
        )
        try:
            exit_code = execute(own)
            if exit_code == StopRequested.exit_code:
                return exit_code
            own.result.mkdir(parents=True, exist_ok=True)
            # A failed trial's metrics are those of its beginning.
            kept = own.failure if exit_code else own.metrics
            if kept.is_file():
                shutil.copyfile(kept, own.result / kept.name)
        finally:
            shutil.rmtree(own.own, ignore_errors=True)
    return 0
