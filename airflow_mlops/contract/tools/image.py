"""Whether an image keeps the contract, asked of the image itself by the ``docker`` command."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

from airflow_mlops.contract.protocol.paths import CONTRACT_VERSION

LABEL = "ai.airflow-mlops.contract"
_KNOWN = {"describe", "prepare", "train", "evaluate", "test", "predict", "serve", "export"}
_SECONDS = 120
#: As the Docker runner starts it: nothing that works here fails there for lack of rights.
_ISOLATED = (
    "--rm",
    "--network",
    "none",
    "--user",
    "1000:1000",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
)
#: A word that no model code knows.
_NO_COMMAND = "no-such-command"


def check_image(image: str, docker: str = "docker") -> list[str]:
    """Everything about an image that breaks contract 1, one sentence each; empty when nothing does.

    It is asked to ``describe`` itself as the Docker runner would ask: as user 1000, without network and capabilities.

    :param image: its name on the local engine.
    :param docker: the command.
    """
    if shutil.which(docker) is None:
        return [f"There is no {docker} command to ask for {image}."]
    found = _call(docker, "image", "inspect", image)
    if found.returncode:
        return [f"{image} is not on this engine: {found.stderr.strip()}. Cure: build or pull it first."]
    configuration = json.loads(found.stdout)[0].get("Config") or {}
    problems = _configuration_problems(image, configuration)
    if not configuration.get("Entrypoint"):
        return problems
    try:
        return [*problems, *_description_problems(docker, image), *_refusal_problems(docker, image)]
    except subprocess.TimeoutExpired as error:
        return [*problems, f"`{error.cmd[-1]}` did not end within {_SECONDS} s."]


def describe_image(image: str, docker: str = "docker") -> str | None:
    """What an image prints for ``describe``; ``None`` where it is not at hand, or does not say it.

    Nothing is pulled.
    """
    if shutil.which(docker) is None:
        return None
    try:
        if _call(docker, "image", "inspect", image).returncode:
            return None
        done = _call(docker, "run", *_ISOLATED, image, "describe")
    except subprocess.TimeoutExpired:
        return None
    return None if done.returncode else done.stdout


def _configuration_problems(image: str, configuration: dict[str, Any]) -> list[str]:
    problems = []
    label = (configuration.get("Labels") or {}).get(LABEL)
    if label != str(CONTRACT_VERSION):
        problems.append(
            f"{image} must carry the label {LABEL}={CONTRACT_VERSION}, it has {label!r}. "
            f"Cure: LABEL {LABEL}={CONTRACT_VERSION} in the Dockerfile."
        )
    if not configuration.get("Entrypoint"):
        problems.append(f'{image} has no ENTRYPOINT that takes one word. Cure: ENTRYPOINT ["python3", "…"].')
    return problems


def _description_problems(docker: str, image: str) -> list[str]:
    done = _call(docker, "run", *_ISOLATED, image, "describe")
    if done.returncode:
        return [
            f"`describe` ends with exit code {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}."
        ]
    try:
        said = json.loads(done.stdout)
    except ValueError as error:
        return [
            f"`describe` must print one JSON object and nothing else on stdout: {error}; it printed {done.stdout[:200]!r}."
        ]
    if not isinstance(said, dict):
        return [f"`describe` must print a JSON object, it printed a {type(said).__name__}."]
    problems = []
    if said.get("contract") != CONTRACT_VERSION:
        problems.append(f"`describe` says contract {said.get('contract')!r}, expected {CONTRACT_VERSION}.")
    problems += [f"`describe` gives no {key}." for key in ("name", "version") if not said.get(key)]
    commands = said.get("commands")
    if not isinstance(commands, list) or not {"train", "prepare"} & set(map(str, commands)):
        problems.append(f"`describe` must list its commands, train or prepare among them; got {commands!r}.")
    elif unknown := sorted(set(map(str, commands)) - _KNOWN):
        problems.append(f"`describe` lists commands that contract 1 does not have: {', '.join(unknown)}.")
    parameters = said.get("parameters")
    if not isinstance(parameters, dict) or parameters.get("type") != "object":
        problems.append("`describe` must give parameters as a JSON Schema of type object.")
    return problems


def _refusal_problems(docker: str, image: str) -> list[str]:
    done = _call(docker, "run", *_ISOLATED, image, _NO_COMMAND)
    if done.returncode == 0:
        return [f"A command that it does not know (`{_NO_COMMAND}`) must end with an exit code other than 0."]
    return []


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_SECONDS,
        check=False,
        stdin=subprocess.DEVNULL,
    )
