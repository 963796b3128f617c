"""What ``describe`` printed: found among other lines, and the parameters held against it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_mlops.contract.protocol.storable import storable
from airflow_mlops.exceptions import ContractError

__all__ = ["judge_description", "parse_description", "understand"]

#: Characters of the JSON of a description.
DESCRIPTION_LIMIT = 256 * 1024
#: The first brace of a line: where the description may begin.
_OBJECT = re.compile(r"^[^\n{]*\{", re.MULTILINE)


def judge_description(
    text: str, who: str, commands: Sequence[str], parameters: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The description, and the parameters with their defaults, in a child with limits.

    Each line may be where the description begins, and its JSON Schema may have any regular expression in it.

    :param text: all that was printed.
    :param who: the model code, for messages.
    :param commands: what it must know.
    :param parameters: what it is given.
    :raises ContractError: there is no description, or it breaks the contract.
    :raises ParameterError: the parameters break its JSON Schema.
    """
    from airflow_mlops.primitives.container_output.judging import judge

    said, filled = judge(
        f"{__name__}:understand",
        text,
        who,
        list(commands),
        dict(parameters),
        what=f"{who}: what describe printed, with the JSON Schema of its parameters",
    )
    return said, filled


def understand(text: str, who: str, commands: Sequence[str], parameters: dict[str, Any]) -> list[Any]:
    """As :func:`judge_description`, in the child."""
    from airflow_mlops.primitives.training.parameters import validate_parameters

    description = parse_description(text)
    missing = [command for command in commands if command not in description["commands"]]
    if missing:
        raise ContractError(
            f"{who} describes no command {', '.join(missing)}, which this application needs; it has: "
            f"{', '.join(description['commands'])}. Cure: implement it, or for test write evaluation.cases: false."
        )
    return [description, validate_parameters(description.get("parameters") or {}, parameters)]


def parse_description(text: str) -> dict[str, Any]:
    """Read what ``describe`` printed: one JSON object, whatever was printed around it.

    :raises ContractError: when there is none, or it lacks what the contract demands.
    """
    found, problem = _first_object(text)
    description: dict[str, Any] = storable(found, size=None)
    if found is None:
        raise ContractError(
            f'describe must print one JSON object with "contract": 1{problem}. It printed: {text[:300]!r}. '
            "Cure: print it on short lines, as json.dumps(…, indent=1) does; lines of a log are cut at 8 KiB."
        )
    if len(json.dumps(description, allow_nan=False)) > DESCRIPTION_LIMIT:
        raise ContractError(
            f"describe printed a description of more than {DESCRIPTION_LIMIT} characters of JSON. Cure: describe the "
            "parameters only; data and examples do not belong there."
        )
    if description.get("contract") != 1:
        raise ContractError(
            f"describe says contract {description.get('contract')!r}; this version of airflow-mlops speaks contract 1."
        )
    commands = description.get("commands")
    if not isinstance(commands, list) or not all(isinstance(command, str) for command in commands):
        raise ContractError(f"describe must give 'commands' as a list of words, got {commands!r}.")
    return description


def _first_object(text: str) -> tuple[dict[str, Any] | None, str]:
    problem = ""
    for line in _OBJECT.finditer(text):
        try:
            value, _ = json.JSONDecoder().raw_decode(text, line.end() - 1)
        except (ValueError, RecursionError) as error:
            problem = problem or f": {error}"
        else:
            if "contract" in value:
                return value, ""
    return None, problem
