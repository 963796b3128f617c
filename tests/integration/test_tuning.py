"""Tuning with real jobs: nothing is lost or done twice, whoever dies; and the best of it is trained."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from airflow_mlops.exceptions import EngineUnavailableError
from airflow_mlops.hooks.mlflow.hook import MLflowHook
from airflow_mlops.jobs.tuning.document import TuningDocument
from airflow_mlops.jobs.tuning.loop import TuningLoop
from airflow_mlops.operators.datasets.provision import ProvisionDatasetOperator
from airflow_mlops.operators.training.train import DescribeModelCodeOperator, TrainModelOperator
from airflow_mlops.operators.training.tune import TuneModelOperator
from airflow_mlops.runners.docker.runner import DockerRunner
from airflow_mlops.runners.process.runner import ProcessRunner
from airflow_mlops.triggers.tuning import TuningTrigger
from tests.fixtures.deadlines import DEADLINE, SOON
from tests.fixtures.jobs import eventually
from tests.fixtures.tasks import EXAMPLES, context, write_examples
from tests.fixtures.tuning import KEY, TUNED, Written

LOOP = """
import asyncio, sys
from airflow_mlops.jobs.tuning.loop import TuningLoop
from airflow_mlops.jobs.tuning.document import TuningDocument
asyncio.run(TuningLoop(sys.argv[1], sys.argv[2]).run())
"""


def loop(written) -> TuningLoop:
    return TuningLoop(written.store, KEY)


def begin(written) -> subprocess.Popen:
    """The loop in a process of its own, as a triggerer has it."""
    return subprocess.Popen(
        [sys.executable, "-c", LOOP, written.store, KEY],
        cwd=Path(__file__).parents[2],
        start_new_session=True,
        stdout=Path(written.store, "loop.log").open("ab"),
        stderr=subprocess.STDOUT,
    )


class TestProcesses:
    """The loop alone, its trials as processes."""

    @pytest.fixture
    def write(self, tmp_path):
        runner = {"kind": "process", "root": str(tmp_path / "jobs")}
        yield lambda **plan: Written(tmp_path, runner, name="mlops-tune", **plan)
        for folder in (tmp_path / "jobs").glob("*"):
            ProcessRunner(str(tmp_path / "jobs")).cleanup(folder.name)

    def test_killed_again_and_again_it_does_every_trial_once(self, write, tmp_path):
        journal = tmp_path / "journal"
        written = write(
            trials=14,
            parallel=3,
            pruner="median",
            fixed={"journal": str(journal), "steps": 4, "pause": 0.05},
        )
        chance, kills = random.Random(4), 0

        def finished() -> int:
            return len(written.document.finished)

        for target in (1, 4, 8, 11):
            process = begin(written)
            eventually(lambda wanted=target: finished() >= wanted)
            time.sleep(chance.random() * 0.5)  # anywhere between two writes
            os.killpg(process.pid, signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        tuning = asyncio.run(loop(written).run())

        assert kills == 4
        assert (tuning.status, tuning.reason) == ("done", "all 14 trials are done")
        assert [trial.number for trial in tuning.trials] == list(range(14))
        assert {trial.state for trial in tuning.trials} <= {"complete", "pruned"}
        assert sorted(trial.order for trial in tuning.trials) == list(range(14))
        begun = [line.split()[0] for line in journal.read_text().splitlines()]
        assert sorted(begun) == sorted(f"mlops-tune-t{number}" for number in range(14))
        assert list((tmp_path / "jobs").iterdir()) == []

    def test_two_loops_at_once_do_every_trial_once(self, write, tmp_path):
        journal = tmp_path / "journal"
        written = write(trials=8, parallel=2, fixed={"journal": str(journal), "pause": 0.3})
        other = begin(written)
        try:
            tuning = asyncio.run(loop(written).run())
        finally:
            other.wait(timeout=DEADLINE)
        assert other.returncode == 0
        assert {trial.state for trial in tuning.trials} == {"complete"}
        begun = [line.split()[0] for line in journal.read_text().splitlines()]
        assert sorted(begun) == sorted(f"mlops-tune-t{number}" for number in range(8))

    def test_trials_that_fail_in_a_row_end_it(self, write, tmp_path):
        tuning = asyncio.run(loop(write(trials=20, parallel=1, failures=2, fixed={"broken": True})).run())
        assert tuning.status == "failed"
        assert [trial.state for trial in tuning.trials] == ["failed", "failed"]
        assert "nothing can be learnt of this" in tuning.reason
        assert list((tmp_path / "jobs").iterdir()) == []

    def test_a_wrong_objective_says_what_there_is(self, write):
        tuning = asyncio.run(loop(write(trials=1, objectives=("validation.auc",))).run())
        assert "metrics.json has no validation.auc" in tuning.reason
        assert "it has train.rows, validation.cost, validation.loss" in tuning.reason

    def test_the_time_is_over(self, write, tmp_path):
        tuning = asyncio.run(loop(write(trials=200, parallel=2, timeout=4.0, fixed={"pause": 1.0})).run())
        assert tuning.reason.startswith("its 4 s are over")
        # On a busy machine no trial may have ended by then.
        assert tuning.status == ("done" if tuning.best() else "failed")
        assert [trial.state for trial in tuning.trials].count("stopped") in (1, 2)
        assert list((tmp_path / "jobs").iterdir()) == []

    def test_several_trials_in_a_job_and_several_objectives(self, write, tmp_path):
        journal = tmp_path / "journal"
        written = write(
            trials=7,
            parallel=2,
            trials_per_container=3,
            objectives=("validation.loss", "validation.cost"),
            directions=("minimize", "minimize"),
            fixed={"journal": str(journal)},
        )
        tuning = asyncio.run(loop(written).run())
        assert [trial.job for trial in tuning.trials] == [f"mlops-tune-t{n}" for n in (0, 0, 0, 3, 3, 3, 6)]
        assert all(
            trial.values == [trial.figures["validation.loss"], trial.figures["validation.cost"]]
            for trial in tuning.trials
        )
        assert tuning.best() in tuning.front()
        assert len(journal.read_text().splitlines()) == 7

    def test_ended_by_hand_nothing_is_left(self, write, tmp_path):
        written = write(trials=4, parallel=2, fixed={"pause": 600.0})
        trigger = TuningTrigger(store=written.store, key=KEY)

        async def run_and_kill():
            running = asyncio.create_task(anext(trigger.run()))
            await asyncio.to_thread(
                eventually, lambda: written.runner.inspect("mlops-tune-t1").status == "running"
            )
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            begun = time.monotonic()
            await trigger.on_kill()
            return time.monotonic() - begun

        assert asyncio.run(run_and_kill()) < 10
        assert list((tmp_path / "jobs").iterdir()) == []
        assert written.document.status == "failed"


@pytest.fixture
def none_left(docker_engine):
    """Fails a test that leaves a container of a tuning behind, and removes it all the same."""
    yield
    left = docker_engine.containers("mlops-tune")
    for name in left:
        docker_engine("rm", "--force", "--volumes", name)
    assert not left


@pytest.mark.docker
@pytest.mark.usefixtures("none_left")
class TestContainers:
    """The loop alone, its trials as containers."""

    def test_pruned_shared_pinned_and_gone(self, docker_engine, tuned_image, tmp_path):
        volumes = docker_engine("volume", "ls", "-q").split()
        pinned = docker_engine("image", "inspect", "--format", "{{.Id}}", tuned_image)
        written = Written(
            tmp_path,
            {"kind": "docker", "adopt_after": 2.0},
            name=f"mlops-tune-{os.getpid()}",
            image=pinned,
            trials=10,
            parallel=3,
            pruner="asha",
            fixed={"steps": 8, "pause": 0.3},
        )
        process = begin(written)
        name = written.document.name
        eventually(lambda: docker_engine.containers(f"{name}-t1") or process.poll())
        shown = json.loads(docker_engine("inspect", docker_engine.containers(f"{name}-t")[0]))[0]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        # Whatever the tag says from now on: the trials run what the first one ran.
        docker_engine("tag", "airflow-mlops-base:3.11", tuned_image)
        try:
            tuning = asyncio.run(loop(written).run())
        finally:
            docker_engine("tag", pinned, tuned_image)

        assert tuning.status == "done", tuning.reason
        assert len(tuning.trials) == 10
        states = [trial.state for trial in tuning.trials]
        assert set(states) == {"complete", "pruned"}, states
        # Every trial read the one shared file, and could not have written it.
        assert {trial.figures.get("train.rows", 1.0) for trial in tuning.trials} == {1.0}
        mount = shown["Mounts"][0]
        assert (mount["Destination"], mount["RW"], shown["Image"]) == ("/opt/ml/input/data", False, pinned)
        assert docker_engine.containers(name) == []
        assert set(docker_engine("volume", "ls", "-q").split()) <= set(volumes) | set(
            docker_engine("volume", "ls", "-q", "--filter", "dangling=false").split()
        )

    def test_a_missing_image_ends_it_at_once(self, docker_engine, tuned_image, tmp_path):
        written = Written(
            tmp_path, {"kind": "docker"}, name=f"mlops-tune-none-{os.getpid()}", image=tuned_image, trials=9
        )
        path = Path(written.store, KEY)
        path.write_text(path.read_text().replace(tuned_image, "airflow-mlops-test-nowhere:1"))
        tuning = asyncio.run(loop(written).run())
        assert (tuning.status, len(tuning.trials)) == ("failed", 2)
        assert "Image 'airflow-mlops-test-nowhere:1' is not on the Docker Engine" in tuning.reason

    def test_an_engine_that_is_away_is_waited_for(self, docker_engine, tuned_image, tmp_path, monkeypatch):
        written = Written(
            tmp_path, {"kind": "docker"}, name=f"mlops-tune-away-{os.getpid()}", image=tuned_image, trials=2
        )
        submit, away = DockerRunner.submit, [EngineUnavailableError("nobody answers")] * 2

        def late(self, job):
            if away:
                raise away.pop()
            return submit(self, job)

        monkeypatch.setattr(DockerRunner, "submit", late)
        tuning = asyncio.run(loop(written).run())
        assert [trial.state for trial in tuning.trials] == ["complete", "complete"]


@pytest.mark.docker
@pytest.mark.usefixtures("none_left")
class TestOperator:
    """The tasks as a DAG has them, with a real MLflow server."""

    @pytest.fixture
    def mlflow(self, mlflow_server, monkeypatch):
        for key, value in mlflow_server.environment.items():
            monkeypatch.setenv(key, value)
        return MLflowHook()

    @pytest.fixture
    def application(self, tmp_path, tuned_image):
        write_examples(tmp_path / "data" / "examples.parquet")
        dataset = ProvisionDatasetOperator(
            task_id="provision",
            application="tuned",
            store=str(tmp_path / "store"),
            examples={**EXAMPLES, "parquet": "*.parquet", "folder": str(tmp_path / "data")},
            split={"by": "time", "train": 0.6, "validation": 0.2, "test": 0.2, "gap": "0s"},
        ).execute(context("provision"))
        arguments = {
            "application": "tuned",
            "store": str(tmp_path / "store"),
            "runner": {"kind": "docker"},
            "deferrable": False,
        }
        description = DescribeModelCodeOperator(
            task_id="describe", code={"image": tuned_image}, parameters={"steps": 2}, **arguments
        ).execute(context("describe"))
        return {"dataset": dataset, "description": description, "code": description["code"], **arguments}

    def tune(self, application, run_id, **keys):
        tuning = {"objective": ["validation.loss"], "direction": ["minimize"], "trials": 5, "parallel": 3}
        task = TuneModelOperator(
            task_id="tune",
            tuning={**tuning, **keys},
            parameters={"steps": 2},
            overrides="{}",
            experiment="tuned",
            **application,
        )
        return task, context("tune", run_id=run_id)

    def test_the_best_trials_model_becomes_the_candidate(self, application, mlflow, monkeypatch):
        task, given = self.tune(application, "reuse", best="reuse", trials=11)
        tuned = task.execute(given)
        again = task.execute(given)
        assert again == tuned
        assert tuned["parameters"] | {"x": 0, "depth": 0} == application["description"]["parameters"] | {
            "x": 0,
            "depth": 0,
        }

        client = mlflow.get_conn()
        parent = client.get_run(tuned["tuning"]["run_id"])
        children = client.search_runs(
            [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
        )
        assert (parent.info.status, {child.info.status for child in children}) == ("FINISHED", {"FINISHED"})
        assert sorted(child.info.run_name for child in children) == sorted(f"trial {n}" for n in range(11))
        losses = {child.info.run_name: child.data.metrics["validation.loss"] for child in children}
        best = f"trial {tuned['tuning']['trial']}"
        assert min(losses, key=losses.get) == best
        assert tuned["tuning"]["values"] == [losses[best]]
        first = next(child for child in children if child.info.run_name == "trial 0")
        assert (first.data.params["x"], first.data.params["depth"]) == ("0.9", "3")
        history = client.get_metric_history(first.info.run_id, "validation.loss")
        assert [point.step for point in history] == [0, 1, 2]
        names = {Path(file.path).name for file in client.list_artifacts(parent.info.run_id, "tuning")}
        assert names == {"history.svg", "importance.svg", "trials.json"}

        started = []
        monkeypatch.setattr(DockerRunner, "_fill_and_start", lambda self, job: started.append(job))
        train = TrainModelOperator(
            task_id="train", experiment="tuned", **{**application, "description": tuned}
        )
        trained = train.execute(context("train", run_id="reuse"))
        assert started == []
        training = client.get_run(trained["run_id"])
        assert training.data.tags["airflow_mlops.tuning_run_id"] == parent.info.run_id
        model = mlflow.download(trained["run_id"], "model", Path(application["store"]).parent / "model")
        assert float((model / "loss").read_text()) == losses[best]

    def test_deferred_it_holds_nothing_and_wakes_for_the_best(self, application, mlflow):
        task, given = self.tune(
            application,
            "deferred",
            sampler="grid",
            search_space={"x": {"choices": [0.3, 0.5]}, "depth": {"low": 2, "high": 3}},
            trials=30,
        )
        task.deferrable = True
        with pytest.raises(TaskDeferred) as deferred:
            task.execute(given)
        trigger = deferred.value.trigger
        assert json.dumps(trigger.serialize()[1])
        event = asyncio.run(anext(trigger.run()))
        assert event.payload == {"status": "done", "reason": "all 4 trials are done"}
        tuned = getattr(task, deferred.value.method_name)(given, event.payload, **deferred.value.kwargs)
        assert (tuned["parameters"]["x"], tuned["parameters"]["depth"]) == (0.3, 2)
        assert "job" not in tuned

    def test_a_runner_that_shares_nothing_is_given_the_data_each_time(
        self, application, mlflow, tmp_path, monkeypatch
    ):
        monkeypatch.delattr(ProcessRunner, "stage")
        jobs = tmp_path / "jobs"
        application |= {
            "runner": {"kind": "process", "root": str(jobs)},
            "code": {"entrypoint": ["python", "model_code.py"], "directory": str(TUNED)},
        }
        task, given = self.tune(
            application, "unshared", objective="validation.loss", direction="minimize", trials=3
        )
        tuned = task.execute(given)
        assert tuned["tuning"]["trials"] == 3
        first = TuningDocument(application["store"], task._key(task.job_name(given))).read().trials[0]
        assert first.figures["train.rows"] == 1
        assert list(jobs.iterdir()) == []
        assert list((Path(application["store"]) / "tuned/tuning").rglob("*.parquet")) == []

    def test_ended_by_hand_on_a_worker_nothing_is_left(self, application, mlflow, docker_engine, monkeypatch):
        task, given = self.tune(application, "ended", trials=4, parallel=2)
        task.description = {
            **task.description,
            "parameters": {**task.description["parameters"], "pause": 600.0},
        }
        name = task.job_name(given)

        def work() -> None:
            with pytest.raises(AirflowFailException, match="it was ended by hand"):
                task.execute(given)

        worker = Thread(target=work)
        worker.start()
        eventually(lambda: docker_engine.containers(f"{name}-t1"))
        answers = "airflow_mlops.operators.model_code.airflow_answers"
        monkeypatch.setattr(answers, lambda: False)
        task.on_kill()  # Airflow is away: nobody ended anything
        assert docker_engine.containers(f"{name}-t1")
        monkeypatch.setattr(answers, lambda: True)
        begun = time.monotonic()
        task.on_kill()
        assert time.monotonic() - begun < SOON
        worker.join(DEADLINE)
        assert not worker.is_alive()
        assert docker_engine.containers(name) == []

    @pytest.mark.parametrize(
        ("keys", "message"),
        [
            ({"search_space": {"x": {"high": 3}}}, "x is allowed from -1 to 1, got -1 to 3"),
            ({"search_space": {"steps": {"low": 1, "high": 3}}}, "steps is searched and has a fixed value"),
            ({"sampler": "grid"}, "grid cannot search x"),
        ],
    )
    def test_what_cannot_be_searched_fails_before_anything_starts(self, application, keys, message):
        task, given = self.tune(application, "wrong", **keys)
        with pytest.raises(AirflowFailException, match=message):
            task.execute(given)


def test_the_model_code_of_these_tests_describes_its_space():
    done = subprocess.run(
        [sys.executable, str(TUNED / "model_code.py"), "describe"],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    described = json.loads(done.stdout)
    assert described["trials"] is True
    assert described["parameters"]["properties"]["x"]["search"] == {"low": -1, "high": 1}
