"""Which readings of a pump are unlike all others? Distance by P. C. Mahalanobis, 1936, from the bulk of the readings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_mlops.contract import Case, Job, ModelCode, main

if TYPE_CHECKING:
    from pathlib import Path

LEVELS = 1000


class PumpFaults(ModelCode):
    """Share of the usual readings that are less unusual than this one: 1 is what nobody has seen."""

    name = "pump-faults"
    version = "1.0.0"
    paradigm = "anomaly"
    parameters: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "kept": {
            "type": "number",
            "exclusiveMinimum": 0.5,
            "maximum": 1,
            "default": 0.97,
            "description": "Share of the readings that make up the bulk.",
        },
        "rounds": {
            "type": "integer",
            "minimum": 1,
            "maximum": 100,
            "default": 10,
            "description": "Rounds of trimming.",
        },
    }

    def train(self, job: Job) -> dict[str, Any]:
        """Mean and covariance of the bulk; the few labels are not used."""
        names = list(job.columns.features)
        rows = _read(job, "train", names)
        bulk = rows
        for step in range(job.parameters["rounds"]):
            mean, precision = bulk.mean(axis=0), np.linalg.inv(np.cov(bulk.T))
            distance = _distance(rows, mean, precision)
            bulk = rows[distance <= np.quantile(distance, job.parameters["kept"])]
            job.progress({"bulk": len(bulk)}, step=step + 1, total=job.parameters["rounds"])
        job.log_metric("bulk", len(bulk), split="train")
        levels = np.quantile(_distance(rows, mean, precision), np.linspace(0, 1, LEVELS + 1))
        return {"names": names, "mean": mean, "precision": precision, "levels": levels}

    def save(self, model: dict[str, Any], directory: Path, job: Job) -> None:  # noqa: ARG002
        """Numbers as JSON."""
        numbers = {key: value if key == "names" else value.tolist() for key, value in model.items()}
        (directory / "bulk.json").write_text(json.dumps(numbers))
        (directory / "MLmodel").write_text("flavors:\n  json:\n    data: bulk.json\n")

    def load(self, directory: Path) -> dict[str, Any]:
        """What `save` wrote."""
        numbers = json.loads((directory / "bulk.json").read_text())
        return {key: value if key == "names" else np.array(value) for key, value in numbers.items()}

    def evaluate(self, model: dict[str, Any], job: Job) -> None:
        """The score of every reading; how good it is, is measured where the labels are."""
        score = _score(model, _read(job, "test", model["names"]))
        job.log_metric("alarms", float((score > 0.99).mean()), split="test", n=len(score))
        _write(job, "test", score)

    def test_cases(self, model: dict[str, Any], job: Job) -> Iterable[Case]:
        """What is far from everything is an alarm, and what is usual is none."""
        rows = _read(job, "test", model["names"])

        def far_is_unusual() -> None:
            assert _score(model, rows.mean(axis=0, keepdims=True) * 10)[0] > 0.999

        def the_middle_is_usual() -> None:
            assert _score(model, model["mean"][None])[0] < 0.01

        yield Case("ten times the mean is an alarm", far_is_unusual)
        yield Case("the mean is none", the_middle_is_usual)

    def predict(self, model: dict[str, Any], job: Job) -> None:
        """The score of every reading."""
        _write(job, "predict", _score(model, _read(job, "predict", model["names"])))


def _distance(rows: Any, mean: Any, precision: Any) -> Any:
    away = rows - mean
    return np.einsum("ij,jk,ik->i", away, precision, away)


def _score(model: dict[str, Any], rows: Any) -> Any:
    distance, levels = _distance(rows, model["mean"], model["precision"]), model["levels"]
    share = np.searchsorted(levels, distance) / (LEVELS + 1)
    # Beyond all that was seen, farther is still more.
    return share + (distance > levels[-1]) * (1 - share) * (1 - levels[-1] / np.maximum(distance, levels[-1]))


def _read(job: Job, split: str, names: list[str]) -> Any:
    table = pq.ParquetDataset(job.files(split)).read()
    job.require_columns(table.column_names, names, split)
    return np.column_stack([table[name].cast("double").to_numpy() for name in names])


def _write(job: Job, split: str, score: Any) -> None:
    table = pq.ParquetDataset(job.files(split)).read(columns=list(job.columns.keys))
    pq.write_table(table.append_column("prediction", pa.array(score)), job.paths.predictions)


if __name__ == "__main__":
    main(PumpFaults)
