"""The MLflow hook and the operators on it, against a real MLflow server."""

from __future__ import annotations

import base64
import json
import logging
import math
import os
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from airflow_mlops.cli.demo.servers import free_port
from airflow_mlops.exceptions import TrackingError, TrackingUnavailableError
from airflow_mlops.hooks.mlflow.hook import JOB_TAG, MLflowHook
from airflow_mlops.operators.evaluation.gate import GateModelOperator
from airflow_mlops.operators.registration import RegisterModelOperator
from airflow_mlops.primitives.registration.files import file_digests
from airflow_mlops.primitives.registration.record import RECORD_FILE, TrainingRecord
from tests.fixtures.deadlines import SOON

DATASET = "4f" * 32


@pytest.fixture
def hook(mlflow_server, monkeypatch):
    for key, value in mlflow_server.environment.items():
        monkeypatch.setenv(key, value)
    return MLflowHook()


@pytest.fixture
def client(mlflow_server):
    from mlflow import MlflowClient

    return MlflowClient(mlflow_server.uri, mlflow_server.uri)


@pytest.fixture
def names():
    unique = uuid.uuid4().hex[:8]
    return SimpleNamespace(experiment=f"experiment-{unique}", model=f"model-{unique}", key=f"mlops-{unique}")


def test_an_experiment_opens_as_one_of_models(hook, client, names):
    """Without the tag MLflow's page shows traces in place of runs; what somebody chose stays."""
    hook.find_or_create_run(names.experiment, names.key)
    own, chosen = f"{names.experiment}-own", f"{names.experiment}-chosen"
    client.create_experiment(own)
    client.create_experiment(chosen, tags={"mlflow.experimentKind": "genai_development"})
    for name in (own, chosen):
        hook.find_or_create_run(name, names.key)
    kinds = {
        name: client.get_experiment_by_name(name).tags.get("mlflow.experimentKind")
        for name in (names.experiment, own, chosen)
    }
    assert kinds == {
        names.experiment: "custom_model_development",
        own: "custom_model_development",
        chosen: "genai_development",
    }


def test_trainings_whose_model_was_refused_are_found_by_their_dag_run(hook, names):
    def train(key, **tags):
        tags = {f"airflow_mlops.{name}": value for name, value in {"application": "tiny", **tags}.items()}
        return hook.find_or_create_run(names.experiment, f"{names.key}-{key}", tags=tags)

    refused = train("a", run_id="run'1", gate="failed", reason_ids="abc")
    train("b", run_id="run'1", gate="passed")
    train("c", run_id="run2", gate="failed")
    train("d", run_id="run'1", gate="failed", application="other")
    (found,) = hook.refused_runs(names.experiment, "tiny", "run'1")
    assert (found.run_id, found.tags["airflow_mlops.reason_ids"]) == (refused, "abc")
    assert hook.refused_runs(f"{names.experiment}-none", "tiny", "run2") == []


@pytest.fixture
def model_folder(tmp_path):
    """A model as model code saves it: any Python function, no pickle of ours."""
    folder = tmp_path / "model"
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "half.py").write_text(
        "class Half:\n    def predict(self, frame):\n        return frame * 0.5\n\n"
        "def _load_pyfunc(path):\n    return Half()\n"
    )
    (folder / "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: half\n    code: code\n")
    return folder


def run_with_model(hook, names, model_folder):
    run_id = hook.find_or_create_run(names.experiment, names.key)
    hook.log_directory(run_id, model_folder, "model")
    return run_id


