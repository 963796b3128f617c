"""The folder that a job finds below ``/opt/ml``: one layout for every runner."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import RunnerError
from airflow_mlops.primitives.texts.documents import json_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_mlops.runners.protocol import ContainerJob

#: Folders that every job finds, writable, whatever its command.
FOLDERS = ("checkpoints", "input", "input/config", "input/data", "model", "output")
#: The folder that several jobs may share.
SHARED = "input/data"


@dataclass(frozen=True)
class InputFile:
    """One file of the tree.

    :param path: POSIX path below ``/opt/ml``.
    :param content: its bytes, or the local file that holds them.
    :param mode: permissions; the job's user owns it.
    """

    path: str
    content: bytes | Path
    mode: int = 0o644

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def input_tree(job: ContainerJob) -> list[InputFile]:
    """Lay out what the job needs: its configuration and its inputs, folders walked.

    :raises RunnerError: for a local file that is missing, a path that leaves ``/opt/ml``, or two files of one path.
    """
    files = list(_configuration(job.config))
    for path, source in job.inputs.items():
        files.extend(_walk(checked_path(path), Path(source)))
    seen: set[str] = set()
    for file in files:
        if file.path in seen:
            raise RunnerError(
                f"Job {job.name}: two inputs want to be {file.path}. Cure: give each its own path."
            )
        seen.add(file.path)
    return files


def shared_files(job: ContainerJob) -> list[InputFile]:
    """What the job wants to share with others.

    :raises RunnerError: for an input that lies elsewhere.
    """
    for path in job.inputs:
        if not checked_path(path).startswith(f"{SHARED}/"):
            raise RunnerError(f"Job {job.name}: only what is below {SHARED} can be shared, not {path}.")
    return [file for file in input_tree(job) if file.path.startswith(f"{SHARED}/")]


def folders_of(files: list[InputFile]) -> list[str]:
    """All folders of the tree, parents first."""
    parents = {str(parent) for file in files for parent in PurePosixPath(file.path).parents}
    return sorted((parents | set(FOLDERS)) - {"."})


def checked_path(path: str) -> str:
    """Normal form of a path below ``/opt/ml``.

    :raises RunnerError: when it is absolute, empty, or climbs out.
    """
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise RunnerError(f"A path below /opt/ml must be relative, without '..'; got {path!r}.")
    return "/".join(parts)


def checked_name(name: str) -> str:
    """A job's name, which is also that of a container or a folder.

    :raises RunnerError: when it is empty, too long, or has other characters.
    """
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,200}", name):
        raise RunnerError(
            f"Job name {name[:250]!r} must be letters, digits, '_', '.' and '-', 2 to 201 of them, no sign first."
        )
    return name


def hyperparameters(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as strings, as SageMaker hands them over: text as it is, everything else as JSON."""
    return {key: value if isinstance(value, str) else json_text(value) for key, value in parameters.items()}


def _configuration(config: Mapping[str, Any]) -> Iterator[InputFile]:
    strings = hyperparameters(config.get("parameters") or {})
    yield InputFile("input/config/hyperparameters.json", json_text(strings, indent=2).encode())
    yield InputFile("input/config/mlops.json", json_text(dict(config), indent=2).encode())


def _walk(path: str, source: Path) -> Iterator[InputFile]:
    if source.is_file():
        yield InputFile(path, source)
        return
    if not source.is_dir():
        raise RunnerError(f"Input {path} should come from {source}, which is neither a file nor a folder.")
    for folder, subfolders, names in os.walk(source):
        subfolders.sort()
        for name in sorted(names):
            file = Path(folder, name)
            yield InputFile(f"{path}/{file.relative_to(source).as_posix()}", file)
