"""The package in a real Airflow: provider, DAG files, the loop of a tiny application, and what breaks it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import quote

import pytest

from airflow_mlops.hooks.mlflow.hook import MLflowHook
from tests.fixtures.tasks import write_examples

AIRFLOW = Path(sys.executable).with_name("airflow")


def application(name: str, data: Path, image: str, **training: object) -> str:
    """YAML of a tiny application; JSON is YAML."""
    return json.dumps(
        {
            "application": name,
            "code": {"image": image},
            "provisioning": {
                "features": None,
                "examples": {
                    "folder": str(data),
                    "parquet": "*.parquet",
                    "keys": ["id"],
                    "timestamp": "asked_at",
                    "targets": ["answer"],
                },
            },
            "training": {"run_on": "docker", "retry_delay": "1s", **training},
            "evaluation": {"require": [{"metric": "auc", "at_least": 0.7}]},
            "delivery": [{"batch": {}}],
        },
        indent=1,
    )


class TestProvider:
    def test_airflow_lists_it_with_its_hooks(self, tmp_path):
        environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path)}

        def said(*words: str) -> str:
            done = subprocess.run(
                [AIRFLOW, *words], env=environment, capture_output=True, text=True, check=True
            )
            assert "Error importing hook" not in done.stdout + done.stderr
            return done.stdout

        providers = json.loads(said("providers", "list", "--output", "json"))
        assert "airflow-mlops" in {provider["package_name"] for provider in providers}
        hooks = json.loads(said("providers", "hooks", "--output", "json"))
        found = {hook["connection_type"]: hook["class"] for hook in hooks}
        assert found["feast"] == "airflow_mlops.hooks.feast.hook.FeastHook"
        assert found["mlflow"] == "airflow_mlops.hooks.mlflow.hook.MLflowHook"

    def test_connection_forms_are_in_the_ui(self, airflow):
        forms = {form["connection_type"]: form for form in airflow.client.get_ui("/ui/connections/hook_meta")}
        assert forms["mlflow"]["standard_fields"]["host"]["title"] == "Tracking server (URL)"
        assert "repo_path" in forms["feast"]["extra_fields"]
        assert forms["feast"]["standard_fields"]["host"]["hidden"]


def alarm(airflow, asset: int, number: int) -> None:
    """Post a degradation of the model as a reason to train."""
    extra = {"reason": "performance", "alarm_id": f"alarm{number}", "message": f"worse {number}"}
    airflow.client.call("POST", "/assets/events", {"asset_id": asset, "extra": extra})


@pytest.fixture
def listener(airflow):
    """A DAG of somebody else that wants to know when there is a reason to train ``heard``."""
    file = airflow.settings.dags / "listener.py"
    file.write_text(
        "from airflow.providers.standard.operators.empty import EmptyOperator\n"
        "from airflow.sdk import DAG, Asset\n"
        "with DAG('listener', schedule=[Asset('heard.retraining', uri='mlops://heard/retraining')]):\n"
        "    EmptyOperator(task_id='listen')\n"
    )
    yield airflow.until("the listener", lambda: "listener" if "listener" in airflow.dag_ids() else None)
    file.unlink()


class TestDagFiles:
    def test_a_broken_yaml_is_an_import_error_of_its_own(self, airflow, tmp_path):
        write_examples(tmp_path / "examples.parquet")
        airflow.add("good", application("good", tmp_path, "tiny:1"))
        airflow.until("good DAGs", lambda: "good__training" in airflow.dag_ids())
        assert airflow.client.import_errors() == []

        broken = application("broken", tmp_path, "tiny:1").replace('"retry_delay"', '"retry_dely"')
        airflow.add("broken", broken, generate=False)
        (error,) = airflow.until("import error", airflow.client.import_errors)
        assert error["filename"] == "applications/broken.py"
        line = next(n for n, text in enumerate(broken.splitlines(), 1) if "retry_dely" in text)
        assert f"broken.yaml:{line}" in error["stack_trace"]
        assert "retry_delay" in error["stack_trace"]
        assert {
            "good__provisioning",
            "good__training",
            "good__delivery",
            "good__monitoring",
        } <= airflow.dag_ids()

        airflow.remove("broken")
        airflow.until("no import error", lambda: not airflow.client.import_errors())

    def test_two_applications_of_one_name_are_refused_by_name(self, airflow, tmp_path):
        airflow.add("first", application("twins", tmp_path, "tiny:1"))
        airflow.add("second", application("twins", tmp_path, "tiny:1"))
        errors = airflow.until("both errors", lambda: (e := airflow.client.import_errors())[1:] and e)
        said = {error["filename"]: error["stack_trace"] for error in errors}
        assert "second.yaml" in said["applications/first.py"]
        assert "first.yaml" in said["applications/second.py"]
        airflow.remove("first")
        airflow.remove("second")
        airflow.until("no import error", lambda: not airflow.client.import_errors())

    def test_the_yaml_is_the_documentation_and_training_has_a_form(self, airflow, tmp_path):
        airflow.add("shown", application("shown", tmp_path, "tiny:1"))
        airflow.until("DAG", lambda: "shown__training" in airflow.dag_ids())
        details = airflow.client.call("GET", "/dags/shown__training/details")
        assert '"application": "shown"' in details["doc_md"]
        assert set(details["params"]) == {"why", "parameters"}
        assert airflow.client.call("GET", "/dags/shown__provisioning/details")["doc_md"] == details[
            "doc_md"
        ].replace(
            "Trains for a reason, evaluates against the champion, and registers what is better.",
            "Joins the examples with their features and publishes an immutable dataset version.",
        )


@pytest.mark.docker
@pytest.mark.usefixtures("no_leftovers")
class TestLoop:
    def test_a_worker_killed_in_the_middle_costs_nothing(
        self, airflow, tiny_image, docker_engine, tmp_path, mlflow_server, monkeypatch
    ):
        """One container, one model version, and a run that succeeded."""
        monkeypatch.setenv(*next(iter(mlflow_server.environment.items())))
        write_examples(tmp_path / "examples.parquet")
        training = {"deferrable": False, "parameters": {"do": "nap", "seconds": 40}}
        airflow.add("killed", application("killed", tmp_path, tiny_image, **training))
        airflow.until("DAG", lambda: "killed__training" in airflow.dag_ids())

        with Events(docker_engine) as events:
            run_id = airflow.client.trigger("killed__training", {"why": "a test"})
            airflow.until("container", lambda: docker_engine.containers("mlops-killed-train"))
            ti = airflow.until("worker", lambda: airflow.running("killed__training", run_id, "train"))
            os.kill(worker_of(ti), signal.SIGKILL)
            assert airflow.finish("killed__training", run_id) == "success"
        assert airflow.tries("killed__training", run_id, "train") == 2
        assert len(events.started("mlops-killed-train")) == 1

        registered = airflow.client.xcom("killed__training", run_id, "register")
        assert registered["version"] == "1"
        versions = MLflowHook().get_conn().search_model_versions("name = 'killed'")
        assert [str(version.version) for version in versions] == ["1"]
        (reason,) = airflow.client.xcom("killed__training", run_id, "collect_reasons")
        assert (reason["kind"], reason["evidence"]["why"]) == ("on_demand", "a test")
        assert MLflowHook().champion("killed").tags["airflow_mlops.reasons"] == "on_demand: a test"

    def test_ended_by_hand_the_container_is_gone(self, airflow, tiny_image, docker_engine, tmp_path):
        """Deferred, then marked failed: the triggerer stops and removes the container."""
        write_examples(tmp_path / "examples.parquet")
        training = {"parameters": {"do": "nap", "seconds": 600}, "retries": 0}
        airflow.add("ended", application("ended", tmp_path, tiny_image, **training))
        airflow.until("DAG", lambda: "ended__training" in airflow.dag_ids())
        run_id = airflow.client.trigger("ended__training", {})
        airflow.until("container", lambda: docker_engine.containers("mlops-ended-train"))
        airflow.until(
            "deferral", lambda: airflow.client.tasks("ended__training", run_id)["train"] == "deferred"
        )
        airflow.until(
            "log of the running job",
            lambda: "tiny train begins" in airflow.log("ended__training", run_id, "train"),
        )
        # What the demo says while it waits.
        (at_work,) = (task for task in airflow.client.active_tasks() if task["dag_id"] == "ended__training")
        assert (at_work["task_id"], at_work["state"], at_work["dag_run_id"]) == ("train", "deferred", run_id)
        assert {"scheduler", "triggerer"} <= airflow.client.health().keys()
        airflow.client.call(
            "PATCH", f"/dags/ended__training/dagRuns/{run_id}/taskInstances/train", {"new_state": "failed"}
        )
        airflow.until("no container", lambda: not docker_engine.containers("mlops-ended-train"))
        assert airflow.finish("ended__training", run_id) == "failed"

    def test_worse_predictions_raise_an_alarm_that_trains_again(self, airflow, tiny_image, tmp_path):
        """The loop in small: train, predict, outcomes, alarm, train for that reason."""
        write_examples(tmp_path / "january.parquet", 2000)
        airflow.add("loop", application("loop", tmp_path, tiny_image))
        airflow.until("DAG", lambda: {"loop__training", "loop__delivery"} <= airflow.dag_ids())
        assert airflow.finish("loop__training", airflow.client.trigger("loop__training", {})) == "success"

        write_examples(tmp_path / "february.parquet", 1500, start="2026-02-01", first=2000, wrong=True)
        assert airflow.finish("loop__delivery", airflow.client.trigger("loop__delivery", {})) == "success"
        run = airflow.until("alarm's run", lambda: airflow.triggered_by_asset("loop__training"))
        assert airflow.finish("loop__training", run) == "success"

        (reason,) = airflow.client.xcom("loop__training", run, "collect_reasons")
        assert reason["kind"] == "performance"
        assert reason["evidence"]["figures"]["actual"] == 1.0
        assert reason["evidence"]["model_version"] == "1"
        assert airflow.client.xcom("loop__training", run, "register")["version"] == "2"
        trained = airflow.client.xcom("loop__training", run, "train")["run_id"]
        task = f"/dags/loop__training/dagRuns/{quote(run)}/taskInstances/train"
        link = airflow.client.call("GET", f"{task}/links")["extra_links"]["MLflow run"]
        assert link.endswith(f"/runs/{trained}")
        begun, ended = airflow.said("loop__training", run)
        assert begun["message"].startswith("performance: ")
        assert ended["outcome"] == "registered"

        def links(dag_id: str, run_id: str, task_id: str) -> dict[str, str]:
            place = f"/dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/links"
            return airflow.client.call("GET", place)["extra_links"]

        for name in ("gate", "register"):
            found = links("loop__training", run, name)
            assert found["MLflow run"] == link
            assert found["Report"] == f"{link}/artifacts/evaluation/report.html"
        assert found["MLflow model"].endswith("/models/loop/versions/2")
        watched = airflow.triggered_by_asset("loop__monitoring")
        assert links("loop__monitoring", watched, "decide")["MLflow model"].endswith(
            "/models/loop/versions/1"
        )
        events = airflow.client.call("GET", f"/dags/loop__training/dagRuns/{quote(run)}/upstreamAssetEvents")
        assert events["asset_events"][0]["extra"]["alarm_id"] == reason["id"]

        # Looking again at the same window raises nothing new.
        before = len(airflow.client.runs("loop__training"))
        again = airflow.client.trigger("loop__monitoring", {})
        assert airflow.finish("loop__monitoring", again) == "success"
        assert airflow.client.tasks("loop__monitoring", again)["raise_alarm"] == "skipped"
        assert len(airflow.client.runs("loop__training")) == before

    def test_reasons_are_drained_answered_once_and_none_is_lost(self, airflow, tiny_image, tmp_path):
        """A burst of alarms, one of them twice, is answered by as few runs as there are, each alarm once."""
        write_examples(tmp_path / "examples.parquet")
        airflow.add("burst", application("burst", tmp_path, tiny_image))
        airflow.until("DAG", lambda: "burst__training" in airflow.dag_ids())
        asset = airflow.until("asset", lambda: airflow.asset("burst.retraining"))
        for number in (1, 2, 2, 3):
            alarm(airflow, asset, number)

        def answered() -> list[str] | None:
            runs = airflow.client.runs("burst__training")
            if not runs or any(run["state"] not in ("success", "failed") for run in runs):
                return None
            taken = [
                reason["id"]
                for run in runs
                for reason in airflow.client.xcom("burst__training", run["dag_run_id"], "collect_reasons")
                or []
            ]
            return sorted(taken) if len(set(taken)) == 3 else None

        assert airflow.until("answers", answered) == ["alarm1", "alarm2", "alarm3"]

    def test_a_run_of_somebody_else_that_waits_hides_no_alarm(self, airflow, listener, tiny_image, tmp_path):
        """Airflow 3.3 cannot show an event while a run that it started waits; nor any other together with it."""
        airflow.add("heard", application("heard", tmp_path, tiny_image, retries=0))  # no examples: it fails
        airflow.until("DAG", lambda: "heard__training" in airflow.dag_ids())
        asset = airflow.until("asset", lambda: airflow.asset("heard.retraining"))

        def train(number: int) -> tuple[str, set[str]]:
            before = airflow.triggered_by_asset("heard__training")
            alarm(airflow, asset, number)

            def newer() -> str | None:
                run = airflow.triggered_by_asset("heard__training")
                return run if run != before else None

            run = airflow.until("a training", newer)
            assert airflow.finish("heard__training", run) == "failed"
            assert airflow.client.tasks("heard__training", run)["answer_reasons"] == "success"
            reasons = airflow.client.xcom("heard__training", run, "collect_reasons")
            return run, {reason["id"] for reason in reasons}

        assert train(1)[1] == {"alarm1"}
        heard = airflow.until("its run", lambda: airflow.triggered_by_asset(listener))
        assert airflow.finish(listener, heard) == "success"
        airflow.client.call("PATCH", f"/dags/{listener}", {"is_paused": True})
        clear = {"dag_run_id": heard, "dry_run": False, "only_failed": False, "reset_dag_runs": True}
        airflow.client.call("POST", f"/dags/{listener}/clearTaskInstances", clear)
        assert airflow.client.run(listener, heard)["state"] == "queued"

        run, reasons = train(2)
        assert reasons == {"alarm2"}
        for task in ("collect_reasons", "answer_reasons"):
            assert "Airflow cannot show every event of heard.retraining" in airflow.log(
                "heard__training", run, task
            )

        airflow.client.call("PATCH", f"/dags/{listener}", {"is_paused": False})
        assert airflow.finish(listener, heard) == "success"
        assert train(3)[1] == {"alarm1", "alarm2", "alarm3"}


class Events:
    """What the engine started, by container name."""

    def __init__(self, engine) -> None:
        self._names: list[str] = []
        command = ["docker", "events", "--filter", "event=start", "--format", "{{.Actor.Attributes.name}}"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)

    def _read(self) -> None:
        for line in self._process.stdout:
            self._names.append(line.strip())

    def __enter__(self):
        self._reader.start()
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()
        self._reader.join(5)

    def started(self, prefix: str) -> list[str]:
        return [name for name in self._names if name.startswith(prefix)]


def worker_of(ti_id: str) -> int:
    """The process that runs a task instance: its title carries the id."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                title = (folder / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if title.startswith("airflow worker") and ti_id in title:
                return int(folder.name)
    raise AssertionError(f"no worker of {ti_id}")