class TestRuns:
    def test_the_same_job_finds_its_run_again(self, hook, client, names):
        first = hook.find_or_create_run(names.experiment, names.key, name="one", tags={"why": "drift"})
        hook.finish_run(first, "FAILED")

        again = MLflowHook().find_or_create_run(
            names.experiment, names.key, name="one", tags={"why": "schedule"}
        )

        assert again == first
        run = client.get_run(first)
        assert run.info.status == "RUNNING"
        assert run.data.tags["why"] == "schedule"
        other = hook.find_or_create_run(names.experiment, names.key + "-generation-2")
        assert other != first

    def test_a_run_that_another_process_made_first_is_kept(self, hook, client, names, monkeypatch):
        """The window between search and creation: both see none, the older one stays."""
        real, older = MLflowHook._oldest, []

        def find(self, doing, experiment_id, key):
            if not older:
                older.append(client.create_run(experiment_id, tags={JOB_TAG: key}).info.run_id)
                return None
            return real(self, doing, experiment_id, key)

        monkeypatch.setattr(MLflowHook, "_oldest", find)
        assert hook.find_or_create_run(names.experiment, names.key) == older[0]
        experiment = client.get_experiment_by_name(names.experiment)
        assert [run.info.run_id for run in client.search_runs([experiment.experiment_id])] == older

    @pytest.mark.parametrize("key", ["manual__2013-05-01T00:00:00+00:00", "it's", 'a "quoted" one'])
    def test_any_key_is_found_again(self, hook, names, key):
        assert hook.find_or_create_run(names.experiment, key) == hook.find_or_create_run(
            names.experiment, key
        )

    def test_a_deleted_experiment_is_said(self, hook, client, names):
        hook.find_or_create_run(names.experiment, names.key)
        client.delete_experiment(client.get_experiment_by_name(names.experiment).experiment_id)
        with pytest.raises(TrackingError, match=r"was deleted.*restore it"):
            hook.find_or_create_run(names.experiment, names.key)

    def test_metrics_by_step_arrive_once(self, hook, client, names):
        run_id = hook.find_or_create_run(names.experiment, names.key)
        metrics = [{"name": "loss", "value": 1 / (step + 1), "step": step} for step in range(1200)]

        hook.log_metrics(run_id, metrics)
        hook.log_metrics(run_id, metrics)

        history = client.get_metric_history(run_id, "loss")
        assert [(point.step, point.value) for point in sorted(history, key=lambda point: point.step)] == [
            (metric["step"], metric["value"]) for metric in metrics
        ]

    def test_an_evaluation_comes_back_exactly(self, hook, client, names):
        run_id = hook.find_or_create_run(names.experiment, names.key)
        metrics = [
            {
                "name": "auc",
                "value": 0.1 + 0.2,
                "split": "test",
                "direction": "maximize",
                "stderr": 1e-3,
                "n": 1234,
            },
            {"name": "auc", "value": 0.61, "split": "test", "slice": "origin=JFK/EWR"},
            {"name": "brier", "value": math.pi / 10, "split": "test"},
        ]
        hook.finish_run(run_id)

        assert hook.evaluation(run_id) == []
        hook.log_evaluation(run_id, metrics)

        assert hook.evaluation(run_id) == metrics
        assert client.get_run(run_id).data.metrics == {
            "test.auc": 0.1 + 0.2,
            "slice/test.auc/origin:JFK_EWR": 0.61,
            "test.brier": math.pi / 10,
        }

    def test_the_dataset_is_visible_as_input(self, hook, client, names):
        import mlflow.data

        run_id = hook.find_or_create_run(names.experiment, names.key)
        schema = [{"name": "dep_delay", "type": "double"}, {"name": "at", "type": "timestamp[us, tz=UTC]"}]
        for name, context in (("flights", "training"), ("flights", "training"), ("flights.test", "testing")):
            hook.log_dataset(
                run_id,
                name=name,
                digest=DATASET,
                source="file:///store/flights/manifest.json",
                context=context,
                schema=schema,
                rows=17,
            )

        inputs = client.get_run(run_id).inputs.dataset_inputs
        tags = [{tag.key: tag.value for tag in entry.tags} for entry in inputs]
        assert sorted(tag["mlflow.data.context"] for tag in tags) == ["testing", "training"]
        assert {tag["airflow_mlops.dataset_id"] for tag in tags} == {DATASET}
        dataset = inputs[0].dataset
        assert dataset.digest == DATASET[:36]
        assert [column["type"] for column in json.loads(dataset.schema)["mlflow_colspec"]] == [
            "double",
            "datetime",
        ]
        assert mlflow.data.get_source(dataset).uri == "/store/flights/manifest.json"

    def test_parameters_may_be_logged_again_but_not_changed(self, hook, client, names):
        run_id = hook.find_or_create_run(names.experiment, names.key)
        parameters = {f"p{number}": number for number in range(150)} | {
            "layers": [3, 5],
            "name": "x",
            "on": True,
        }
        hook.log_parameters(run_id, parameters)
        hook.log_parameters(run_id, parameters)
        logged = client.get_run(run_id).data.params
        assert len(logged) == 153
        assert (logged["layers"], logged["name"], logged["on"]) == ("[3, 5]", "x", "true")
        with pytest.raises(TrackingError, match="p7"):
            hook.log_parameters(run_id, {"p7": 8})

    def test_files_come_back_and_missing_ones_are_said(self, hook, names, model_folder, tmp_path):
        run_id = run_with_model(hook, names, model_folder)
        fetched = hook.download(run_id, "model", tmp_path / "fetched")
        assert (fetched / "code" / "half.py").read_text() == (model_folder / "code" / "half.py").read_text()
        with pytest.raises(TrackingError, match=r"plots of run"):
            hook.download(run_id, "plots", tmp_path / "fetched")


