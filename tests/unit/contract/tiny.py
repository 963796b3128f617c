"""A whole model code without any library: the mean of the target by a group, in JSON files."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, ClassVar

from airflow_mlops.contract import AssumptionError, Case, DataError, ModelCode, TryAgainError, main

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_mlops.contract import Job

COLUMNS = {"keys": ["id"], "timestamp": "at", "targets": ["y"], "features": ["group", "x"]}


class Tiny(ModelCode):
    name = "tiny"
    version = "0.1.0"
    paradigm = "classification"
    parameters: ClassVar = {
        "smoothing": {"type": "number", "minimum": 0, "maximum": 10, "default": 1.0},
        "rounds": {"type": "integer", "minimum": 1, "default": 3},
        "fail": {
            "type": "string",
            "enum": ["no", "data", "assumption", "again", "bug", "case", "hang"],
            "default": "no",
        },
    }

    def train(self, job: Job) -> dict[str, float]:
        rows = read(job, "train", [*job.columns.features, *job.columns.targets])
        fail(job)
        rng = random.Random(job.seed)
        noise = rng.random() / 100
        for step in range(1, job.parameters["rounds"] + 1):
            job.log_metric("loss", 1 / step, step=step, split="validation", direction="minimize")
            job.progress({"loss": 1 / step}, step=step, total=job.parameters["rounds"])
        weight = job.parameters["smoothing"]
        model = {}
        for group in sorted({row["group"] for row in rows}):
            ys = [row["y"] for row in rows if row["group"] == group]
            model[group] = (sum(ys) + 0.5 * weight) / (len(ys) + weight) + noise
        return model

    def save(self, model: dict[str, float], directory: Path, job: Job) -> None:
        (directory / "model.json").write_text(json.dumps(model))

    def load(self, directory: Path) -> dict[str, float]:
        return json.loads((directory / "model.json").read_text())

    def evaluate(self, model: dict[str, float], job: Job) -> None:
        rows = read(job, "test", [*job.columns.keys, *job.columns.features, *job.columns.targets])
        loss = sum((row["y"] - model.get(row["group"], 0.5)) ** 2 for row in rows) / len(rows)
        job.log_metric("brier", loss, split="test", direction="minimize", stderr=0.1, n=len(rows))
        write(job, model, rows)

    def predict(self, model: dict[str, float], job: Job) -> None:
        write(job, model, read(job, "predict", [*job.columns.keys, *job.columns.features]))

    def test_cases(self, model: dict[str, float], job: Job):
        yield Case("in range", lambda: check(all(0 <= value <= 1.1 for value in model.values())))
        yield Case("as asked", lambda: check(job.parameters["fail"] != "case", "asked to \x00 fail"))

    def serve(self, model: dict[str, float], rows: list[dict]) -> list[float]:
        for index, row in enumerate(rows):
            if "group" not in row:
                raise DataError(f"Row {index} lacks group.")
            if row["group"] == "boom":
                raise RuntimeError("a secret path")
        return [model.get(row["group"], 0.5) for row in rows]

    def checkpoint(self, job: Job) -> None:
        job.paths.checkpoints.mkdir(parents=True, exist_ok=True)
        (job.paths.checkpoints / "state.json").write_text("{}")


def check(holds: bool, message: str = "") -> None:
    assert holds, message


def fail(job: Job) -> None:
    kind = job.parameters["fail"]
    if kind == "data":
        raise DataError("no such thing")
    if kind == "assumption":
        raise AssumptionError("x is never negative: 3 rows are")
    if kind == "again":
        raise TryAgainError("the licence server is away")
    if kind == "bug":
        raise KeyError("left_over")
    if kind == "hang":
        import threading

        print("hanging", flush=True)  # noqa: T201
        threading.Event().wait()


def read(job: Job, split: str, columns: list[str]) -> list[dict]:
    rows = [row for path in job.files(split) for row in json.loads(path.read_text())]
    if rows:
        job.require_columns(rows[0], columns, f"The {split} split")
    return rows


def write(job: Job, model: dict[str, float], rows: list[dict]) -> None:
    predictions = [{"id": row["id"], "prediction": model.get(row["group"], 0.5)} for row in rows]
    job.paths.predictions.write_text(json.dumps(predictions))


if __name__ == "__main__":
    main(Tiny)
