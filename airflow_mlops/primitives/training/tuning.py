"""The document of a tuning: its plan, its trials, and what follows from them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from airflow_mlops.contract.protocol.results import metric_problems
from airflow_mlops.exceptions import ContractError
from airflow_mlops.primitives.texts.nearest import nearest_of
from airflow_mlops.primitives.training.search_space import Dimension, grid

TrialState = Literal["running", "complete", "pruned", "failed", "lost", "stopped"]
Status = Literal["running", "done", "failed"]

#: Times that the same parameters are tried again after their job was lost without a word about them.
RETRIES = 2
#: Steps of one trial that are kept while it runs, and figures.
STEPS_LIMIT = 1_000
FIGURES_LIMIT = 100
#: Steps of an ended trial that are kept: a curve needs no more.
CURVE_LIMIT = 200


@dataclass(frozen=True)
class Plan:
    """What a tuning was asked to do.

    :param space: parameter → its values.
    :param fixed: all other parameters.
    :param first: parameters of the first trial: the model code's defaults.
    :param timeout: seconds of the whole tuning.
    :param trial_timeout: seconds of one job.
    :param stop_after: finished trials without an improvement that end it; 0 for never.
    :param failures: failed trials in a row that end it.
    :param keep_best: the best trial's job is kept, since its model will be taken.
    """

    objectives: tuple[str, ...]
    directions: tuple[str, ...]
    space: Mapping[str, Dimension]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    first: Mapping[str, Any] | None = None
    trials: int = 30
    parallel: int = 2
    timeout: float | None = None
    trial_timeout: float | None = None
    sampler: str = "tpe"
    pruner: str = "none"
    stop_after: int = 0
    min_improvement: float = 0.0
    failures: int = 3
    trials_per_container: int = 1
    seed: int = 0
    keep_best: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return {**asdict(self), "space": {name: one.to_dict() for name, one in self.space.items()}}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Plan:
        """What :meth:`to_dict` gave, perhaps by way of JSON."""
        space = {name: Dimension.from_dict(one) for name, one in content["space"].items()}
        pairs = {name: tuple(content[name]) for name in ("objectives", "directions")}
        return cls(**{**content, **pairs, "space": space})


@dataclass
class Trial:
    """One training of a tuning.

    :param parameters: of the search space alone.
    :param job: name of the job that does it.
    :param order: which finished trial it was, from 0; ``None`` until then.
    :param values: one for each objective, once complete.
    :param steps: step → first objective, as far as reported.
    :param marks: what the pruner remembers of it.
    :param figures: all metrics of the trial without step and slice.
    :param pruned_at: step at which it was told to stop.
    :param retry_of: the lost trial whose parameters it tries again.
    """

    number: int
    parameters: dict[str, Any]
    job: str
    started_at: float
    state: TrialState = "running"
    order: int | None = None
    finished_at: float | None = None
    values: list[float] = field(default_factory=list)
    steps: dict[int, float] = field(default_factory=dict)
    marks: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    pruned_at: int | None = None
    reason: str = ""
    retry_of: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The trial as it is now, as JSON values; what happens to it later does not change them."""
        own = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: copy(value) if isinstance(value, dict | list) else value for name, value in own.items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Trial:
        """A trial of the document."""
        steps = {int(step): value for step, value in content["steps"].items()}
        return cls(**{**content, "steps": steps})


