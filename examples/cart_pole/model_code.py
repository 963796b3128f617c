"""Keep a pole upright on a cart: a linear policy, found by the cross-entropy method (R. Y. Rubinstein, 1999).

The cart and its pole are those of A. G. Barto, R. S. Sutton and C. W. Anderson, 1983. An example of the dataset is
where an episode begins; the return of an episode is how many steps the pole stayed up.
"""

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

STEPS = 500
GRAVITY, MASS, POLE_MASS, HALF_LENGTH, FORCE, SECONDS = 9.8, 1.1, 0.1, 0.5, 10.0, 0.02
MOST_AWAY, MOST_ANGLE = 2.4, 12 * np.pi / 180


class CartPole(ModelCode):
    """Left or right, by the sign of a weighted sum of the state."""

    name = "cart-pole"
    version = "1.0.0"
    paradigm = "reinforcement"
    parameters: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "generations": {
            "type": "integer",
            "minimum": 1,
            "maximum": 1000,
            "default": 8,
            "description": "Rounds.",
        },
        "population": {
            "type": "integer",
            "minimum": 4,
            "maximum": 10000,
            "default": 40,
            "description": "Policies a round.",
        },
        "elite": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "default": 0.2,
            "description": "Share kept.",
        },
    }

    def train(self, job: Job) -> Any:
        """Policies drawn around the best of the round before."""
        starts, random = _read(job, "train"), np.random.default_rng(job.seed)
        mean, spread = np.zeros(4), np.ones(4)
        best = max(1, int(job.parameters["population"] * job.parameters["elite"]))
        for generation in range(job.parameters["generations"]):
            policies = mean + spread * random.normal(size=(job.parameters["population"], 4))
            drawn = starts[random.integers(len(starts), size=20)]
            returns = np.array([play(policy, drawn).mean() for policy in policies])
            elite = policies[np.argsort(-returns, kind="stable")[:best]]
            mean, spread = elite.mean(axis=0), elite.std(axis=0) + 0.01
            job.log_metric(
                "mean_return", float(returns.mean()), step=generation, split="train", direction="maximize"
            )
            job.progress(
                {"mean_return": float(returns.mean())}, generation + 1, job.parameters["generations"]
            )
        return mean

    def save(self, model: Any, directory: Path, job: Job) -> None:  # noqa: ARG002
        """Four numbers as JSON."""
        (directory / "policy.json").write_text(json.dumps(model.tolist()))
        (directory / "MLmodel").write_text("flavors:\n  json:\n    data: policy.json\n")

    def load(self, directory: Path) -> Any:
        """What `save` wrote."""
        return np.array(json.loads((directory / "policy.json").read_text()))

    def evaluate(self, model: Any, job: Job) -> None:
        """The return of every episode of `test`: none of them was ever played in training."""
        self._play_all(model, job, "test")

    def test_cases(self, model: Any, job: Job) -> Iterable[Case]:  # noqa: ARG002
        """A pole that leans to one side is caught on that side."""

        def pushed_after_it() -> None:
            assert np.array([0, 0, 0.1, 0]) @ model > 0
            assert np.array([0, 0, -0.1, 0]) @ model < 0

        yield Case("it pushes to where the pole falls", pushed_after_it)

    def predict(self, model: Any, job: Job) -> None:
        """How long each episode would last."""
        self._play_all(model, job, "predict")

    def _play_all(self, model: Any, job: Job, split: str) -> None:
        returns = play(model, _read(job, split))
        stderr = float(returns.std(ddof=1) / np.sqrt(len(returns))) if len(returns) > 1 else None
        job.log_metric(
            "episode_return",
            float(returns.mean()),
            split=split,
            direction="maximize",
            stderr=stderr,
            n=len(returns),
        )
        table = pq.ParquetDataset(job.files(split)).read(columns=list(job.columns.keys))
        pq.write_table(table.append_column("prediction", pa.array(returns)), job.paths.predictions)


def play(policy: Any, starts: Any) -> Any:
    """Returns of episodes, all played at once.

    :param policy: four weights.
    :param starts: one row an episode: position, velocity, angle, spin.
    """
    state, up, returns = starts.copy(), np.ones(len(starts), bool), np.zeros(len(starts))
    for _ in range(STEPS):
        if not up.any():
            break
        state = np.where(up[:, None], _step(state, np.where(state @ policy > 0, FORCE, -FORCE)), state)
        up &= (np.abs(state[:, 0]) <= MOST_AWAY) & (np.abs(state[:, 2]) <= MOST_ANGLE)
        returns += up
    return returns


def _step(state: Any, force: Any) -> Any:
    position, velocity, angle, spin = state.T
    pushed = (force + POLE_MASS * HALF_LENGTH * spin**2 * np.sin(angle)) / MASS
    turn = (GRAVITY * np.sin(angle) - np.cos(angle) * pushed) / (
        HALF_LENGTH * (4 / 3 - POLE_MASS * np.cos(angle) ** 2 / MASS)
    )
    gain = pushed - POLE_MASS * HALF_LENGTH * turn * np.cos(angle) / MASS
    moved = (
        position + SECONDS * velocity,
        velocity + SECONDS * gain,
        angle + SECONDS * spin,
        spin + SECONDS * turn,
    )
    return np.column_stack(moved)


def _read(job: Job, split: str) -> Any:
    table = pq.ParquetDataset(job.files(split)).read()
    names = list(job.columns.features)
    job.require_columns(table.column_names, names, split)
    return np.column_stack([table[name].cast("double").to_numpy() for name in names])


if __name__ == "__main__":
    main(CartPole)
