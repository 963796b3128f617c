from __future__ import annotations

import json
import unittest

from airflow_mlops.contract import testing
from tests.unit.contract.conftest import ROWS
from tests.unit.contract.tiny import COLUMNS, Tiny


class TestTiny(testing.ModelCodeTestCase):
    """The inherited tests pass for a model code that keeps the contract."""

    model_code = Tiny
    columns = COLUMNS

    def examples(self, split):
        return ROWS

    def write_table(self, rows, path):
        path.write_text(json.dumps(rows))

    def read_table(self, path):
        return json.loads(path.read_text())


class Careless(Tiny):
    """It predicts with a chance of its own, drops a row, and does not look at the columns."""

    def evaluate(self, model, job):
        job.log_metric("brier", 0.1)
        job.paths.predictions.write_text("[]")

    def predict(self, model, job):
        import random

        rows = [row for path in job.files("predict") for row in json.loads(path.read_text())]
        job.paths.predictions.write_text(
            json.dumps([{"id": row["id"], "prediction": random.random()} for row in rows])
        )


def test_a_model_code_that_breaks_the_contract_is_told_where():
    case = type("Checked", (TestTiny,), {"model_code": Careless})
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    failed = {test.id().split(".")[-1].split(" ")[0] for test, _ in result.failures}
    assert failed == {
        "test_evaluate_measures_the_test_split",
        "test_the_same_seed_gives_the_same_predictions",
        "test_a_missing_column_is_refused",
    }
    assert not result.errors


def test_the_base_class_itself_is_no_test():
    assert not testing.ModelCodeTestCase.__test__
    assert TestTiny.__test__
