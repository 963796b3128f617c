# ruff: noqa: PT009 - unittest's own assertions say more, under any runner and with python -O
"""A test case that model repositories inherit: it holds their model code to the contract."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
import threading
import unittest
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_mlops.contract.container.entrypoint import execute
from airflow_mlops.contract.model_code.job import read_job
from airflow_mlops.contract.model_code.model_code import ModelCode
from airflow_mlops.contract.protocol.documents import json_text
from airflow_mlops.contract.protocol.paths import CONTRACT_VERSION, Paths
from airflow_mlops.contract.protocol.results import metric_problems

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Row = dict[str, Any]


class ModelCodeTestCase(unittest.TestCase):
    """Run every command of a model code on small data, and assert what contract 1 promises.

    A subclass names its class and gives data; the tests are inherited::

        class TestChurn(ModelCodeTestCase):
            model_code = Churn
            columns = {"keys": ["id"], "timestamp": "at", "targets": ["left"], "features": ["age"]}

            def examples(self, split): return [{"id": 1, "at": …, "left": 0, "age": 31.0}, …]
            def write_table(self, rows, path): pyarrow.parquet.write_table(…)
            def read_table(self, path): return pyarrow.parquet.read_table(path).to_pylist()
    """

    __test__ = False  # pytest: the base class itself is no test

    model_code: ClassVar[type[ModelCode]] = ModelCode
    """The class under test."""

    columns: ClassVar[Mapping[str, Any]] = {}
    """The roles of the columns: keys, timestamp, targets, features."""

    parameters: ClassVar[Mapping[str, Any]] = {}
    """Parameters of the training, to keep it short."""

    exact: ClassVar[bool] = True
    """Whether two trainings with one seed must predict exactly the same."""

    _trained: ClassVar[dict[type[ModelCodeTestCase], tempfile.TemporaryDirectory[str]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """A subclass is a test."""
        super().__init_subclass__(**kwargs)
        cls.__test__ = True

    # What a subclass gives.

    def examples(self, split: str) -> Sequence[Row]:
        """Small data of a split (``train``, ``validation``, ``test``), with all columns."""
        raise NotImplementedError

    def write_table(self, rows: Sequence[Row], path: Path) -> None:
        """Write rows into a Parquet file."""
        raise NotImplementedError

    def read_table(self, path: Path) -> list[Row]:
        """Read the rows of a Parquet file."""
        raise NotImplementedError

    # The contract.

    def test_describe_is_one_json_object(self) -> None:
        """``describe`` prints one JSON object that says what the class is."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            self.assertEqual(execute(self.model_code, "describe"), 0)
        description = json.loads(printed.getvalue())
        self.assertEqual(description["contract"], CONTRACT_VERSION)
        self.assertTrue(description["name"], "name is empty")
        self.assertTrue(description["version"], "version is empty")
        self.assertIn("train", description["commands"])
        self.assertEqual(description["parameters"]["type"], "object")
        self.assertIs(description["parameters"]["additionalProperties"], False)

    def test_train_writes_a_model_and_metrics(self) -> None:
        """``train`` leaves a model directory and metrics that parse."""
        paths = self._trained_root()
        self.assertTrue(any(paths.model.iterdir()), "model/ is empty")
        self._assert_metrics(paths)
        self.assertFalse(paths.failure.exists(), "output/failure after a success")

    def test_evaluate_measures_the_test_split(self) -> None:
        """``evaluate`` gives metrics of the split ``test``, and a prediction for each of its rows."""
        paths = self._run_ok("evaluate")
        names = [m["name"] for m in self._assert_metrics(paths) if m.get("split") == "test"]
        self.assertTrue(names, "no metric has the split `test`")
        self._assert_predictions(paths, self.examples("test"))

    def test_test_writes_junit(self) -> None:
        """``test`` writes a JUnit report, and its exit code agrees with it."""
        self._require("test")
        paths, exit_code = self._run("test")
        report = paths.tests.read_text(encoding="utf-8")
        self.assertIn("<testcase", report)
        failed = "<failure" in report or "<error" in report
        self.assertEqual(exit_code, 13 if failed else 0, self._why(paths))

    def test_predict_keeps_keys_and_rows(self) -> None:
        """``predict`` gives one prediction for each row, without targets in the data."""
        paths = self._run_ok("predict")
        self._assert_predictions(paths, self.examples("test"))

    def test_the_same_seed_gives_the_same_predictions(self) -> None:
        """Two trainings on the same data with the same seed are the same model."""
        self._require("predict")
        first = self._predictions(self._run_ok("predict"))
        again = self._root()
        self._prepare(again, "train")
        self.assertEqual(self._execute("train", again), 0, self._why(again))
        second = self._predictions(self._run_ok("predict", again))
        for key, value in first.items():
            if self.exact:
                self.assertEqual(second[key], value, f"prediction of {key}")
            else:
                self.assertAlmostEqual(second[key], value, places=4, msg=f"prediction of {key}")

    def test_an_unknown_parameter_is_refused(self) -> None:
        """A parameter that the schema does not have ends with exit code 10, and says its name."""
        paths = self._root()
        self._prepare(paths, "train", parameters={**self.parameters, "no_such_parameter": 1})
        self.assertEqual(self._execute("train", paths), 10)
        self.assertIn("no_such_parameter", paths.failure.read_text(encoding="utf-8"))

    def test_a_missing_column_is_refused(self) -> None:
        """A feature that the data lacks ends with exit code 11, and says its name."""
        feature = self.columns["features"][0]
        for command in {"train", "predict"} & set(self.model_code.commands()):
            with self.subTest(command):
                paths = self._root()
                if command != "train":
                    shutil.copytree(self._trained_root().model, paths.model)
                self._prepare(paths, command, leave_out=(feature,))
                self.assertEqual(self._execute(command, paths), 11, self._why(paths))
                self.assertIn(feature, paths.failure.read_text(encoding="utf-8"))

    def test_no_data_is_refused(self) -> None:
        """A training without any file ends with exit code 11."""
        paths = self._root()
        self._prepare(paths, "train")
        shutil.rmtree(paths.split("train"))
        self.assertEqual(self._execute("train", paths), 11, self._why(paths))

    def test_serve_answers(self) -> None:
        """``serve`` gives one prediction a row, and 400 for a row without a column."""
        self._require("serve")
        from airflow_mlops.contract.model_code.serving import ModelServer

        paths = self._trained_root()
        code = self.model_code()
        job = read_job("serve", paths, self.model_code.parameters)
        server = ModelServer(("127.0.0.1", 0), code, code.load(job.paths.model), "test")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            features = list(self.columns["features"])
            rows = [[row[name] for name in features] for row in self.examples("test")[:2]]
            split = {"columns": features, "data": rows}
            with contextlib.redirect_stdout(io.StringIO()):
                status, answer = _post(server, {"dataframe_split": split})
                self.assertEqual(status, 200, answer)
                self.assertEqual(len(answer["predictions"]), len(rows))
                status, answer = _post(server, {"dataframe_records": [{"no_such_column": 1}]})
            self.assertEqual(status, 400, answer)
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    # How it is done.

    def _trained_root(self) -> Paths:
        """Root of one training of this class, made once."""
        cls = type(self)
        if cls not in ModelCodeTestCase._trained:
            folder = tempfile.TemporaryDirectory(prefix="mlops-")
            cls.addClassCleanup(lambda: ModelCodeTestCase._trained.pop(cls).cleanup())
            ModelCodeTestCase._trained[cls] = folder
            paths = Paths(Path(folder.name))
            self._prepare(paths, "train")
            exit_code = self._execute("train", paths)
            if exit_code != 0:
                self.fail(f"train ended with exit code {exit_code}: {self._why(paths)}")
        return Paths(Path(ModelCodeTestCase._trained[cls].name))

    def _root(self) -> Paths:
        folder = tempfile.TemporaryDirectory(prefix="mlops-")
        self.addCleanup(folder.cleanup)
        return Paths(Path(folder.name))

    def _prepare(
        self,
        paths: Paths,
        command: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        leave_out: Sequence[str] = (),
    ) -> None:
        """Write the data and the configuration of one job."""
        splits = {"train": ["train", "validation"], "predict": ["predict"]}.get(command, ["test"])
        hidden = {*leave_out, *(self.columns["targets"] if command == "predict" else ())}
        for split in splits:
            paths.split(split).mkdir(parents=True)
            rows = self.examples("test" if split == "predict" else split)
            self.write_table(
                [{name: value for name, value in row.items() if name not in hidden} for row in rows],
                paths.split(split) / "part-0.parquet",
            )
        paths.config.parent.mkdir(parents=True, exist_ok=True)
        config = {
            "contract": CONTRACT_VERSION,
            "command": command,
            "parameters": dict(self.parameters if parameters is None else parameters),
            "seed": 7,
            "paradigm": self.model_code.paradigm,
            "run": {},
            "columns": dict(self.columns),
        }
        paths.config.write_text(json_text(config), encoding="utf-8")

    def _execute(self, command: str, paths: Paths) -> int:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return execute(self.model_code, command, paths)

    def _run(self, command: str, trained: Paths | None = None) -> tuple[Paths, int]:
        source = trained or self._trained_root()
        paths = self._root()
        shutil.copytree(source.model, paths.model)
        self._prepare(paths, command)
        return paths, self._execute(command, paths)

    def _run_ok(self, command: str, trained: Paths | None = None) -> Paths:
        self._require(command)
        paths, exit_code = self._run(command, trained)
        self.assertEqual(exit_code, 0, self._why(paths))
        return paths

    def _require(self, command: str) -> None:
        if command not in self.model_code.commands():
            self.skipTest(f"{self.model_code.__name__} has no command `{command}`")

    def _why(self, paths: Paths) -> str:
        return paths.failure.read_text(encoding="utf-8") if paths.failure.exists() else "no output/failure"

    def _assert_metrics(self, paths: Paths) -> list[Row]:
        metrics: list[Row] = json.loads(paths.metrics.read_text(encoding="utf-8"))
        self.assertTrue(metrics, "metrics.json is an empty list")
        for metric in metrics:
            self.assertEqual(metric_problems(metric), [], metric)
        return metrics

    def _predictions(self, paths: Paths) -> dict[tuple[Any, ...], Any]:
        rows = self.read_table(paths.predictions)
        return {tuple(row[key] for key in self.columns["keys"]): row["prediction"] for row in rows}

    def _assert_predictions(self, paths: Paths, examples: Sequence[Row]) -> None:
        rows = self.read_table(paths.predictions)
        keys = list(self.columns["keys"])
        self.assertEqual(len(rows), len(examples), "rows of predictions.parquet")
        self.assertEqual(
            sorted(tuple(row[key] for key in keys) for row in rows),
            sorted(tuple(row[key] for key in keys) for row in examples),
            f"keys {keys} of predictions.parquet",
        )
        self.assertTrue(all(row["prediction"] is not None for row in rows), "a prediction is missing")


def _post(server: Any, content: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    host, port = server.server_address[:2]
    request = urllib.request.Request(
        f"http://{host}:{port}/invocations",
        json_text(content, default=str).encode(),
        {"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
