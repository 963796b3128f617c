"""Where everything lies, below ``/opt/ml`` or ``$MLOPS_ROOT``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

CONTRACT_VERSION = 1

_DEFAULT_ROOT = "/opt/ml"

#: The address of the job's transfer document; see :mod:`airflow_mlops.contract.container.transfer`.
TRANSFER_VARIABLE = "MLOPS_TRANSFER"


@dataclass(frozen=True)
class Paths:
    """The files and folders of one job.

    :param root: the folder that everything else is below.
    """

    root: Path

    @classmethod
    def from_environment(cls) -> Paths:
        """``$MLOPS_ROOT``, else ``/opt/ml``."""
        return cls(Path(os.environ.get("MLOPS_ROOT") or _DEFAULT_ROOT))

    @property
    def data(self) -> Path:
        """One folder a split."""
        return self.root / "input" / "data"

    @property
    def manifest(self) -> Path:
        """The dataset version's manifest; it may be absent."""
        return self.data / "manifest.json"

    @property
    def folds(self) -> Path:
        """The files of each fold of train; absent when train is not divided into folds."""
        return self.data / "folds.json"

    @property
    def config(self) -> Path:
        """The typed configuration of the job."""
        return self.root / "input" / "config" / "mlops.json"

    @property
    def hyperparameters(self) -> Path:
        """Parameters as strings, the way SageMaker gives them."""
        return self.root / "input" / "config" / "hyperparameters.json"

    @property
    def model(self) -> Path:
        """The model directory: written by ``train``, read by everything else."""
        return self.root / "model"

    @property
    def checkpoints(self) -> Path:
        """What a stopped training needs to go on."""
        return self.root / "checkpoints"

    @property
    def output(self) -> Path:
        """All results."""
        return self.root / "output"

    @property
    def metrics(self) -> Path:
        """List of metrics."""
        return self.output / "metrics.json"

    @property
    def tests(self) -> Path:
        """JUnit report of the test cases."""
        return self.output / "tests.xml"

    @property
    def predictions(self) -> Path:
        """Keys and prediction of every row."""
        return self.output / "predictions.parquet"

    @property
    def prepared(self) -> Path:
        """Folder of the prepared rows, as Parquet."""
        return self.output / "data"

    @property
    def plots(self) -> Path:
        """Pictures for people."""
        return self.output / "plots"

    @property
    def environment(self) -> Path:
        """Folder of what the model code was trained with: ``environment.json``, and the lock file if there is one."""
        return self.output / "environment"

    @property
    def assumptions(self) -> Path:
        """Assumptions of the model code that do not hold."""
        return self.output / "assumptions.json"

    @property
    def failure(self) -> Path:
        """Why the job failed."""
        return self.output / "failure"

    def secret(self, name: str) -> Path:
        """File of one secret; only the model code's own user can read it."""
        return self.root / "input" / "secrets" / f"{name}.json"

    def split(self, name: str) -> Path:
        """Folder of the files of one split."""
        return self.data / name
