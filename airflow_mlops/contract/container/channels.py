"""Where SageMaker's way of laying things out differs from the contract's.

A channel is a folder below ``input/data``: what belongs elsewhere (configuration, manifest, a model to evaluate) comes
in a channel of its own and is moved to its place. Of ``output/`` SageMaker keeps only ``output/data``: everything else
is copied there, into one folder, at the end.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from airflow_mlops.contract.protocol.documents import json_text

#: The channel of what belongs elsewhere, and the folder in ``output/data`` of what would be lost.
CHANNEL = FOLDER = "mlops"


class Channels:
    """One job's data as SageMaker brings and takes it.

    :param root: the job's ``/opt/ml``.
    """

    #: Seconds between SIGTERM and SIGKILL.
    grace = 120.0

    def __init__(self, root: Path) -> None:
        self.root = root

    @staticmethod
    def are_at(root: Path) -> bool:
        """Whether a job of ours was brought here by SageMaker, and nobody has laid it out yet."""
        return _channel(root).is_dir() and not (root / "input/config/mlops.json").exists()

    def fetch(self) -> None:
        """Move what came in our channel to its place."""
        channel = _channel(self.root)
        for file in sorted(channel.rglob("*")):
            target = self.root / file.relative_to(channel)
            if file.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
        for folder in ("model", "output"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)

    def deliver(self, exit_code: int, problem: str = "") -> None:
        """Copy results to where SageMaker takes them from; links stay links, for the worker to refuse."""
        output = self.root / "output"
        if problem:
            (output / "failure").write_text(problem + "\n", encoding="utf-8")
        kept = output / "data" / FOLDER
        for entry in sorted(output.iterdir()):
            if entry.name == "data":
                continue
            kept.mkdir(parents=True, exist_ok=True)
            if entry.is_dir() and not entry.is_symlink():
                shutil.copytree(entry, kept / entry.name, symlinks=True, dirs_exist_ok=True)
            else:
                shutil.copy2(entry, kept / entry.name, follow_symlinks=False)
        kept.mkdir(parents=True, exist_ok=True)
        (kept / "exit_code").write_text(json_text(exit_code), encoding="utf-8")


def _channel(root: Path) -> Path:
    return root / "input/data" / CHANNEL
