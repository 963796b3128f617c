"""Training operators on a real engine and a real MLflow server: what holds, and what happens when it does not."""

from __future__ import annotations

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from airflow_mlops.hooks.mlflow.hook import MLflowHook
from airflow_mlops.operators.datasets.provision import ProvisionDatasetOperator
from airflow_mlops.operators.evaluation.evaluate import EvaluateModelOperator, TestModelOperator
from airflow_mlops.operators.evaluation.gate import GateModelOperator
from airflow_mlops.operators.registration import RegisterModelOperator
from airflow_mlops.operators.training.train import DescribeModelCodeOperator, TrainModelOperator
from tests.fixtures.tasks import EXAMPLES, context, write_examples

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("no_leftovers")]

SPLIT = {"by": "time", "train": 0.6, "validation": 0.2, "test": 0.2, "gap": "0s"}


class Application:
    """A tiny application: its data, its code, and the operators that its DAG would have."""

    def __init__(self, folder, image: str) -> None:
        write_examples(folder / "data" / "examples.parquet")
        self.arguments = {
            "application": "tiny",
            "store": str(folder / "store"),
            "runner": {"kind": "docker"},
            "deferrable": False,
        }
        self.image = image
        self.dataset = ProvisionDatasetOperator(
            task_id="provision",
            application="tiny",
            store=str(folder / "store"),
            examples={**EXAMPLES, "parquet": "*.parquet", "folder": str(folder / "data")},
            split=SPLIT,
        ).execute(context("provision"))

    def describe(self, parameters=None, *, image: str | None = None, **kwargs):
        task = DescribeModelCodeOperator(
            task_id="describe",
            code={"image": image or self.image},
            parameters=parameters or {},
            **kwargs,
            **self.arguments,
        )
        return task.execute(context("describe"))

    def train(
        self,
        parameters=None,
        *,
        experiment: str = "tiny",
        run_id: str = "manual__1",
        try_number: int = 1,
        **kwargs,
    ):
        description = self.describe(parameters)
        task = TrainModelOperator(
            task_id="train",
            code=description["code"],
            dataset=self.dataset,
            description=description,
            experiment=experiment,
            **kwargs,
            **self.arguments,
        )
        return task.execute(context("train", run_id=run_id, try_number=try_number, max_tries=2))

    def of_model(self, operator, trained, run_id: str = "manual__1"):
        task = operator(
            task_id=operator.command,
            code={"image": self.image},
            dataset=self.dataset,
            training=trained,
            **self.arguments,
        )
        return task.execute(context(operator.command, run_id=run_id))


@pytest.fixture
def tiny(tmp_path, tiny_image):
    return Application(tmp_path, tiny_image)


@pytest.fixture
def mlflow(mlflow_server, monkeypatch):
    for key, value in mlflow_server.environment.items():
        monkeypatch.setenv(key, value)
    return MLflowHook()


class TestTraining:
    def test_a_run_holds_what_went_in_and_came_out(self, tiny, mlflow, tiny_image):
        trained = tiny.train({"seconds": 0}, run_id="holds")
        run = mlflow.get_conn().get_run(trained["run_id"])
        assert run.info.status == "FINISHED"
        assert run.data.params == {"do": "learn", "code": "0", "seconds": "0", "seed": "0"}
        assert run.inputs.dataset_inputs[0].dataset.digest == tiny.dataset["dataset_id"][:36]
        assert trained["lineage"]["image_digest"].startswith("sha256:")
        assert trained["lineage"]["image"] == tiny_image

    def test_the_test_split_stays_outside(self, tiny, mlflow, docker_engine, tmp_path):
        class Kept(TrainModelOperator):
            def take_over(self, context, output, state):
                self.given = sorted(self.inputs(context, tmp_path))
                return super().take_over(context, output, state)

        description = tiny.describe()
        task = Kept(
            task_id="train",
            code=description["code"],
            dataset=tiny.dataset,
            description=description,
            experiment="tiny",
            **tiny.arguments,
        )
        task.execute(context("train", run_id="outside"))
        assert {path.split("/")[2] for path in task.given} == {"train", "validation", "manifest.json"}

    def test_trained_evaluated_tested_registered(self, tiny, mlflow):
        trained = tiny.train(run_id="loop")
        evaluated = tiny.of_model(EvaluateModelOperator, trained, "loop")
        tested = tiny.of_model(TestModelOperator, trained, "loop")
        decision = GateModelOperator(
            task_id="gate",
            application="tiny",
            rules=[{"metric": "auc", "at_least": 0.7}],
            candidate=evaluated,
            tests=tested,
        ).execute(context("gate"))
        assert decision["passed"], decision
        register = RegisterModelOperator(
            task_id="register",
            application="tiny",
            model="tiny_loop",
            run_id=trained["run_id"],
            decision=decision,
            lineage=trained["lineage"],
        )
        first, again = register.execute(context("register")), register.execute(context("register"))
        assert (first["version"], again["version"]) == ("1", "1")
        champion = mlflow.champion("tiny_loop")
        assert champion is not None
        assert champion.tags["airflow_mlops.dataset_id"] == tiny.dataset["dataset_id"]


