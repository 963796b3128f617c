"""Optuna behind a document: what it proposes and prunes does not depend on how often it was rebuilt."""

from __future__ import annotations

import ast
import json
import time

import pytest
import yaml

from airflow_mlops.hooks.optuna import OptunaStudy
from airflow_mlops.primitives.training.parameters import validate_parameters
from airflow_mlops.primitives.training.search_space import Dimension, default_point, grid, search_space
from airflow_mlops.primitives.training.tuning import Plan, Trial, Tuning
from tests.fixtures.markdown import ROOT, blocks

SPACE = {
    "x": Dimension("float", -1.0, 1.0),
    "n": Dimension("int", 1, 100, log=True, step=1),
    "kind": Dimension("choices", choices=("a", None, 2.5, True)),
}
NUMBERS = {"x": Dimension("float", -1.0, 1.0), "y": Dimension("float", 0.001, 1.0, log=True)}


def loss(parameters) -> float:
    return (
        (parameters["x"] - 0.3) ** 2
        + parameters.get("n", 1) / 100
        + parameters.get("y", 0)
        + (parameters.get("kind") == "a")
    )


def search(trials=24, restarts=(), *, space=SPACE, directions=("minimize",), **plan) -> Tuning:
    """A whole tuning, one trial after the other, with another process at each restart."""
    plan = Plan(("loss", "size")[: len(directions)], directions, space, trials=trials, **plan)
    tuning = Tuning("t", plan, {}, {}, time.time())
    study = OptunaStudy(tuning)
    for number in range(trials):
        if number in restarts:
            tuning = Tuning.from_dict(json.loads(json.dumps(tuning.to_dict())))
            study = OptunaStudy(tuning)
        trial = Trial(number, study.ask(number, tuning.given(number)[0]), "", time.time())
        tuning.trials.append(trial)
        state = "complete"
        for step in range(1, 10) if len(directions) == 1 else ():
            trial.steps[step] = loss(trial.parameters) + 1 / step
            if study.report(number, step, trial.steps[step]):
                state = "pruned"
                break
        trial.marks = study.marks(number)
        if state == "complete":
            trial.values = [loss(trial.parameters), trial.parameters["x"]][: len(directions)]
        tuning.end(trial, state)
        study.tell(trial)
    return tuning


def outline(tuning) -> list[tuple]:
    return [(trial.parameters, trial.state, max(trial.steps, default=0)) for trial in tuning.trials]


@pytest.mark.parametrize(
    "plan",
    [
        {"sampler": "tpe", "pruner": "asha"},
        {"sampler": "tpe", "pruner": "median"},
        {"sampler": "random", "pruner": "median"},
        {"sampler": "tpe", "directions": ("minimize", "maximize")},
    ],
    ids=str,
)
def test_a_restart_changes_nothing(plan):
    calm, restless = search(**plan), search(restarts=(3, 11, 12, 20), **plan)
    assert outline(restless) == outline(calm)
    # No two samples are the same: a restart does not begin the random numbers anew.
    assert len({trial.parameters["x"] for trial in calm.trials}) == 24
    if "pruner" in plan:
        assert {trial.state for trial in calm.trials} == {"complete", "pruned"}
    assert OptunaStudy(restless).importance() == OptunaStudy(calm).importance()


def test_tpe_and_cmaes_find_what_random_does_not():
    best = {
        sampler: search(40, space=NUMBERS, sampler=sampler, seed=3).best().values[0]
        for sampler in ("random", "tpe", "cmaes")
    }
    assert best["tpe"] < best["random"]
    assert best["cmaes"] < best["random"]


def test_cmaes_goes_on_where_the_trials_before_a_restart_were_good():
    for restarts in ((2,), (15, 30)):
        tuning = search(40, restarts, space=NUMBERS, sampler="cmaes")
        late = [loss(trial.parameters) for trial in tuning.trials[30:]]
        assert sum(late) / len(late) < loss(tuning.trials[0].parameters)


@pytest.mark.parametrize(
    "space",
    [
        {**NUMBERS, "kind": SPACE["kind"], "warm": Dimension("choices", choices=(False, True))},
        {**NUMBERS, "n": SPACE["n"], "only": Dimension("int", 3, 3, step=1)},
        {"x": Dimension("choices", choices=(0.1, 0.2, 0.5)), "warm": SPACE["kind"]},
    ],
    ids=["with choices", "with one of a single value", "choices alone"],
)
def test_cmaes_goes_on_in_a_space_that_is_not_all_numbers(space):
    for restarts in ((3,), (12, 16)):
        assert len(search(20, restarts, space=space, sampler="cmaes").finished) == 20