@dataclass
class Tuning:
    """A tuning as its document in the store says it. Rules read it; the loop changes it.

    :param name: of the tuning's own job; those of the trials begin with it.
    :param job: what all trials' jobs have in common, as a :class:`~airflow_mlops.runners.protocol.ContainerJob`.
    :param runner: ``kind`` and options.
    :param created_at: Unix time; the budget of time counts from here.
    :param inputs: path below ``/opt/ml`` → key in the store, where the runner cannot share inputs itself.
    :param owner: the process that goes on with it.
    :param image: what the first trial's job said of its image: ``image_digest`` and ``image_labels``.
    """

    name: str
    plan: Plan
    job: dict[str, Any]
    runner: dict[str, Any]
    created_at: float
    inputs: dict[str, str] = field(default_factory=dict)
    owner: str = ""
    status: Status = "running"
    reason: str = ""
    image: dict[str, Any] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)

    def head(self) -> dict[str, Any]:
        """The document without its trials, as JSON values."""
        own = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "trials"}
        return {"version": 1, **own, "plan": self.plan.to_dict()}

    def to_dict(self) -> dict[str, Any]:
        """The document as JSON values."""
        return {**self.head(), "trials": [trial.to_dict() for trial in self.trials]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Tuning:
        """Read the document."""
        if content.get("version") != 1:
            raise ContractError(f"The tuning's document has version {content.get('version')!r}; expected 1.")
        own = {key: value for key, value in content.items() if key != "version"}
        plan, trials = Plan.from_dict(own["plan"]), [Trial.from_dict(trial) for trial in own["trials"]]
        return cls(**{**own, "plan": plan, "trials": trials})

    # What it says ------------------------------------------------------------------------------

    @property
    def running(self) -> list[Trial]:
        """Trials on their way."""
        return [trial for trial in self.trials if trial.state == "running"]

    @property
    def finished(self) -> list[Trial]:
        """Trials that count, in the order in which they ended."""
        counted = [trial for trial in self.trials if trial.state in ("complete", "pruned", "failed")]
        return sorted(counted, key=lambda trial: trial.order or 0)

    @property
    def left(self) -> int:
        """Trials that may still begin."""
        return max(0, self.plan.trials - len(self.finished) - len(self.running))

    def best(self) -> Trial | None:
        """The best complete trial.

        With several objectives: of the trials that no other one beats in all objectives, the one with the best
        first objective; of equals the next objectives decide, then the lower number.
        """
        complete = [trial for trial in self.trials if trial.state == "complete"]
        return min(complete, key=lambda trial: (*self.costs(trial), trial.number), default=None)

    def front(self) -> list[Trial]:
        """Complete trials that no other one beats: as good in every objective and better in one."""
        complete = [trial for trial in self.trials if trial.state == "complete"]
        return [
            trial
            for trial in complete
            if not any(_beats(self.costs(other), self.costs(trial)) for other in complete)
        ]

    def costs(self, trial: Trial) -> tuple[float, ...]:
        """The trial's values, less is better."""
        pairs = zip(trial.values, self.plan.directions, strict=True)
        return tuple(-value if direction == "maximize" else value for value, direction in pairs)

    def verdict(self, now: float) -> tuple[Status, str]:
        """Whether the tuning goes on, and if not, why. Trials on their way are waited for or stopped by the caller."""
        finished = self.finished
        lately = finished[-self.plan.failures :]
        if len(lately) == self.plan.failures and all(trial.state == "failed" for trial in lately):
            return "failed", f"{len(lately)} trials in a row failed, at last: {lately[-1].reason}"
        if not self.left and not self.running:
            return self._ended(f"all {len(finished)} trials are done")
        if self.plan.timeout and now - self.created_at >= self.plan.timeout:
            return self._ended(f"its {self.plan.timeout:.0f} s are over")
        if self.plan.stop_after and self._without_improvement() >= self.plan.stop_after:
            return self._ended(f"the last {self.plan.stop_after} trials were no better")
        return "running", ""

    def _ended(self, why: str) -> tuple[Status, str]:
        if self.best():
            return "done", why
        last = next((trial.reason for trial in reversed(self.finished) if trial.reason), "none has ended")
        return "failed", f"{why}, and none is complete; at last: {last}"

    def _without_improvement(self) -> int:
        best: list[tuple[float, ...]] = []
        count = 0
        for trial in self.finished:
            # Trials that failed say nothing of the parameters around the best ones.
            if trial.state == "failed":
                continue
            count += 1
            if trial.state != "complete":
                continue
            costs, margin = self.costs(trial), self.plan.min_improvement
            # Better by the margin than all so far, in at least one objective.
            if all(
                any(cost < other - margin for cost, other in zip(costs, one, strict=True)) for one in best
            ):
                count = 0
            best.append(costs)
        return count

    # What comes next ---------------------------------------------------------------------------

    def given(self, number: int) -> tuple[dict[str, Any] | None, int | None]:
        """Parameters of the next trial where they need no sampler, and the trial that it repeats.

        Lost trials come first, then the model code's defaults, then the points of a grid.
        """
        repeated = {trial.retry_of for trial in self.trials}
        for trial in self.trials:
            if trial.state == "lost" and trial.number not in repeated and self._tries(trial) <= RETRIES:
                return dict(trial.parameters), trial.number
        if self.plan.sampler == "grid":
            return grid(self.plan.space, self.plan.seed)[self._begun()], None
        return (dict(self.plan.first) if number == 0 and self.plan.first else None), None

    def _begun(self) -> int:
        return sum(trial.retry_of is None for trial in self.trials)

    def _tries(self, trial: Trial) -> int:
        tries = 1
        while trial.retry_of is not None:
            trial, tries = self.trials[trial.retry_of], tries + 1
        return tries

    def lose(self, trial: Trial, reason: str) -> None:
        """A job ended without a word about its parameters: they are tried again, some times."""
        self.end(trial, "lost" if self._tries(trial) <= RETRIES else "failed", reason)

    def end(self, trial: Trial, state: TrialState, reason: str = "", *, at: float | None = None) -> None:
        """Close a trial."""
        trial.state, trial.reason = state, reason[:2_000]
        trial.order = 1 + max((one.order for one in self.trials if one.order is not None), default=-1)
        trial.finished_at = at
        # The median of a step is asked of all trials that have it; nobody else looks back at single steps.
        if self.plan.pruner != "median":
            trial.steps = thinned(trial.steps)


def thinned(steps: Mapping[int, float], limit: int = CURVE_LIMIT) -> dict[int, float]:
    """At most so many steps, in order and evenly spaced: the first and the last one are among them."""
    ordered = sorted(steps)
    last = max(1, limit - 1)
    places = {number * (len(ordered) - 1) // last for number in range(limit)}
    kept = ordered if len(ordered) <= limit else [ordered[place] for place in sorted(places)]
    return {step: steps[step] for step in kept}


def objective_values(objectives: Sequence[str], figures: Mapping[str, float]) -> list[float]:
    """The objectives among a trial's figures.

    :param objectives: as ``validation.auc``, or a name alone where only one split has it.
    :param figures: by ``split.name``, as :func:`figures_of` gives them.
    :raises ContractError: naming the missing one and what there is.
    """
    return [figures[_found(objective, figures)] for objective in objectives]


def read_figures(content: bytes) -> dict[str, float]:
    """Figures of a ``metrics.json`` as a trial wrote it.

    :raises ContractError: it breaks the contract.
    """
    try:
        metrics = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ContractError(f"output/metrics.json is not JSON: {error}.") from error
    if not isinstance(metrics, list):
        raise ContractError(f"output/metrics.json must be a list of metrics, got {type(metrics).__name__}.")
    # A null says what an absent key says: not every language leaves it out.
    found = [
        {key: value for key, value in metric.items() if value is not None}
        if isinstance(metric, dict)
        else metric
        for metric in metrics
    ]
    for number, metric in enumerate(found):
        if problems := metric_problems(metric):
            raise ContractError(
                f"output/metrics.json[{number}] breaks the contract: {'; '.join(problems)[:500]}."
            )
    return figures_of(found)


def read_figures_file(file: str) -> dict[str, float]:
    """As :func:`read_figures`, of a file; for :func:`airflow_mlops.primitives.container_output.judging.judge_file`."""
    return read_figures(Path(file).read_bytes())


def figures_of(metrics: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Metrics of ``metrics.json`` by ``split.name``: those of no slice, each at its last step."""
    found: dict[str, tuple[float, float]] = {}
    for metric in metrics:
        if metric.get("slice"):
            continue
        name = ".".join(str(part) for part in (metric.get("split"), metric["name"]) if part)
        step = math.inf if metric.get("step") is None else metric["step"]
        if name not in found or step >= found[name][0]:
            found[name] = (step, float(metric["value"]))
    return {name: value for name, (_, value) in found.items()}


def progress_value(objective: str, metrics: Mapping[str, float]) -> float | None:
    """The objective in one line of progress: by its whole name, or its last part."""
    return metrics.get(objective, metrics.get(objective.rpartition(".")[2]))


def _found(objective: str, figures: Mapping[str, float]) -> str:
    if objective in figures:
        return objective
    ends = [name for name in figures if name.rpartition(".")[2] == objective and not name.startswith("test.")]
    if len(ends) == 1:
        return ends[0]
    raise ContractError(
        f"metrics.json has no {objective}, the objective of the tuning; it has {nearest_of(figures, objective)}. Cure: log it in train with "
        "that name and split, or correct training.tuning.objective."
    )


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other