class TestBadInput:
    @pytest.mark.parametrize(
        ("parameters", "message"),
        [({"learning_rate": 1}, "learning_rate"), ({"seconds": "ten"}, "seconds"), ({"code": 999}, "code")],
    )
    def test_wrong_parameters_are_refused_before_training(self, tiny, parameters, message):
        with pytest.raises(AirflowFailException, match=message):
            tiny.describe(parameters)

    def test_the_trigger_form_is_stronger_than_the_yaml(self, tiny):
        described = tiny.describe({"seconds": 1, "code": 3}, overrides='{"seconds": 2}')
        assert (described["parameters"]["seconds"], described["parameters"]["code"]) == (2, 3)

    def test_an_absent_image_is_final_and_says_the_cure(self, tiny):
        with pytest.raises(AirflowFailException, match=r"not-there.*docker"):
            tiny.describe(image="not-there:1")

    def test_an_image_without_the_label_is_final(self, tiny, base_image):
        with pytest.raises(AirflowFailException, match=r"ai\.airflow-mlops\.contract"):
            tiny.describe(image=base_image)

    @pytest.mark.parametrize(
        ("code", "error", "word"),
        [
            (10, AirflowFailException, "parameters"),
            (11, AirflowFailException, "data"),
            (12, AirflowFailException, "assumption"),
            (13, AirflowFailException, "test"),
            (75, AirflowException, "again"),
            (1, AirflowException, "1"),
        ],
    )
    def test_each_exit_code_has_its_end(self, tiny, mlflow, code, error, word):
        with pytest.raises(AirflowException, match=word) as caught:
            tiny.train({"do": "exit", "code": code}, run_id=f"exit{code}")
        assert type(caught.value) is error
        assert f"the reason is code {code}" in str(caught.value)

    def test_out_of_memory_is_said_and_may_be_tried_again(self, tiny, mlflow):
        tiny.arguments["limits"] = {"memory": 64 * 1024**2}
        with pytest.raises(AirflowException, match="memory") as caught:
            tiny.train({"do": "eat"}, run_id="oom")
        assert not isinstance(caught.value, AirflowFailException)

    def test_a_job_that_takes_too_long_is_stopped(self, tiny, mlflow):
        with pytest.raises(AirflowException, match="longer than 2 s"):
            tiny.train({"do": "sleep", "seconds": 600}, run_id="long", job_timeout=2)


class TestMlflowAway:
    def test_at_the_start_nothing_is_trained_twice(
        self, tiny, mlflow_server_of_my_own, monkeypatch, docker_engine
    ):
        """MLflow away when the result is to be logged: the retry finds the finished job and logs it once."""
        server = mlflow_server_of_my_own
        for key, value in server.environment.items():
            monkeypatch.setenv(key, value)
        with pytest.raises(AirflowException, match="MLflow") as caught:
            tiny.train(run_id="away")
        assert not isinstance(caught.value, AirflowFailException)
        (container,) = docker_engine.containers("mlops-tiny-train")
        started = docker_engine("inspect", "--format", "{{.State.StartedAt}}", container)

        server.start()
        kept = docker_engine("inspect", "--format", "{{.State.StartedAt}}", container)
        trained = tiny.train(run_id="away", try_number=2)
        assert kept == started
        assert docker_engine.containers("mlops-tiny-train") == []
        experiment = MLflowHook().get_conn().get_experiment_by_name("tiny")
        runs = MLflowHook().get_conn().search_runs([experiment.experiment_id])
        assert [run.info.run_id for run in runs] == [trained["run_id"]]
        assert runs[0].info.status == "FINISHED"

    def test_in_the_middle_the_run_is_found_again(self, tiny, mlflow_server_of_my_own, monkeypatch):
        """MLflow dies between the run and the model: the retry completes the same run."""
        server = mlflow_server_of_my_own
        for key, value in server.environment.items():
            monkeypatch.setenv(key, value)
        server.start()
        real = MLflowHook.log_directory

        def dies(self, *arguments):
            server.kill()
            return real(self, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(MLflowHook, "log_directory", dies)
            with pytest.raises(AirflowException):
                tiny.train(run_id="middle")
        server.start()
        trained = tiny.train(run_id="middle", try_number=2)
        experiment = MLflowHook().get_conn().get_experiment_by_name("tiny")
        runs = MLflowHook().get_conn().search_runs([experiment.experiment_id])
        assert [run.info.run_id for run in runs] == [trained["run_id"]]
        assert MLflowHook().register_model("tiny", trained["run_id"]) == "1"
