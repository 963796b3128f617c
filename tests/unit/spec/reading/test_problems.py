from __future__ import annotations

import pickle
from pathlib import Path

from airflow_mlops.exceptions import SpecError
from airflow_mlops.spec import Place, Problem, SpecFileError

PROBLEM = Problem(
    Place(Path("a.yaml"), 3, 5), "training.sed", "is not a known key", "seed", "sed", "seed", "write seed"
)


def test_a_problem_reads_as_place_what_expected_got_and_cure():
    assert str(PROBLEM) == (
        "a.yaml:3:5: training.sed is not a known key\n"
        "    expected: seed\n"
        "    got:      sed\n"
        "    nearest:  seed\n"
        "    cure:     write seed"
    )


def test_a_problem_as_json():
    assert PROBLEM.to_dict() == {
        "file": "a.yaml", "line": 3, "column": 5, "key": "training.sed", "what": "is not a known key",
        "expected": "seed", "got": "sed", "nearest": "seed", "cure": "write seed",
    }  # fmt: skip


def test_the_error_lists_its_problems_and_survives_pickling():
    whole = Problem(Place(Path("a.yaml")), "", "is too large")
    error = SpecFileError(Path("a.yaml"), [PROBLEM, whole, PROBLEM])
    assert isinstance(error, SpecError)
    assert str(error).splitlines()[:3] == [
        "2 problems in a.yaml",
        "a.yaml: the file is too large",
        "a.yaml:3:5: training.sed is not a known key",
    ]
    again = pickle.loads(pickle.dumps(error))
    assert (again.problems, str(again)) == (error.problems, str(error))