class TestRegistry:
    def test_registering_twice_gives_one_version_that_stock_mlflow_loads(
        self, hook, client, names, model_folder, mlflow_server
    ):
        run_id = run_with_model(hook, names, model_folder)

        version = hook.register_model(names.model, run_id, tags={"airflow_mlops.dataset_id": DATASET})
        again = MLflowHook().register_model(names.model, run_id, tags={"airflow_mlops.seed": 7})

        assert version == again == "1"
        assert len(client.search_model_versions(f"name='{names.model}'")) == 1
        assert hook.model_version(names.model, "1").tags == {
            "airflow_mlops.dataset_id": DATASET,
            "airflow_mlops.seed": "7",
        }
        load = (
            "import mlflow, numpy; "
            f"m = mlflow.pyfunc.load_model('models:/{names.model}/1'); print(m.predict(numpy.array([[3.0]])))"
        )
        printed = subprocess.run(
            [sys.executable, "-c", load],
            env={**os.environ, "MLFLOW_TRACKING_URI": mlflow_server.uri},
            capture_output=True,
            text=True,
            check=True,
        )
        assert "1.5" in printed.stdout

    def test_many_at_once_give_one_version(self, hook, client, names, model_folder):
        run_id = run_with_model(hook, names, model_folder)
        start = threading.Barrier(4)

        def register(_):
            own = MLflowHook()
            own.get_conn()
            start.wait()
            return own.register_model(names.model, run_id)

        with ThreadPoolExecutor(4) as pool:
            versions = set(pool.map(register, range(4)))

        left = [version.version for version in client.search_model_versions(f"name='{names.model}'")]
        assert versions == {str(version) for version in left}
        assert len(left) == 1

    def test_a_version_that_another_process_made_first_is_kept(
        self, hook, client, names, model_folder, monkeypatch
    ):
        """The window between search and creation: both see none, the lower version stays."""
        from airflow_mlops.hooks.mlflow import hook as module

        run_id = run_with_model(hook, names, model_folder)
        real, other = module._version_of_run, []

        def find(client_, model, run_id):
            if not other:
                client_.create_registered_model(model)
                source = client_.get_run(run_id).info.artifact_uri + "/model"
                other.append(client_.create_model_version(model, source, run_id).version)
                return None
            return real(client_, model, run_id)

        monkeypatch.setattr(module, "_version_of_run", find)
        assert hook.register_model(names.model, run_id) == str(other[0])
        assert [v.version for v in client.search_model_versions(f"name='{names.model}'")] == other

    def test_a_run_without_a_model_is_not_registered(self, hook, client, names, tmp_path):
        run_id = hook.find_or_create_run(names.experiment, names.key)
        (tmp_path / "weights").mkdir()
        (tmp_path / "weights" / "w.bin").write_bytes(b"1")
        hook.log_directory(run_id, tmp_path / "weights", "model")
        with pytest.raises(TrackingError, match=r"no MLflow model.*MLmodel.*w\.bin"):
            hook.register_model(names.model, run_id)
        assert client.search_registered_models(f"name='{names.model}'") == []

    def test_what_mlflow_does_not_give_back_as_it_was_is_an_error(self, hook, names, tmp_path):
        run_id = hook.find_or_create_run(names.experiment, names.key)
        (tmp_path / "model").mkdir()
        for name in ("shard?1", "shard?2", "MLmodel"):
            (tmp_path / "model" / name).write_text(name)

        with pytest.raises(
            TrackingError, match=r"other files than it was given: shard\?1 is missing, .*Cure"
        ):
            hook.log_directory(run_id, tmp_path / "model", "model")

    def test_a_model_is_held_against_the_digests_of_its_record(
        self, hook, client, names, tmp_path, monkeypatch
    ):
        said = []
        warned = SimpleNamespace(warning=lambda text, *_: said.append(text))
        run_id = hook.find_or_create_run(names.experiment, names.key)
        (tmp_path / "model/data").mkdir(parents=True)
        for name in ("MLmodel", "data/weights", "data/classes"):
            (tmp_path / "model" / name).write_text(name)
        hook.log_directory(run_id, tmp_path / "model", "model")
        with monkeypatch.context() as quiet:
            quiet.setattr(MLflowHook, "log", warned)
            hook.fetch_model(run_id, tmp_path / "0")
        assert "not verified" in said[0]

        files = file_digests(tmp_path / "model")
        model = {"files": {**files, "MLmodel": "as the model code wrote it"}}
        model["completed"] = {"MLmodel": files["MLmodel"]}
        record = TrainingRecord("a", code={}, config={}, data={}, model=model)
        hook.log_json(run_id, RECORD_FILE, record.to_dict())
        assert (hook.fetch_model(run_id, tmp_path / "1") / "data/weights").read_text() == "data/weights"

        (tmp_path / "weights").write_text("DATA/WEIGHTS")
        client.log_artifact(run_id, str(tmp_path / "weights"), "model/data")
        client.log_artifact(run_id, str(tmp_path / "weights"), "model/extra")
        wrong = "data/weights has other bytes, extra/weights was not there.*Cure"
        with pytest.raises(TrackingError, match=wrong) as caught:
            hook.fetch_model(run_id, tmp_path / "2")
        assert not caught.value.retriable

    def test_the_champion_moves(self, hook, names, model_folder, monkeypatch):
        assert hook.champion(names.model) is None
        first = hook.register_model(names.model, run_with_model(hook, names, model_folder))
        assert hook.champion(names.model) is None
        hook.set_champion(names.model, first)
        names.key += "-next"
        run_id = run_with_model(hook, names, model_folder)
        second = hook.register_model(names.model, run_id, tags={"airflow_mlops.image_digest": "sha256:1"})
        assert hook.champion(names.model).version == first

        with monkeypatch.context() as crowd:
            crowd.setattr(hook._client, "set_registered_model_alias", refused_once(hook))
            hook.set_champion(names.model, second)

        champion = hook.champion(names.model)
        assert (champion.version, champion.run_id) == (second, run_id)
        assert champion.tags["airflow_mlops.image_digest"] == "sha256:1"
        with pytest.raises(TrackingError, match="version 99"):
            hook.model_version(names.model, "99")


