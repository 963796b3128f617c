"""What follows from a tuning's trials: when it ends, which is best, what comes next."""

from __future__ import annotations

import json

import pytest

from airflow_mlops.exceptions import ContractError
from airflow_mlops.primitives.training.search_space import Dimension
from airflow_mlops.primitives.training.tuning import (
    RETRIES,
    Plan,
    Trial,
    Tuning,
    objective_values,
    progress_value,
    read_figures,
)
from airflow_mlops.primitives.training.tuning_report import history_svg, importance_svg, trial_rows

SPACE = {"x": Dimension("float", 0.0, 1.0)}


def tuning(*values, directions=("minimize",), **plan) -> Tuning:
    """A tuning whose trials came out so: numbers are complete, words are states."""
    objectives = tuple(f"validation.m{number}" for number in range(len(directions)))
    made = Tuning("t", Plan(objectives, directions, SPACE, **plan), {}, {"kind": "process"}, 1000.0)
    for number, value in enumerate(values):
        trial = Trial(number, {"x": number / 10}, f"t-t{number}", 1000.0 + number)
        made.trials.append(trial)
        if isinstance(value, str):
            if value != "running":
                made.end(trial, value, f"reason {number}")
        else:
            trial.values = list(value) if isinstance(value, tuple) else [value]
            made.end(trial, "complete")
    return made


class TestEnd:
    def test_the_budget_of_trials_counts_all_that_ended(self):
        assert tuning(1.0, "pruned", trials=4).verdict(1000)[0] == "running"
        assert tuning(1.0, "pruned", "failed", "running", trials=4).verdict(1000)[0] == "running"
        assert tuning(1.0, "pruned", "failed", 2.0, trials=4).verdict(1000) == (
            "done",
            "all 4 trials are done",
        )
        assert tuning(1.0, "running", trials=4).left == 2

    def test_the_budget_of_time_counts_from_the_beginning(self):
        assert tuning(1.0, "running", timeout=60.0).verdict(1059)[0] == "running"
        assert tuning(1.0, "running", timeout=60.0).verdict(1060) == ("done", "its 60 s are over")

    def test_without_a_complete_trial_it_failed_with_the_last_reason(self):
        status, reason = tuning("running", timeout=60.0).verdict(1060)
        assert (status, reason) == (
            "failed",
            "its 60 s are over, and none is complete; at last: none has ended",
        )

    def test_trials_that_fail_in_a_row_end_it_with_their_reason(self):
        assert tuning(1.0, "failed", "failed", failures=3).verdict(1000)[0] == "running"
        assert tuning("failed", "failed", 1.0, "failed", failures=3).verdict(1000)[0] == "running"
        status, reason = tuning(1.0, "failed", "failed", "failed", failures=3).verdict(1000)
        assert (status, reason) == ("failed", "3 trials in a row failed, at last: reason 3")

    @pytest.mark.parametrize(
        ("values", "margin", "ends"),
        [
            ((3.0, 2.0, 1.0), 0.0, False),
            ((1.0, 2.0, 3.0), 0.0, True),
            ((1.0, "pruned", "failed", 3.0), 0.0, True),
            ((1.0, "failed", "failed", 3.0), 0.0, False),
            ((1.0, 0.99, 0.98), 0.1, True),
            ((1.0, 0.99, 0.8), 0.1, False),
        ],
    )
    def test_it_ends_early_when_it_no_longer_gets_better(self, values, margin, ends):
        made = tuning(*values, stop_after=2, min_improvement=margin)
        assert (made.verdict(1000)[0] == "done") is ends

    def test_several_objectives_get_better_while_their_front_grows(self):
        both = ("minimize", "maximize")
        assert (
            tuning((1.0, 1.0), (2.0, 2.0), (3.0, 3.0), directions=both, stop_after=2).verdict(1000)[0]
            == "running"
        )
        assert (
            tuning((1.0, 3.0), (2.0, 2.0), (3.0, 1.0), directions=both, stop_after=2).verdict(1000)[0]
            == "done"
        )


class TestBest:
    def test_by_direction_and_of_equals_the_first(self):
        assert tuning(3.0, 1.0, 1.0, "pruned").best().number == 1
        assert tuning(3.0, 1.0, 3.0, directions=("maximize",)).best().number == 0
        assert tuning("failed").best() is None

    def test_of_a_front_the_best_first_objective(self):
        made = tuning((2.0, 9.0), (1.0, 5.0), (1.0, 6.0), (3.0, 1.0), directions=("minimize", "maximize"))
        assert [trial.number for trial in made.front()] == [0, 2]
        assert made.best().number == 2


