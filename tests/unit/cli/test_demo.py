"""The demo when it is not the first, not alone, or interrupted: what it may delete, and what it goes on with."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from airflow_mlops.cli import main
from airflow_mlops.cli.demo.client import AirflowClient
from airflow_mlops.cli.demo.home import DemoError, DemoHome
from airflow_mlops.cli.demo.story import APPLICATION, Story
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
