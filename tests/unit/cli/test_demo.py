"""The demo when it is not the first, not alone, or interrupted: what it may delete, and what it goes on with."""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace

import pytest

from airflow_mlops.cli import main
from airflow_mlops.cli.demo import waiting
from airflow_mlops.cli.demo.client import AirflowAwayError, AirflowClient
from airflow_mlops.cli.demo.home import DemoError, DemoHome
from airflow_mlops.cli.demo.servers import Server, ServerError
from airflow_mlops.cli.demo.story import APPLICATION, Story
from airflow_mlops.cli.demo.waiting import Waiting
from airflow_mlops.exceptions import MLOpsError
from tests.fixtures.mlflow import free_port

TRAINING = f"{APPLICATION}__training"


@pytest.fixture
def home(tmp_path):
    return DemoHome(tmp_path / "demo", tmp_path)


class TestHome:
    def test_starting_over_deletes_what_a_demo_made(self, home):
        home.clear()
        home.claim()
        (home.path / "store").mkdir()
        home.clear()
        assert not home.path.exists()

    def test_starting_over_deletes_nothing_else(self, home):
        home.path.mkdir()
        (home.path / "thesis.tex").write_text("years of work")
        for refused in (home.clear, home.claim):
            with pytest.raises(DemoError, match=r"no demo made it.*--home"):
                refused()
        assert (home.path / "thesis.tex").read_text() == "years of work"

    def test_the_command_says_so_in_one_line(self, tmp_path, capsys):
        (tmp_path / "dags").mkdir()
        asked = [
            "demo",
            "--fresh",
            "--home",
            str(tmp_path),
            "--project",
            str(tmp_path),
            "--run-on",
            "process",
        ]
        assert main(asked) == 1
        assert "no demo made it" in capsys.readouterr().err
        assert (tmp_path / "dags").is_dir()

    def test_going_on_keeps_everything(self, home):
        home.claim()
        (home.path / "store").mkdir()
        home.claim()
        assert (home.path / "store").is_dir()

    def test_a_path_with_yaml_in_it_stays_a_path(self, tmp_path):
        yaml = pytest.importorskip("yaml")
        home = DemoHome(tmp_path / "my demo #1: it's", tmp_path)
        defaults = yaml.safe_load(home._defaults("process"))
        assert defaults["store"] == str(home.path / "store")
        assert defaults["provisioning"]["examples"]["folder"] == str(home.path / "data")


class FakeAirflow:
    """The runs that an interrupted demo left, and those that the story starts; each ends when it is looked at."""

    def __init__(self, *runs: tuple[str, str, str]) -> None:
        self.all = [{"dag_id": d, "dag_run_id": r, "state": s, "run_type": "manual"} for d, r, s in runs]
        self.triggered: list[str] = []

    def runs(self, dag_id="~"):
        return [dict(run) for run in self.all if dag_id in ("~", run["dag_id"])]

    def run(self, dag_id, run_id):
        run = next(run for run in self.all if (run["dag_id"], run["dag_run_id"]) == (dag_id, run_id))
        run["state"] = "success" if run["state"] in ("running", "queued") else run["state"]
        return run

    def trigger(self, dag_id, conf):
        self.triggered.append(dag_id)
        self.all.insert(
            0,
            {"dag_id": dag_id, "dag_run_id": f"new{len(self.all)}", "state": "running", "run_type": "manual"},
        )
        return self.all[0]["dag_run_id"]

    def tasks(self, dag_id, run_id):
        return {"train": "failed", "provision": "success"}

    def xcom(self, *_):
        return None

    def active_tasks(self):
        return []

    def health(self):
        return {"scheduler": "healthy", "triggerer": "healthy"}

    def import_errors(self):
        return []

    def call(self, method, path, **query):
        names = [f"{APPLICATION}__{name}" for name in ("provisioning", "training", "delivery", "monitoring")]
        return {
            "dags": [{"dag_id": name} for name in (*names, "nyc_flights__schedule", "nyc_flights__landings")]
        }


class TestStory:
    @pytest.fixture
    def tell(self, home):
        """Begin the story over what was left; returns the DAGs that it started before the first month."""

        def tell(*runs):
            airflow, said = FakeAirflow(*runs), []
            story = Story(airflow, home, said.append, patience=5)
            story._play = lambda month: None
            story.run("2013-03")
            return airflow.triggered, said

        return tell

    def test_the_first_time_it_trains(self, tell):
        assert tell()[0] == ["nyc_flights__schedule", "nyc_flights__landings", TRAINING]

    def test_with_a_model_it_goes_on(self, tell):
        assert tell((TRAINING, "run1", "success"))[0] == []

    def test_interrupted_while_it_trained_it_waits_for_that_training(self, tell):
        triggered, said = tell((TRAINING, "run1", "running"))
        assert triggered == []
        assert said[0] == "going on with training run run1"

    def test_a_training_that_failed_then_is_tried_again_now(self, tell):
        triggered, _ = tell((TRAINING, "run1", "failed"), (f"{APPLICATION}__delivery", "run2", "failed"))
        assert triggered[-1] == TRAINING

    def test_a_failure_of_this_demo_stops_it(self, home):
        airflow = FakeAirflow((TRAINING, "run1", "success"))
        story = Story(airflow, home, lambda _: None, patience=5)

        def fails(month):
            airflow.all.append(
                {"dag_id": TRAINING, "dag_run_id": "run2", "state": "failed", "run_type": "asset_triggered"}
            )
            story._look_for_failures()

        story._play = fails
        with pytest.raises(DemoError, match="run2 failed in train"):
            story.run("2013-03")


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class BusyAirflow:
    """An Airflow on a busy machine: what it says changes as a test has it."""

    def __init__(self):
        self.tasks = []
        self.parts = {"scheduler": "healthy", "triggerer": "healthy"}
        self.away = False

    def active_tasks(self):
        if self.away:
            raise AirflowAwayError("GET /x: Airflow at http://a does not answer")
        return [dict(task) for task in self.tasks]

    def health(self):
        return self.parts


