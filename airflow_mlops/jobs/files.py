"""What the operators of model code hand to a container, and read of what it wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import ContractError
from airflow_mlops.primitives.texts.documents import json_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_mlops.primitives.datasets.manifest import Manifest
    from airflow_mlops.stores.datasets.versions import DatasetStore

#: Bytes of a JSON file from a container that are read at most.
JSON_LIMIT = 16 * 1024**2
#: Entries of a ``metrics.json`` that are read at most, and of that of a training, which may log every step.
ENTRIES_LIMIT, STEPS_LIMIT = 10_000, 100_000
#: Metrics with a step, told apart by name, split and slice: MLflow is asked for what it has of each.
SERIES_LIMIT = 1_000


def dataset_inputs(
    datasets: DatasetStore, dataset_id: str, splits: Sequence[str], scratch: Path
) -> dict[str, str]:
    """Lay a dataset version out as the contract wants it: its splits, its folds and its manifest."""
    version, manifest = datasets.manifest(dataset_id), scratch / "manifest.json"
    manifest.write_text(version.to_json())
    inputs = {"input/data/manifest.json": str(manifest)}
    for split in splits:
        for number, path in enumerate(datasets.paths(dataset_id, split, scratch)):
            inputs[f"input/data/{split}/{number:05d}.parquet"] = str(path)
    if "train" in splits and version.folds:
        folds = scratch / "folds.json"
        folds.write_text(json_text(fold_files(version), indent=2))
        inputs["input/data/folds.json"] = str(folds)
    return inputs


def fold_files(manifest: Manifest) -> list[dict[str, list[str]]]:
    """Files of each fold below ``input/data``, to learn from and to judge by."""
    train = [chunk for chunk in manifest.chunks if chunk.split == "train"]
    # By place, not by content: two chunks may say the same.
    names = {id(chunk): f"train/{number:05d}.parquet" for number, chunk in enumerate(train)}
    return [
        {role: [names[id(chunk)] for chunk in chunks] for role, chunks in fold.items()}
        for fold in manifest.folds
    ]


def column_config(manifest: Manifest) -> dict[str, Any]:
    """Names of a dataset's columns by role, as ``mlops.json`` carries them: inputs and targets apart.

    Keys, time and the column that says a split are no inputs.
    """

    def named(*roles: str) -> list[str]:
        return [column.name for column in manifest.columns if column.role in roles]

    return {
        "keys": named("key"),
        "timestamp": next(iter(named("timestamp")), None),
        "targets": named("target"),
        "features": named("feature", "input"),
    }


def read_text(path: Path, limit: int = 64 * 1024) -> str:
    """The beginning of a text file that a container wrote; empty when there is none."""
    from airflow_mlops.contract.protocol.storable import storable_text

    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return storable_text(file.read(limit).decode(errors="replace"), limit)


def read_metrics(path: Path, most: int = ENTRIES_LIMIT) -> list[dict[str, Any]]:
    """Read a container's ``metrics.json``, checking its shape and size.

    :param most: entries that are read; with more of them the file is refused.
    :raises ContractError: naming the entry that breaks the contract.
    """
    from airflow_mlops.primitives.container_output.judging import judge

    found: list[dict[str, Any]] = judge(
        f"{__name__}:parsed_metrics", str(path), most, what=f"output/{path.name}"
    )
    return found


def parsed_metrics(file: str, most: int) -> list[dict[str, Any]]:
    """As :func:`read_metrics`, in the child."""
    path = Path(file)
    from airflow_mlops.contract.protocol.results import metric_problems
    from airflow_mlops.contract.protocol.storable import storable

    if not path.is_file():
        raise ContractError(
            f"The model code wrote no output/{path.name}. Cure: write a list of metrics there."
        )
    if path.stat().st_size > JSON_LIMIT:
        raise ContractError(
            f"output/{path.name} has {path.stat().st_size} bytes; at most {JSON_LIMIT} are read."
        )
    try:
        metrics = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ContractError(f"output/{path.name} is not JSON: {error}.") from error
    if not isinstance(metrics, list):
        raise ContractError(f"output/{path.name} must be a list of metrics, got {type(metrics).__name__}.")
    if len(metrics) > most:
        raise ContractError(
            f"output/{path.name} has {len(metrics)} entries; at most {most} are read. Cure: log fewer steps or slices."
        )
    # A null says what an absent key says: not every language leaves it out.
    found = [storable(_without_nulls(metric), size=None) for metric in metrics]
    for number, metric in enumerate(found):
        if problems := metric_problems(metric):
            raise ContractError(
                f"output/{path.name}[{number}] breaks the contract: {'; '.join(problems)[:500]}. It is "
                f"{json_text(metric)[:200]}."
            )
    series = {
        (metric["name"], metric.get("split"), metric.get("slice")) for metric in found if "step" in metric
    }
    if len(series) > SERIES_LIMIT:
        raise ContractError(
            f"output/{path.name} has {len(series)} different metrics with a step; at most {SERIES_LIMIT} are read. "
            "Cure: give them one name with many steps, or leave the step out."
        )
    return found


def _without_nulls(metric: Any) -> Any:
    if not isinstance(metric, Mapping):
        return metric
    return {key: value for key, value in metric.items() if value is not None}