def refused_once(hook):
    """As MLflow's database refuses the second of two that make an alias at once."""
    from mlflow.exceptions import MlflowException

    really, refusals = hook._client.set_registered_model_alias, []

    def set_alias(*arguments):
        if not refusals:
            refusals.append(arguments)
            raise MlflowException(
                "BAD_REQUEST: (IntegrityError) UNIQUE constraint failed [SQL: INSERT INTO registered_model_aliases …]"
            )
        return really(*arguments)

    return set_alias


class TestOperators:
    RULES = ({"metric": "auc", "at_least": 0.6, "at_most": None, "against": None, "no_worse_by": None},)

    def gate(self, **arguments):
        arguments = {"application": "flights", "rules": list(self.RULES), **arguments}
        return GateModelOperator(task_id="gate", **arguments).execute({})

    def register(self, names, run_id, decision, **arguments):
        return RegisterModelOperator(
            task_id="register",
            application="flights",
            model=names.model,
            run_id=run_id,
            decision=decision,
            **arguments,
        ).execute({})

    def test_a_passing_candidate_becomes_champion_and_a_retry_changes_nothing(
        self, hook, client, names, model_folder, monkeypatch
    ):
        run_id = run_with_model(hook, names, model_folder)
        decision = self.gate(candidate={"run_id": run_id, "metrics": [{"name": "auc", "value": 0.7}]})
        lineage = {"dataset_id": DATASET, "seed": 7, "reasons": ["drift"]}

        with monkeypatch.context() as crash:
            crash.setattr(MLflowHook, "set_champion", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                self.register(names, run_id, decision, lineage=lineage)
        result = self.register(names, run_id, decision, lineage=json.dumps(lineage))

        assert result == {"model": names.model, "version": "1", "run_id": run_id, "champion": True}
        champion = hook.champion(names.model)
        assert champion.version == "1"
        assert champion.tags["airflow_mlops.reasons"] == '["drift"]'
        assert len(client.search_model_versions(f"name='{names.model}'")) == 1
        assert hook.read_json(run_id, "evaluation/gate.json") == decision
        assert client.get_run(run_id).data.tags["airflow_mlops.gate"] == "passed"

    def test_a_failing_candidate_is_skipped_and_not_registered(self, hook, client, names, model_folder):
        run_id = run_with_model(hook, names, model_folder)
        decision = self.gate(candidate={"run_id": run_id, "metrics": [{"name": "auc", "value": 0.5}]})
        assert decision["passed"] is False
        with pytest.raises(AirflowSkipException, match=r"test\.auc ≥ 0\.6: 0\.5 is too low"):
            self.register(names, run_id, decision)
        assert client.search_registered_models(f"name='{names.model}'") == []

    def test_a_late_retry_does_not_dethrone_a_newer_champion(self, hook, names, model_folder):
        old = run_with_model(hook, names, model_folder)
        hook.register_model(names.model, old)
        names.key += "-next"
        newer = hook.register_model(names.model, run_with_model(hook, names, model_folder))
        hook.set_champion(names.model, newer)

        result = self.register(names, old, {"passed": True})

        assert (result["version"], result["champion"]) == ("1", False)
        assert hook.champion(names.model).version == newer

    def test_lineage_with_an_unknown_key_fails_for_good(self, hook, names):
        with pytest.raises(AirflowFailException, match="no colour"):
            self.register(names, "0" * 32, {"passed": True}, lineage={"colour": "blue"})

    def test_a_server_away_leaves_the_task_to_its_retries(self, names, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", f"http://127.0.0.1:{free_port()}")
        with pytest.raises(AirflowException) as caught:
            self.register(names, "0" * 32, {"passed": True})
        assert not isinstance(caught.value, AirflowFailException)


class TestServerAway:
    def test_a_server_that_is_down_is_said_soon(self, monkeypatch):
        port = free_port()
        monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", f"http://127.0.0.1:{port}")
        start = time.monotonic()
        with pytest.raises(
            TrackingUnavailableError, match=rf"127\.0\.0\.1:{port} \(connection 'mlflow_default'\)"
        ):
            MLflowHook().find_or_create_run("x", "y")
        assert time.monotonic() - start < SOON
        ok, message = MLflowHook().test_connection()
        assert not ok
        assert "does not answer" in message

    @pytest.mark.timeout(600)
    def test_killed_in_the_middle_a_retry_completes_with_one_run_and_one_version(
        self, mlflow_server_of_my_own, monkeypatch, names, model_folder
    ):
        from mlflow import MlflowClient

        server = mlflow_server_of_my_own
        server.start()
        for key, value in server.environment.items():
            monkeypatch.setenv(key, value)

        def task(between=lambda: None):
            hook = MLflowHook()
            run_id = hook.find_or_create_run(names.experiment, names.key)
            hook.log_metrics(run_id, [{"name": "loss", "value": 1.0, "step": 1}])
            hook.log_directory(run_id, model_folder, "model")
            version = hook.register_model(names.model, run_id)
            between()
            hook.set_champion(names.model, version)
            hook.finish_run(run_id)
            return run_id

        killed = []

        def kill():
            server.kill()
            killed.append(time.monotonic())

        with pytest.raises(TrackingUnavailableError):
            task(between=kill)
        assert time.monotonic() - killed[0] < SOON
        server.start()
        run_id = task()

        client = MlflowClient(server.uri, server.uri)
        assert [version.run_id for version in client.search_model_versions(f"name='{names.model}'")] == [
            run_id
        ]
        assert MLflowHook().champion(names.model).run_id == run_id
        experiment = client.get_experiment_by_name(names.experiment)
        assert len(client.search_runs([experiment.experiment_id])) == 1
        assert len(client.get_metric_history(run_id, "loss")) == 1


class _Recorder(BaseHTTPRequestHandler):
    """Answers like an MLflow server with nothing in it, and remembers who asked."""

    seen: list[tuple[str, str | None]]
    status = 200

    def do_GET(self):
        self._answer()

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer()

    def _answer(self):
        self.seen.append((self.path, self.headers.get("Authorization")))
        status = 200 if self.path.endswith("/health") else self.status
        body = b"{}" if status == 200 else b"You are not authenticated."
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def recorder():
    handler = type("Recorder", (_Recorder,), {"seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield SimpleNamespace(port=server.server_port, handler=handler, seen=handler.seen)
    server.shutdown()
    server.server_close()
    thread.join()


class TestLogin:
    PASSWORD = "s3cret/pä:ss"

    def connect(self, monkeypatch, port, **fields):
        connection = {"conn_type": "mlflow", "host": "127.0.0.1", "port": port, **fields}
        monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps(connection))
        return MLflowHook()

    def test_login_and_password_are_sent_and_shown_nowhere(self, recorder, monkeypatch, caplog, capfd):
        caplog.set_level(logging.DEBUG)
        hook = self.connect(monkeypatch, recorder.port, login="ada", password=self.PASSWORD)
        assert hook.test_connection()[0]

        asked = [value for path, value in recorder.seen if "/api/" in path]
        assert asked
        assert set(asked) == {"Basic " + base64.b64encode(f"ada:{self.PASSWORD}".encode()).decode()}
        recorder.handler.status = 500
        ok, message = hook.test_connection()
        assert not ok
        out, err = capfd.readouterr()
        for text in (
            message,
            caplog.text,
            out,
            err,
            repr(hook),
            repr(hook.server),
            str(vars(hook)),
            str(os.environ),
        ):
            for secret in (self.PASSWORD, base64.b64encode(f"ada:{self.PASSWORD}".encode()).decode()):
                assert secret not in text.replace(os.environ["AIRFLOW_CONN_MLFLOW_DEFAULT"], "")

    def test_a_password_alone_is_a_token(self, recorder, monkeypatch):
        hook = self.connect(monkeypatch, recorder.port, password="abc")
        assert hook.test_connection()[0]
        assert ("Bearer abc") in {value for path, value in recorder.seen if "/api/" in path}

    def test_another_server_never_gets_the_login(self, recorder, mlflow_server, monkeypatch):
        self.connect(monkeypatch, mlflow_server.port, login="ada", password="abc").test_connection()
        self.connect(monkeypatch, recorder.port).test_connection()
        assert {value for _, value in recorder.seen} == {None}

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_refused_login_is_final_and_says_the_cure(self, recorder, monkeypatch, status):
        recorder.handler.status = status
        hook = self.connect(monkeypatch, recorder.port, login="ada", password="wrong")
        with pytest.raises(
            TrackingError, match=r"refused the login.*Cure: correct login and password"
        ) as caught:
            hook.find_or_create_run("x", "y")
        assert not caught.value.retriable