class TestWaiting:
    """It gives up when nothing moves, and not before."""

    @pytest.fixture
    def clock(self, monkeypatch):
        clock = Clock()
        monkeypatch.setattr(waiting, "time", clock)
        return clock

    @pytest.fixture
    def airflow(self):
        return BusyAirflow()

    @pytest.fixture
    def said(self):
        return []

    @pytest.fixture
    def until(self, airflow, said, clock, tmp_path):
        """Wait for a moment, or for ever; seconds that it took."""
        begun = clock.now

        def until(after=None, each=lambda _seconds: None):
            def look():
                each(clock.now - begun)
                return after is not None and clock.now - begun >= after

            Waiting(airflow, tmp_path, said.append, 300).until("the first model", look)
            return clock.now - begun

        return until

    @staticmethod
    def task(state, **more):
        return {"dag_id": "d", "task_id": "train", "state": state, "try_number": 1, **more}

    @pytest.mark.parametrize("state", ["running", "deferred"])
    def test_a_task_that_is_at_work_is_waited_for_and_told(self, airflow, until, said, state):
        airflow.tasks = [self.task(state, try_number=2, start_date="2026-01-01T00:00:00+00:00")]
        assert until(3600) >= 3600
        assert 50 < len(said) < 70
        assert said[0].startswith(f"waiting for the first model: d train is {state} for ")
        assert said[0].endswith("try 2")

    def test_whatever_changes_is_progress(self, airflow, until, tmp_path):
        def change(seconds):
            part = int(seconds // 250)
            airflow.tasks = [self.task("queued", try_number=part % 3)] if part % 2 else []
            (tmp_path / "task.log").write_text("x" * (part // 4))

        assert until(3600, change) >= 3600

    @pytest.mark.parametrize("state", ["queued", "scheduled", "up_for_retry"])
    def test_where_nothing_moves_it_gives_up_and_says_what_to_do(self, airflow, until, clock, state):
        airflow.tasks = [self.task(state)]
        begun = clock.now
        with pytest.raises(DemoError, match="nothing has moved for 300 s") as caught:
            until()
        assert clock.now - begun < 320
        for words in ("the first model", f"d train is {state}", "Logs: ", "run it again", "--patience"):
            assert words in str(caught.value)

    @pytest.mark.parametrize(("state", "part"), [("running", "scheduler"), ("deferred", "triggerer")])
    def test_a_task_whose_airflow_is_dead_is_not_at_work(self, airflow, until, state, part):
        airflow.tasks = [self.task(state)]
        airflow.parts[part] = "unhealthy"
        with pytest.raises(DemoError, match=f"Airflow's {part} gave no sign of life lately"):
            until()

    def test_a_server_that_is_away_for_a_while_is_waited_for(self, airflow, until):
        airflow.tasks = [self.task("running")]

        def away(seconds):
            airflow.away = 100 < seconds < 350

        assert until(500, away) >= 500
        airflow.away = True
        with pytest.raises(DemoError, match="does not answer"):
            until()


class TestServer:
    """A start on a busy machine takes as long as it takes."""

    def server(self, tmp_path, script, healthy):
        command = [sys.executable, "-c", script]
        return Server("tiny", command, dict(os.environ), tmp_path / "log", healthy)

    def test_one_that_is_at_work_is_waited_for(self, tmp_path):
        ready = tmp_path / "ready"
        script = f"import time; [(print(n, flush=True), time.sleep(.1)) for n in range(30)]; open({str(ready)!r}, 'w')"
        server = self.server(tmp_path, f"{script}; time.sleep(60)", ready.exists)
        server.start()
        try:
            server.wait(1)
        finally:
            server.stop(0)

    def test_one_that_does_nothing_is_given_up(self, tmp_path):
        server = self.server(tmp_path, "import time; time.sleep(600)", lambda: False)
        server.start()
        try:
            with pytest.raises(ServerError, match=r"tiny does not answer, and did little for 1 s"):
                server.wait(1)
        finally:
            server.stop(0)


class TestClient:
    def test_an_airflow_that_went_away_is_told_without_a_traceback(self):
        settings = SimpleNamespace(url=f"http://127.0.0.1:{free_port()}", user="admin", password="secret")
        with pytest.raises(MLOpsError, match="does not answer") as caught:
            AirflowClient(settings).runs()
        assert "secret" not in str(caught.value)

    def test_a_token_that_has_expired_is_renewed_once(self, monkeypatch):
        from urllib.error import HTTPError

        client, asked = AirflowClient(SimpleNamespace(url="http://a", user="u", password="p")), []

        def send(method, path, body=None, query=None):
            asked.append(path)
            if path == "/auth/token":
                return {"access_token": f"t{len(asked)}"}
            if client._token == "t1" and len(asked) > 2:
                raise HTTPError(path, 401, "expired", {}, None)
            return {"dag_runs": json.loads("[]")}

        monkeypatch.setattr(client, "_send", send)
        assert client.runs() == []
        assert client.runs() == []
        assert asked == [
            "/auth/token",
            "/api/v2/dags/~/dagRuns",
            "/api/v2/dags/~/dagRuns",
            "/auth/token",
            "/api/v2/dags/~/dagRuns",
        ]