class TestNext:
    def test_the_defaults_come_first(self):
        made = tuning(first={"x": 0.5})
        assert made.given(0) == ({"x": 0.5}, None)
        assert made.given(1) == (None, None)

    def test_a_lost_trial_is_tried_again_some_times_and_counts_once(self):
        made = tuning(1.0, "running", trials=3)
        made.lose(made.trials[1], "its machine is gone")
        for number in range(2, 2 + RETRIES):
            assert made.left == 2
            given, of = made.given(number)
            assert (given, of) == ({"x": 0.1}, number - 1)
            made.trials.append(Trial(number, given, f"t-t{number}", 0.0, retry_of=of))
            made.lose(made.trials[number], "its machine is gone again")
        assert made.trials[-1].state == "failed"
        assert (made.given(4), made.left) == ((None, None), 1)

    def test_points_of_a_grid_are_done_once_each_also_when_one_was_lost(self):
        made = tuning(trials=3, sampler="grid")
        object.__setattr__(made.plan, "space", {"x": Dimension("choices", choices=("a", "b", "c"))})
        seen = []
        for number in range(4):
            given, of = made.given(number)
            trial = Trial(number, given, "", 0.0, retry_of=of)
            made.trials.append(trial)
            if number == 1:
                made.lose(trial, "gone")
            else:
                seen.append(given["x"])
                made.end(trial, "complete")
        assert (sorted(seen), made.left) == (["a", "b", "c"], 0)


class TestFigures:
    METRICS = b"""[{"name": "auc", "value": 0.5, "split": "validation", "step": 1},
        {"name": "auc", "value": 0.7, "split": "validation", "step": 9}, {"name": "size", "value": 3},
        {"name": "auc", "value": 0.9, "split": "validation", "slice": "a=b"}, {"name": "auc", "value": 0.8, "split": "train"}]"""

    def test_the_last_step_counts_and_slices_do_not(self):
        assert read_figures(self.METRICS) == {"validation.auc": 0.7, "size": 3, "train.auc": 0.8}

    def test_an_objective_is_found_by_split_and_name_or_by_a_name_that_is_one(self):
        figures = read_figures(self.METRICS)
        assert objective_values(["validation.auc", "size"], figures) == [0.7, 3]
        with pytest.raises(ContractError, match=r"has no auc, .* it has size, train.auc, validation.auc"):
            objective_values(["auc"], figures)
        assert objective_values(["auc"], {"validation.auc": 0.7, "test.auc": 0.1}) == [0.7]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"{", "is not JSON"),
            (b"{}", "must be a list"),
            (b'[{"name": "a", "value": NaN}]', r"metrics.json\[0\]"),
        ],
    )
    def test_broken_metrics_are_named(self, content, message):
        with pytest.raises(ContractError, match=message):
            read_figures(content)

    def test_progress_is_known_by_the_whole_name_or_its_last_part(self):
        assert progress_value("validation.auc", {"auc": 0.1, "validation.auc": 0.2}) == 0.2
        assert progress_value("validation.auc", {"auc": 0.1}) == 0.1
        assert progress_value("validation.auc", {"loss": 0.1}) is None


def test_the_document_survives_json():
    made = tuning(1.0, "pruned", "running", first={"x": 0.5}, timeout=60.0)
    made.trials[1].steps = {0: 0.5, 7: 0.25}
    again = Tuning.from_dict(json.loads(json.dumps(made.to_dict())))
    assert again == made
    with pytest.raises(ContractError, match="version 2"):
        Tuning.from_dict({"version": 2})


def test_the_plots_show_every_trial_with_a_value():
    made = tuning(3.0, "pruned", "failed", 1.0, 2.0)
    made.trials[1].steps = {0: 5.0, 3: 4.0}
    drawn = history_svg(made)
    assert drawn.count("<circle") == 4
    assert "trial 1, pruned: 4;" in drawn
    line = drawn.split('points="')[1].split('"')[0].split()
    assert [float(point.split(",")[1]) for point in line[1:]] == [float(line[-1].split(",")[1])] * 2
    assert "no trial has a value" in history_svg(tuning("failed"))
    bars = importance_svg({"small": 0.2, "<big>": 0.8})
    assert bars.index("&lt;big&gt;") < bars.index("small")
    assert [row["best"] for row in trial_rows(made)] == [False, False, False, True, False]
