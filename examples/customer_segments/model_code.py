"""Which kinds of customers are there? k-means (S. Lloyd, 1982; seeding by D. Arthur and S. Vassilvitskii, 2007)."""

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


class CustomerSegments(ModelCode):
    """Number of the segment of each customer; nobody says which is right."""

    name = "customer-segments"
    version = "1.0.0"
    paradigm = "clustering"
    parameters: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "clusters": {
            "type": "integer",
            "minimum": 2,
            "maximum": 50,
            "default": 4,
            "description": "Segments.",
        },
        "rounds": {"type": "integer", "minimum": 1, "default": 50, "description": "Rounds of each start."},
        "starts": {
            "type": "integer",
            "minimum": 1,
            "default": 5,
            "description": "Starts; the tightest is kept.",
        },
    }

    def train(self, job: Job) -> dict[str, Any]:
        """Centres of the segments, and those that half of the customers alone would give."""
        names = list(job.columns.features)
        rows = _read(job, "train", names)
        mean, scale = rows.mean(axis=0), np.where(rows.std(axis=0) > 0, rows.std(axis=0), 1.0)
        rows, random = (rows - mean) / scale, np.random.default_rng(job.seed)
        centres, inertia = _fit(rows, job, random)
        half, _ = _fit(rows[random.permutation(len(rows))[: len(rows) // 2]], job, random)
        job.log_metric("inertia", inertia, split="train", direction="minimize", n=len(rows))
        return {"names": names, "mean": mean, "scale": scale, "centres": centres, "half": half}

    def save(self, model: dict[str, Any], directory: Path, job: Job) -> None:  # noqa: ARG002
        """Numbers as JSON."""
        numbers = {key: value if key == "names" else value.tolist() for key, value in model.items()}
        (directory / "segments.json").write_text(json.dumps(numbers))
        (directory / "MLmodel").write_text("flavors:\n  json:\n    data: segments.json\n")

    def load(self, directory: Path) -> dict[str, Any]:
        """What `save` wrote."""
        numbers = json.loads((directory / "segments.json").read_text())
        return {key: value if key == "names" else np.array(value) for key, value in numbers.items()}

    def evaluate(self, model: dict[str, Any], job: Job) -> None:
        """The segment of every customer of `test`, and the one that the model of the half says."""
        rows = (_read(job, "test", model["names"]) - model["mean"]) / model["scale"]
        segment, distance = _nearest(rows, model["centres"])
        job.log_metric("inertia", float(distance.mean()), split="test", direction="minimize", n=len(rows))
        for number in range(len(model["centres"])):
            job.log_metric(
                "share", float((segment == number).mean()), split="test", slice=f"segment={number}"
            )
        _write(job, "test", prediction=segment, second_prediction=_nearest(rows, model["half"])[0])

    def test_cases(self, model: dict[str, Any], job: Job) -> Iterable[Case]:
        """Every segment has somebody in it."""
        rows = (_read(job, "test", model["names"]) - model["mean"]) / model["scale"]

        def nobody_is_missing() -> None:
            sizes = np.bincount(_nearest(rows, model["centres"])[0], minlength=len(model["centres"]))
            assert sizes.min() > 0, f"sizes of the segments: {sizes.tolist()}"

        yield Case("no segment is empty", nobody_is_missing)

    def predict(self, model: dict[str, Any], job: Job) -> None:
        """The segment of every customer."""
        rows = (_read(job, "predict", model["names"]) - model["mean"]) / model["scale"]
        _write(job, "predict", prediction=_nearest(rows, model["centres"])[0])


def _fit(rows: Any, job: Job, random: np.random.Generator) -> tuple[Any, float]:
    found = []
    for start in range(job.parameters["starts"]):
        centres = _seeds(rows, job.parameters["clusters"], random)
        for _ in range(job.parameters["rounds"]):
            nearest, distance = _nearest(rows, centres)
            moved = [rows[nearest == number].mean(axis=0) for number in np.unique(nearest)]
            if len(moved) == len(centres) and np.allclose(moved, centres):
                break
            centres[: len(moved)] = moved
        found.append((float(distance.mean()), start, centres))
        job.progress({"inertia": found[-1][0]}, step=start + 1, total=job.parameters["starts"])
    inertia, _, centres = min(found, key=lambda one: one[:2])
    return centres, inertia


def _seeds(rows: Any, count: int, random: np.random.Generator) -> Any:
    """Centres far from one another: each next one by its squared distance to those before."""
    centres = [rows[random.integers(len(rows))]]
    while len(centres) < count:
        distance = _nearest(rows, np.array(centres))[1]
        centres.append(rows[random.choice(len(rows), p=distance / distance.sum())])
    return np.array(centres)


def _nearest(rows: Any, centres: Any) -> tuple[Any, Any]:
    distances = ((rows[:, None, :] - centres[None, :, :]) ** 2).sum(axis=2)
    return distances.argmin(axis=1), distances.min(axis=1)


def _read(job: Job, split: str, names: list[str]) -> Any:
    table = pq.ParquetDataset(job.files(split)).read()
    job.require_columns(table.column_names, names, split)
    return np.column_stack([table[name].cast("double").to_numpy() for name in names])


def _write(job: Job, split: str, **columns: Any) -> None:
    table = pq.ParquetDataset(job.files(split)).read(columns=list(job.columns.keys))
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, job.paths.predictions)


if __name__ == "__main__":
    main(CustomerSegments)