def test_values_keep_their_types_and_bounds():
    for trial in search(30, sampler="random").trials:
        assert type(trial.parameters["n"]) is int
        assert 1 <= trial.parameters["n"] <= 100
        assert -1 <= trial.parameters["x"] <= 1
        assert trial.parameters["kind"] in ("a", None, 2.5, True)


def test_what_matters_is_named_and_too_few_trials_say_nothing():
    space = {"x": SPACE["x"], "idle": Dimension("float", 0.0, 1.0)}
    importance = OptunaStudy(search(30, space=space, sampler="random")).importance()
    assert importance["x"] > importance["idle"]
    assert OptunaStudy(search(5, space=space)).importance() == {}


def test_trials_that_are_on_their_way_are_not_asked_for_again():
    tuning = Tuning("t", Plan(("loss",), ("minimize",), SPACE), {}, {}, time.time())
    for number in range(12):
        tuning.trials.append(Trial(number, OptunaStudy(tuning).ask(number), "", time.time()))
    assert len({trial.parameters["x"] for trial in tuning.trials}) == 12
    with pytest.raises(ValueError, match="Trial 20 is not the next one"):
        OptunaStudy(tuning).ask(20)


def test_the_example_of_the_how_to_is_searched_from_its_defaults():
    asked, described, *_ = blocks(ROOT / "docs/howto/tuning.md")
    schema = ast.literal_eval(described.text.removeprefix("parameters = "))
    training = yaml.safe_load(asked.text)["training"]
    narrowed, fixed = training["tuning"]["search_space"], training["parameters"]
    space = search_space({"properties": schema}, narrowed, tuple(fixed))
    first = default_point(space, {name: rule["default"] for name, rule in schema.items()})
    assert first == {"learning_rate": 0.1, "max_leaf_nodes": 32, "loss": "log"}
    done = search(3, (1, 2), space={**space, "x": NUMBERS["x"]}, first={**first, "x": 0.0})
    assert done.trials[0].parameters == {**first, "x": 0.0}


def test_every_point_of_a_grid_of_decimals_is_one_that_optuna_knows():
    space = {"x": Dimension("float", 0.0, 0.3, step=0.1), "y": Dimension("float", 0.1, 0.95, step=0.3)}
    points = grid(space, 0)
    done = search(len(points), (5,), space=space, sampler="grid")
    assert sorted(map(str, points)) == sorted(str(trial.parameters) for trial in done.trials)


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes"])
@pytest.mark.parametrize(
    ("rule", "entry"),
    [
        ({"type": "number", "minimum": 0.05, "maximum": 1, "multipleOf": 0.1}, None),
        ({"type": "number", "minimum": -1, "maximum": 1, "multipleOf": 0.3}, None),
        ({"type": "number", "multipleOf": 0.01}, {"low": 0.02, "high": 0.99, "step": 0.03}),
        ({"type": "integer", "minimum": -7, "maximum": 20, "multipleOf": 4}, None),
        ({"type": "integer", "minimum": 2**53, "maximum": 2**53 + 9, "multipleOf": 3}, None),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, None),
        ({"type": "number", "exclusiveMinimum": 0}, {"low": 1e-6, "high": 1, "log": True}),
        ({"enum": [0, False, 1, True, None, "a"]}, None),
    ],
)
def test_all_that_is_tried_is_what_the_schema_takes(sampler, rule, entry):
    schema = {"properties": {"x": rule, "y": {"type": "number", "minimum": 0, "maximum": 1}}}
    space = search_space(schema, {} if entry is None else {"x": entry, "y": {}})
    tuning = Tuning(
        "t", Plan(("loss",), ("minimize",), space, trials=40, sampler=sampler), {}, {}, time.time()
    )
    study = OptunaStudy(tuning)
    for number in range(40):
        if number == 30:  # another process, that knows what was written down
            tuning = Tuning.from_dict(json.loads(json.dumps(tuning.to_dict())))
            study = OptunaStudy(tuning)
        parameters = study.ask(number)
        assert validate_parameters(schema, parameters) == parameters
        tuning.trials.append(Trial(number, parameters, "", time.time(), values=[parameters["y"]]))
        tuning.end(tuning.trials[-1], "complete")
        study.tell(tuning.trials[-1])
    tried = {repr(trial.parameters["x"]) for trial in tuning.trials}
    if sampler == "random" and space["x"].kind != "float":
        assert tried == {repr(value) for value in space["x"].values()}
