"""An MLflow model directory as files: the signature and the input example that a model code left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from airflow_mlops.exceptions import ContractError
from airflow_mlops.hooks.mlflow.values import to_column
from airflow_mlops.primitives.container_output.judging import judge
from airflow_mlops.primitives.texts.documents import json_text

MODEL_FILE = "MLmodel"
EXAMPLE_FILE, SERVING_FILE = "input_example.json", "serving_input_example.json"
#: Bytes of a file MLmodel that are read at most.
MODEL_LIMIT = 1024**2
#: Bytes of memory in which that has to be done.
MODEL_MEMORY = 1024**3


class _Texts(yaml.SafeLoader):
    """Reads times as the texts that they are."""


_Texts.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag != "tag:yaml.org,2002:timestamp"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def complete_model(
    directory: Path, columns: Sequence[Mapping[str, str]], rows: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Write what the model code left out beside its model: signature, and input example.

    What it wrote itself stays. Nothing of the model is loaded: ``MLmodel`` is read as YAML.

    :param directory: with a file ``MLmodel``.
    :param columns: ``name`` and ``type`` of each input of the model; each may be missing in a row.
    :param rows: examples of inputs as JSON values; none for no input example.
    :return: what was added: ``signature``, ``input example``.
    :raises ContractError: ``MLmodel`` is no YAML mapping.
    """
    path = directory / MODEL_FILE
    model, added = read_model(path), []
    if not model.get("signature") and columns:
        inputs = [{**to_column(column), "required": False} for column in columns]
        model["signature"] = {"inputs": json_text(inputs), "outputs": None, "params": None}
        added.append("signature")
    if not model.get("saved_input_example_info") and rows and columns:
        names = [column["name"] for column in columns]
        split = {"columns": names, "data": [[row.get(name) for name in names] for row in rows]}
        (directory / EXAMPLE_FILE).write_text(json_text(split, default=str))
        (directory / SERVING_FILE).write_text(json_text({"dataframe_split": split}, default=str))
        model["saved_input_example_info"] = {
            "artifact_path": EXAMPLE_FILE,
            "pandas_orient": "split",
            "serving_input_path": SERVING_FILE,
            "type": "dataframe",
        }
        added.append("input example")
    if added:
        path.write_text(yaml.safe_dump(model, sort_keys=False))
    return added


def read_model(path: Path) -> dict[str, Any]:
    """The content of a file ``MLmodel``; it comes from a container.

    :raises ContractError: it is no YAML mapping, or too long to be one.
    """
    found: dict[str, Any] = judge(
        f"{__name__}:parsed_model", str(path), what=f"model/{MODEL_FILE}", memory=MODEL_MEMORY
    )
    return found


def parsed_model(file: str) -> dict[str, Any]:
    """As :func:`read_model`, in the child."""
    path = Path(file)
    if path.stat().st_size > MODEL_LIMIT:
        raise ContractError(
            f"model/{MODEL_FILE} has {path.stat().st_size} bytes; at most {MODEL_LIMIT} are read."
        )
    try:
        # A time is a text, as MLflow writes it, and JSON knows no other.
        model = yaml.load(path.read_text(encoding="utf-8"), Loader=_Texts)  # noqa: S506  it is a safe one
        json_text(model)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ContractError(
            f"model/{MODEL_FILE} is no YAML: {' '.join(str(error).split())[:300]}. Cure: save the model with MLflow."
        ) from error
    if not isinstance(model, dict):
        raise ContractError(
            f"model/{MODEL_FILE} must be a mapping, got {type(model).__name__}. Cure: save the model with MLflow."
        )
    return model
