"""The model code keeps the contract, and learns what is in its data."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airflow_mlops.contract import Columns, DataError, Job, Paths, execute, testing

FOLDER = Path(__file__).parents[1]
sys.path.insert(0, str(FOLDER))

from measures import auc  # noqa: E402
from model_code import FlightDelay  # noqa: E402
from tables import inputs_of  # noqa: E402

NUMBERS = ("tail_last_arr_delay", "precip", "visib", "temp", "hour", "month")
COLUMNS = {
    "keys": ["flight_id"],
    "timestamp": "event_timestamp",
    "targets": ["late"],
    "features": [*NUMBERS, "origin", "carrier", "tailnum", "scheduled"],
}
ROWS = {"train": 3000, "validation": 800, "test": 800}


def flights(split: str) -> list[dict]:
    """Flights that are late because their aircraft is, or because it rains."""
    import numpy as np

    rng = np.random.default_rng(list(ROWS).index(split))
    rows = []
    for i in range(ROWS[split]):
        delay = float(rng.exponential(30) - 15) if rng.random() < 0.9 else None
        rain = float(rng.random() < 0.1) * 0.3
        risk = 0.1 + (0.5 if (delay or 0) > 30 else 0) + (0.2 if rain else 0)
        rows.append(
            {
                "flight_id": i,
                "event_timestamp": datetime(2013, 1, 1, tzinfo=UTC) + timedelta(minutes=i),
                "late": int(rng.random() < risk),
                "tail_last_arr_delay": delay,
                "precip": rain,
                "visib": 3.0 if rain else 10.0,
                "temp": float(rng.normal(10, 5)) if rng.random() < 0.95 else None,
                "hour": int(rng.integers(5, 24)),
                "month": 1,
                "origin": str(rng.choice(["EWR", "JFK", "LGA"])),
                "carrier": str(rng.choice(["UA", "B6", "DL"])) if i % 50 else None,
                "tailnum": f"N{i % 500}",
                "scheduled": datetime(2013, 1, 1, tzinfo=UTC),
            }
        )
    return rows


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestFlightDelay(testing.ModelCodeTestCase):
    """The inherited tests."""

    model_code = FlightDelay
    columns = COLUMNS
    parameters = {"max_iter": 20, "min_samples_leaf": 20}  # noqa: RUF012

    def examples(self, split):
        return flights(split)

    def write_table(self, rows, path):
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(list(rows)), path)

    def read_table(self, path):
        import pyarrow.parquet as pq

        return pq.read_table(path).to_pylist()

    def trained(self) -> Paths:
        return self._trained_root()

    def test_the_model_has_learnt_and_its_cases_pass(self):
        metrics = json.loads(self._run_ok("evaluate").metrics.read_text())
        assert [m["n"] for m in metrics if m["name"] == "latency_p95"] == [50]
        whole = {m["name"]: m for m in metrics if "slice" not in m and not m["name"].startswith("latency_")}
        assert set(whole) == {"auc", "brier", "error", "positive_rate", "log_loss", "average_precision"}
        assert whole["auc"]["value"] > 0.65
        assert 0 < whole["brier"]["stderr"] < 0.05
        assert whole["brier"]["direction"] == "minimize"
        assert {m["slice"] for m in metrics if "slice" in m} == {"origin=EWR", "origin=JFK", "origin=LGA"}

        paths, exit_code = self._run("test")
        assert exit_code == 0, paths.failure.read_text()
        assert "riskier than one on time" in paths.tests.read_text()

    def test_the_curve_has_a_step_for_every_tenth_tree(self):
        curve = [m for m in json.loads(self.trained().metrics.read_text()) if "step" in m]
        assert [m["step"] for m in curve if m["name"] == "auc"] == [10, 20]

    def test_mlflow_can_load_the_model(self):
        import mlflow.pyfunc
        import numpy as np
        import pandas as pd

        model = mlflow.pyfunc.load_model(str(self.trained().model))
        names = [spec.name for spec in model.metadata.get_input_schema().inputs]
        assert set(names) == {*NUMBERS, "origin", "carrier"} - {"month"}, (
            "tail numbers, times and the month are no inputs"
        )
        frame = pd.DataFrame(flights("test"))[names].astype({"hour": "float64"})
        ours = self._predictions(self._run_ok("predict"))
        assert np.allclose(model.predict(frame)[:, 1], [ours[(i,)] for i in range(len(frame))])

    def test_a_model_is_no_pickle(self):
        text = (self.trained().model / "MLmodel").read_text()
        assert "serialization_format: skops" in text

    def test_an_input_that_is_wholly_missing_does_not_stop_predictions(self):
        import shutil

        paths = self._root()
        shutil.copytree(self.trained().model, paths.model)
        self._prepare(paths, "predict")
        rows = [{**row, "temp": None, "carrier": None} for row in flights("test")]
        self.write_table(rows, paths.split("predict") / "part-0.parquet")
        assert execute(FlightDelay, "predict", paths) == 0

    def test_a_target_that_is_no_class_is_a_data_failure(self):
        paths = self._root()
        self._prepare(paths, "train")
        rows = [{**row, "late": row["late"] * 2} for row in flights("train")]
        self.write_table(rows, paths.split("train") / "part-0.parquet")
        assert execute(FlightDelay, "train", paths) == 11
        assert "late of the train split: expected 0 and 1" in paths.failure.read_text()

    def test_a_number_that_became_a_string_is_a_data_failure(self):
        import shutil

        paths = self._root()
        shutil.copytree(self.trained().model, paths.model)
        self._prepare(paths, "predict")
        rows = [{**row, "temp": "mild"} for row in flights("test")]
        self.write_table(rows, paths.split("predict") / "part-0.parquet")
        assert execute(FlightDelay, "predict", paths) == 11
        assert "temp of the predict split: expected numbers" in paths.failure.read_text()

    def test_a_model_that_does_not_mind_late_aircraft_fails_its_case(self):
        paths = self._root()
        self._prepare(paths, "train")
        for split in ("train", "validation"):
            rows = [{**row, "tail_last_arr_delay": 0.0} for row in flights(split)]
            self.write_table(rows, paths.split(split) / "part-0.parquet")
        assert execute(FlightDelay, "train", paths) == 0
        tested, exit_code = self._run("test", paths)
        assert exit_code == 13
        assert "riskier than one on time: mean probability" in tested.failure.read_text()

    def test_serve_refuses_a_string_for_a_number(self):
        code = FlightDelay()
        model = code.load(self.trained().model)
        row = dict.fromkeys(COLUMNS["features"])
        assert 0 < code.serve(model, [row])[0] < 1
        with pytest.raises(DataError, match="Row 0: temp: expected a number or null, got 'mild'"):
            code.serve(model, [{**row, "temp": "mild"}])
        with pytest.raises(DataError, match="Row 1 lacks temp"):
            code.serve(model, [row, dict.fromkeys(name for name in row if name != "temp")])


def test_auc_and_its_error_are_those_of_delong():
    import numpy as np
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(1)
    actual = rng.integers(0, 2, 500)
    probability = np.round(rng.random(500) + 0.3 * actual, 1)
    area, error = auc(actual, probability)
    assert area == pytest.approx(roc_auc_score(actual, probability))
    redrawn = []
    for _ in range(400):
        rows = rng.integers(0, 500, 500)
        redrawn.append(roc_auc_score(actual[rows], probability[rows]))
    assert error == pytest.approx(np.std(redrawn), rel=0.15)


def test_features_of_unusable_types_are_left_out(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = Paths(tmp_path)
    paths.split("train").mkdir(parents=True)
    table = pa.table({"a": [1], "b": ["x"], "c": [[1]], "d": [True], "month": [3]})
    pq.write_table(table, paths.split("train") / "part-0.parquet")
    job = Job("train", paths, {}, Columns(features=("b", "a", "c", "d", "month")))
    inputs = inputs_of(job, "train")
    assert (inputs.numbers, inputs.strings) == (("a", "d"), ("b",))


def test_describe_is_quick_since_it_imports_no_library():
    program = (
        f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import model_code\n"
        "print([m for m in ('numpy', 'pandas', 'sklearn', 'mlflow', 'pyarrow') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_pinned_versions_are_those_of_this_environment():
    from importlib.metadata import version

    lines = (FOLDER / "requirements.txt").read_text().splitlines()
    for name, _, pinned in (line.partition("==") for line in lines if not line.startswith("#")):
        assert version(name) == pinned, f"requirements.txt has {name} {pinned}"
