"""Training on several processes of one container: the same network as on one, stopped and failing like one."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.runners import get_runner
from airflow_mlops.runners.protocol import ContainerJob, Distribution, JobState, Resources
from tests.fixtures.deadlines import DEADLINE
from tests.fixtures.jobs import Heard, eventually

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("no_leftovers")]

FEATURES = ("distance", "wind", "late_before")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Flights of which the later ones are those that were late before, against the wind."""
    random = np.random.default_rng(7)
    rows = random.normal(size=(3001, 3)).astype("float32")
    rows[random.random(rows.shape) < 0.05] = np.nan
    late = (np.nan_to_num(rows) @ [0.2, 1.0, 2.0] + random.normal(size=len(rows))) > 0.5
    columns = {
        "id": np.arange(len(rows)),
        **dict(zip(FEATURES, rows.T, strict=True)),
        "late": late.astype("int64"),
    }
    folder = tmp_path_factory.mktemp("flights") / "train"
    folder.mkdir()
    pq.write_table(
        pa.table({name: pa.array(values) for name, values in columns.items()}), folder / "0.parquet"
    )
    return folder


class Training:
    """The jobs of one test, and what they wrote."""

    def __init__(self, folder: Path, data: Path, image: str, name: str) -> None:
        self.runner = get_runner("docker", docker_conn_id=None)
        self.folder, self.data, self.image, self.name = folder, data, image, name
        self.heard = Heard()

    def submit(self, processes: int, features: tuple[str, ...] = FEATURES, **parameters: float) -> str:
        name = f"{self.name}-{processes}"
        columns = {"keys": ["id"], "targets": ["late"], "features": list(features)}
        self.runner.submit(
            ContainerJob(
                name=name,
                command="train",
                image=self.image,
                config={
                    "contract": 1,
                    "command": "train",
                    "parameters": parameters,
                    "seed": 3,
                    "columns": columns,
                    "distributed": {"nodes": 1, "processes_per_node": processes},
                },
                inputs={"input/data/train": str(self.data)},
                resources=Resources(memory=3 * 1024**3, shm=256 * 1024**2),
                distribution=Distribution(processes_per_node=processes),
            )
        )
        return name

    def finish(self, name: str) -> tuple[JobState, Path]:
        state = self.runner.wait(name, self.heard, deadline=time.time() + DEADLINE)
        self.runner.collect(name, ("model", "output", "checkpoints"), self.folder / name)
        return state, self.folder / name

    def cleanup(self) -> None:
        for processes in (1, 2):
            self.runner.cleanup(f"{self.name}-{processes}")


@pytest.fixture
def training(tmp_path, data, neural_image, request):
    made = Training(tmp_path, data, neural_image, f"mlops-{request.node.name}".replace("_", "-"))
    yield made
    made.cleanup()


def test_two_processes_learn_what_one_learns(training):
    names = [training.submit(processes, epochs=2, batch_size=250, hidden=8) for processes in (1, 2)]
    (alone, first), (together, second) = (training.finish(name) for name in names)
    assert (alone.exit_code, together.exit_code) == (0, 0), "\n".join(training.heard.texts[-60:])

    weights = [dict(np.load(folder / "model/weights.npz", allow_pickle=False)) for folder in (first, second)]
    assert set(weights[0]) == {
        "mean",
        "scale",
        *(f"layers.{n}.{kind}" for n in (0, 2) for kind in ("weight", "bias")),
    }
    for name, value in weights[0].items():
        np.testing.assert_allclose(weights[1][name], value, rtol=2e-4, atol=2e-6, err_msg=name)
    metrics = [json.loads((folder / "output/metrics.json").read_text()) for folder in (first, second)]
    assert [metric["value"] for metric in metrics[0] if metric["name"] == "processes"] == [1.0]
    assert [metric["value"] for metric in metrics[1] if metric["name"] == "processes"] == [2.0]
    losses = [[metric["value"] for metric in told if metric["name"] == "log_loss"] for told in metrics]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[0][1] < losses[0][0] < 0.7
    progress = [line for line in training.heard.texts if line.startswith("::mlops::")]
    assert len(progress) == 4, "of two processes one speaks"


def test_why_one_of_them_fails_comes_out(training):
    name = training.submit(2, features=("distance", "gusts"))
    state, folder = training.finish(name)
    assert state.exit_code == 11
    assert "gusts" in (folder / "output/failure").read_text()


def test_all_are_stopped_in_time(training):
    name = training.submit(2, epochs=1000, batch_size=10)
    eventually(lambda: any("::mlops::" in line.text for line in training.runner.logs(name)))
    training.runner.stop(name, 4)
    state, folder = training.finish(name)
    assert state.exit_code == 143
    assert "SIGTERM" in (folder / "output/failure").read_text()
