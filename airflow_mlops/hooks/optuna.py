"""Optuna: which parameters to try next, and which trial to stop. Nothing is kept here: the tuning's document is all."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import ParameterError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, TrialState

    from airflow_mlops.primitives.training.search_space import Dimension
    from airflow_mlops.primitives.training.tuning import Trial, Tuning

#: What ASHA notes at a trial: how good it was when it reached a rung.
RUNG = "completed_rung_"
#: Complete trials that a sampler or pruner looks at before it judges.
STARTUP, MEDIAN_STARTUP = 10, 4


class OptunaStudy:
    """
    An Optuna study in memory, rebuilt from a tuning's document: trial ``n`` of one is trial ``n`` of the other.

    Every question is asked with a seed made of the plan's seed and the trial's number, so that a restart neither
    repeats a sample nor changes the following ones. CMA-ES keeps its state in memory: after a restart it begins
    anew where the trials so far were good.

    :param tuning: the document.
    """

    def __init__(self, tuning: Tuning) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        plan = self._plan = tuning.plan
        self._tuning = tuning
        with _quiet():
            self._space = {name: distribution(name, dimension) for name, dimension in plan.space.items()}
            self._study = optuna.create_study(
                directions=["minimize" if one == "minimize" else "maximize" for one in plan.directions],
                pruner=pruner(plan.pruner),
                sampler=self._sampler(len(tuning.trials)),
            )
            for trial in tuning.trials:
                self._study.add_trial(self._frozen(trial))

    def ask(self, number: int, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Parameters of trial ``number``, which is the next one.

        :param given: take these, without asking the sampler.
        """
        import optuna

        if number != len(self._study.trials):
            raise ValueError(
                f"Trial {number} is not the next one; {len(self._study.trials)} are in the study."
            )
        with _quiet():
            if given is not None:
                self._study.add_trial(
                    optuna.trial.create_trial(
                        state=optuna.trial.TrialState.RUNNING,
                        params=self._inside(given),
                        distributions=dict(self._space),
                    )
                )
                return dict(given)
            if self._plan.sampler != "cmaes":
                self._study.sampler = self._sampler(number)
            return self._outside(self._study.ask(dict(self._space)).params)

    def report(self, number: int, step: int, value: float) -> bool:
        """Note how far a trial is; whether it should be stopped."""
        import optuna

        with _quiet():
            trial = optuna.trial.Trial(self._study, self._study.trials[number]._trial_id)  # noqa: SLF001
            trial.report(value, step)
            return bool(trial.should_prune())

    def marks(self, number: int) -> dict[str, float]:
        """What the pruner noted at a trial, for the document."""
        noted = self._study.trials[number].system_attrs
        return {name: float(value) for name, value in noted.items() if name.startswith(RUNG)}

    def tell(self, trial: Trial) -> None:
        """Close a trial as the document does."""
        with _quiet():
            values = trial.values if trial.state == "complete" else None
            self._study.tell(trial.number, values, state=_state(trial))

    def importance(self) -> dict[str, float]:
        """Share of each parameter in what made the good trials good, by PED-ANOVA; empty when too few are complete.

        (Watanabe, Bansal, Hutter: PED-ANOVA, 2023.)
        """
        import optuna

        complete = [one for one in self._study.trials if one.state == optuna.trial.TrialState.COMPLETE]
        if len(complete) < STARTUP or len(self._space) < 2:
            return {}
        with _quiet():
            found = optuna.importance.get_param_importances(
                self._study,
                evaluator=optuna.importance.PedAnovaImportanceEvaluator(),
                target=_cost(self._plan.directions[0]),
            )
        return {name: float(value) for name, value in found.items()}

    def _sampler(self, number: int) -> BaseSampler:
        import optuna

        digest = hashlib.sha256(f"{self._plan.seed}/{number}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big")
        match self._plan.sampler:
            case "tpe":
                return optuna.samplers.TPESampler(
                    seed=seed, n_startup_trials=STARTUP, constant_liar=True, multivariate=True
                )
            case "cmaes":
                return optuna.samplers.CmaEsSampler(seed=seed, **self._warm_start())
            case _:
                return optuna.samplers.RandomSampler(seed=seed)

    def _warm_start(self) -> dict[str, Any]:
        # CMA-ES searches numbers alone, and takes no source that has more than these; a sampler beside it the others.
        space = {name: one for name, one in self._space.items() if _is_numeric(one)}
        complete = [trial for trial in self._tuning.trials if trial.state == "complete"]
        if len(complete) >= STARTUP and space:
            return {"source_trials": [self._frozen(trial, space) for trial in complete]}
        best = self._tuning.best()
        return {"x0": {name: self._inside(best.parameters)[name] for name in space}} if best and space else {}

    def _inside(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Values as the study has them: Optuna keeps floats and compares by ``==``, so what these confuse is counted."""
        space = self._plan.space
        return {
            name: space[name].number(value) if name in space and space[name].counted else value
            for name, value in parameters.items()
        }

    def _outside(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        space = self._plan.space
        return {
            # Optuna adds steps in floats, 3 * 0.1 = 0.30000000000000004, which is no multiple of 0.1.
            name: space[name].at(value) if space[name].counted else space[name].nearest(value)
            for name, value in parameters.items()
        }

    def _frozen(self, trial: Trial, space: dict[str, BaseDistribution] | None = None) -> FrozenTrial:
        import optuna

        state, space = _state(trial), self._space if space is None else space
        inside = self._inside(trial.parameters)
        ended = None if trial.state == "running" else _time(trial.finished_at or trial.started_at)
        frozen = optuna.trial.create_trial(
            state=state,
            params={name: inside[name] for name in space},
            distributions=dict(space),
            values=list(trial.values) if trial.state == "complete" else None,
            intermediate_values=dict(trial.steps),
            system_attrs=dict(trial.marks),
        )
        frozen.datetime_start, frozen.datetime_complete = _time(trial.started_at), ended
        return frozen


def distribution(name: str, dimension: Dimension) -> BaseDistribution:
    """A dimension as Optuna's own.

    :raises ParameterError: for one that Optuna cannot search.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    try:
        match dimension.kind:
            case "choices" if dimension.counted:
                return CategoricalDistribution(range(dimension.count))
            case "choices":
                return CategoricalDistribution(dimension.choices)
            case "int" if dimension.beyond_floats:
                return IntDistribution(0, dimension.count - 1)
            case "int":
                return IntDistribution(
                    int(dimension.low), int(dimension.high), dimension.log, int(dimension.step or 1)
                )
            case _:
                return FloatDistribution(dimension.low, dimension.high, dimension.log, dimension.step)
    except ValueError as error:
        raise ParameterError(f"training.tuning.search_space: {name} cannot be searched: {error}") from error


def pruner(name: str) -> BasePruner:
    """The pruner of a name of the YAML."""
    import optuna

    match name:
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=MEDIAN_STARTUP)
        case "asha":
            return optuna.pruners.SuccessiveHalvingPruner()
        case _:
            return optuna.pruners.NopPruner()


def _state(trial: Trial) -> TrialState:
    from optuna.trial import TrialState

    match trial.state:
        case "running":
            return TrialState.RUNNING
        case "complete":
            return TrialState.COMPLETE
        # Optuna takes the last step for the value of a pruned trial.
        case "pruned" if trial.steps:
            return TrialState.PRUNED
        case _:
            return TrialState.FAIL


def _is_numeric(one: BaseDistribution) -> bool:
    from optuna.distributions import CategoricalDistribution

    return not one.single() and not isinstance(one, CategoricalDistribution)


def _cost(direction: str) -> Any:
    sign = -1.0 if direction == "maximize" else 1.0
    return lambda trial: sign * trial.values[0]


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # Experimental features are chosen here on purpose; nobody else can do anything about them.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
