"""The four DAGs of an application: who wakes them, which task follows which, and what ends a run."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pendulum
import pytest
from airflow.sdk import Asset, AssetAny, TriggerRule
from airflow.sdk.definitions.asset import AssetNameRef
from airflow.sdk.exceptions import ParamValidationError
from airflow.timetables.base import DataInterval, TimeRestriction
from airflow.timetables.trigger import CronTriggerTimetable

from airflow_mlops.assets import predictions_asset, retraining_asset
from airflow_mlops.factories import build_dags
from airflow_mlops.spec import load_application
from tests.unit.factories.samples import YAML, write

BATCH = [{"batch": {"schedule": {"assets": ["examples_arrived"]}}}]


@pytest.fixture
def build(tmp_path):
    """Build the DAGs of an application with other keys than the sample's."""

    def build(**keys):
        spec = load_application(write(tmp_path, **{"delivery": BATCH, **keys}))
        return {dag_id.partition("__")[2]: dag for dag_id, dag in build_dags(spec).items()}

    return build


def edges(dag):
    return {(task.task_id, following) for task in dag.tasks for following in task.downstream_task_ids}


def wakers(dag):
    """Names of the assets of which any wakes the DAG."""
    condition = getattr(dag.timetable, "asset_condition", None)
    assert condition is None or isinstance(condition, AssetAny)
    return {asset.name for asset in condition.objects} if condition else set()


class TestTheFour:
    def test_their_names_and_what_they_share(self, build):
        dags = build()
        assert list(dags) == ["provisioning", "training", "delivery", "monitoring"]
        for primitive, dag in dags.items():
            assert dag.dag_id == f"tiny__{primitive}"
            assert (dag.catchup, dag.max_active_runs) == (False, 1)
            assert set(dag.tags) == {"mlops", "tiny", "demo"}
            assert '"application": "tiny"' in dag.doc_md
            assert {task.owner for task in dag.tasks} == {"ml-team"}
            dag.validate()

    def test_without_a_delivery_there_is_nothing_to_watch(self, build):
        assert list(build(delivery=[])) == ["provisioning", "training"]

    def test_a_worker_builds_only_the_one_it_needs(self, tmp_path):
        spec = load_application(write(tmp_path))
        assert list(build_dags(spec, only="tiny__training")) == ["tiny__training"]
        assert build_dags(spec, only="other__training") == {}

    def test_one_task_emits_each_asset(self, build):
        emitted = {
            (primitive, task.task_id): [outlet.name for outlet in task.outlets]
            for primitive, dag in build().items()
            for task in dag.tasks
            if task.outlets
        }
        assert emitted == {
            ("provisioning", "provision"): ["tiny.dataset"],
            ("training", "provision"): ["tiny.dataset"],
            ("training", "register"): ["tiny.model"],
            ("training", "collect_reasons"): ["tiny.training"],
            ("training", "answer_reasons"): ["tiny.training"],
            ("training", "rearm"): ["tiny.retraining"],
            ("delivery", "predict"): ["tiny.predictions"],
            ("monitoring", "raise_alarm"): ["tiny.retraining"],
        }

    def test_both_provisions_ask_the_same_question(self, build):
        dags = build()
        once, again = (dags[name].get_task("provision") for name in ("provisioning", "training"))
        of_the_form = {"features", "line", "code"}
        for name in {*once.template_fields, "split", "assumptions", "purpose"} - of_the_form:
            assert getattr(once, name) == getattr(again, name), name

    @pytest.mark.parametrize(
        ("given", "features", "line"),
        [
            ({}, "tiny_v1", "main"),
            ({"line": "calm"}, "tiny_v1", "calm"),
            ({"features": "tiny_V2"}, "tiny_V2", "tiny_v2"),
            ({"features": "tiny_v2", "line": "calm"}, "tiny_v2", "calm"),
            ({"features": "main"}, "main", "line-main"),
            ({"code": "reg:5000/Tiny:2"}, "tiny_v1", "reg-5000-tiny-2"),
            ({"code": "sha256:" + "0a" * 32}, "tiny_v1", "0a0a0a0a0a0a"),
            ({"code": "tiny:2", "features": "tiny_v2"}, "tiny_v2", "tiny_v2-tiny-2"),
            ({"code": "tiny:2", "line": "calm"}, "tiny_v1", "calm"),
        ],
    )
    def test_other_features_or_code_never_get_into_production(self, build, given, features, line):
        dag = build(provisioning={**YAML["provisioning"], "features": "tiny_v1"})["provisioning"]
        task = dag.get_task("provision")
        values = {name: param.value for name, param in dag.params.items()} | given
        context = {"params": values}
        assert task.render_template(task.features, context) == features
        assert task.render_template(task.line, context) == line
        assert task.render_template(task.code, context) == {"image": given.get("code", "tiny:1")}

    @pytest.mark.parametrize("line", ["main", "latest", "New Weather", "../x"])
    def test_the_form_refuses_what_is_no_line_of_its_own(self, build, line):
        with pytest.raises(ParamValidationError):
            build()["provisioning"].params.get_param("line").resolve(line)

    def test_the_form_refuses_what_is_no_code(self, build):
        with pytest.raises(ParamValidationError):
            build()["provisioning"].params.get_param("code").resolve("{{ conn.secret }}")

    def test_hashing_a_dag_by_its_name_keeps_different_dags_apart(self, build):
        assert len(set(build().values())) == 4


class TestSchedules:
    def test_by_default_only_the_applications_own_assets_wake_them(self, build):
        dags = build(delivery=[{"batch": {}}])
        assert {name: wakers(dag) for name, dag in dags.items()} == {
            "provisioning": set(),
            "training": {"tiny.code", "tiny.retraining"},
            "delivery": set(),
            "monitoring": {"tiny.predictions"},
        }
        assert not dags["provisioning"].timetable.can_be_scheduled

    def test_assets_from_outside_are_references(self, build):
        """Declared whole, they would lose the watchers that somebody else gave them."""
        dags = build(monitoring={"schedule": {"assets": ["landed"]}})
        assert wakers(dags["monitoring"]) == {"tiny.predictions", "landed"}
        assert wakers(dags["delivery"]) == {"examples_arrived"}
        kinds = {type(asset) for asset in dags["monitoring"].timetable.asset_condition.objects}
        assert kinds == {Asset, AssetNameRef}

    def test_a_clock_in_utc_does_not_silence_the_alarms(self, build):
        timetable = build(retraining={"schedule": "0 3 * * 1"})["training"].timetable
        assert wakers(build(retraining={"schedule": "0 3 * * 1"})["training"]) == {
            "tiny.code",
            "tiny.retraining",
        }
        assert timetable.timetable.expression == "0 3 * * 1"
        assert str(timetable.timetable.timezone) == "UTC"

    def test_what_a_pause_has_missed_is_made_up_for_once(self, build):
        """Paused for three weeks of a weekly schedule: one run, of the last time, and the next at its time."""
        dag = build(retraining={"schedule": "0 3 * * 1"})["training"]
        clock = CronTriggerTimetable(dag.timetable.timetable.expression, timezone="UTC")
        now = datetime.now(UTC)
        rule = TimeRestriction(earliest=pendulum.instance(dag.start_date), latest=None, catchup=dag.catchup)
        ran = DataInterval.exact(pendulum.instance(now - timedelta(days=22)))
        made_up = clock.next_dagrun_info(last_automated_data_interval=ran, restriction=rule)
        after = clock.next_dagrun_info(last_automated_data_interval=made_up.data_interval, restriction=rule)
        assert now - timedelta(days=7) < made_up.run_after <= now < after.run_after

    def test_the_assets_of_two_applications_are_apart(self):
        assert retraining_asset("a") != retraining_asset("b")
        assert predictions_asset("a").uri != retraining_asset("a").uri


class TestTraining:
    def test_which_task_follows_which(self, build):
        assert edges(build()["training"]) == {
            *(("collect_reasons", name) for name in ("provision", "describe", "train", "answer_reasons")),
            *(("provision", name) for name in ("train", "evaluate", "evaluate_champion", "test", "gate")),
            *(("describe", name) for name in ("train", "evaluate", "evaluate_champion", "test")),
            *(("train", name) for name in ("evaluate", "evaluate_champion", "test", "register")),
            *((name, "gate") for name in ("evaluate", "evaluate_champion", "test")),
            ("evaluate", "register"),
            ("gate", "register"),
            ("gate", "answer_reasons"),
            ("register", "answer_reasons"),
            ("answer_reasons", "rearm"),
            ("rearm", "conclude"),
        }

    def test_without_test_cases_nothing_is_tested(self, build):
        dag = build(evaluation={"cases": False})["training"]
        assert "test" not in dag.task_ids
        assert dag.get_task("gate").tests is None

    def test_the_gate_measures_as_the_evaluation_does(self, build):
        dag = build(evaluation={"mode": "dry_run", "threshold": 0.3}, training={"seed": 9})["training"]
        gate, evaluate = dag.get_task("gate"), dag.get_task("evaluate")
        assert (gate.mode, gate.threshold, evaluate.threshold) == ("dry_run", 0.3, 0.3)
        assert gate.seed == evaluate.seed == 9
        assert (gate.paradigm, gate.store) == (evaluate.paradigm, evaluate.store) == ("classification", "/s")

    def test_no_champion_does_not_stop_the_gate_but_a_failure_does(self, build):
        rules = {task.task_id: task.trigger_rule for task in build()["training"].tasks}
        assert rules.pop("gate") == TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS
        assert {rules.pop(name) for name in ("answer_reasons", "rearm", "conclude")} == {
            TriggerRule.ALL_DONE_SETUP_SUCCESS
        }
        assert set(rules.values()) == {TriggerRule.ALL_SUCCESS}

    def test_only_the_last_of_the_books_has_a_say_in_the_state_of_the_run(self, build):
        dag = build()["training"]
        books = [task.task_id for task in dag.tasks if task.is_teardown]
        assert sorted(books) == ["answer_reasons", "conclude", "rearm"]
        judging = [name for name in books if dag.get_task(name).on_failure_fail_dagrun]
        assert judging == ["conclude"]
        # Airflow judges the run by the last task of the work too: none behind it has a say itself.
        assert not dag.get_task("register").downstream_task_ids & set(judging)

    def test_a_training_without_retries_keeps_its_books_all_the_same(self, build):
        dags = build(training={"retries": 0})
        assert dags["training"].get_task("train").retries == 0
        for primitive, name in (
            ("training", "answer_reasons"),
            ("training", "rearm"),
            ("monitoring", "raise_alarm"),
        ):
            assert dags[primitive].get_task(name).retries >= 2, name

    def test_the_form_asks_why_and_for_parameters(self, build):
        dag = build()["training"]
        assert dag.params.dump() == {"why": "", "parameters": {}}
        task = dag.get_task("collect_reasons")
        assert task.render_template(task.why, {"params": {"why": None}}) == ""
        assert task.render_template(task.why, {"params": {"why": "new idea"}}) == "new idea"
        assert dag.get_task("describe").overrides == "{{ params.parameters | tojson }}"

    def test_a_person_may_leave_the_form_empty(self, build):
        """Airflow's form demands a value of what may not be null."""
        for name in ("why", "parameters"):
            assert build()["training"].params.get_param(name).resolve(None) is None

    def test_limits_seed_and_place_reach_every_job(self, build):
        training = {
            "resources": {"cpus": 1.5, "memory": "1g"},
            "seed": 3,
            "timeout": "5m",
            "deferrable": False,
        }
        dags = build(training=training)
        jobs = [task for dag in dags.values() for task in dag.tasks if hasattr(task, "job_timeout")]
        assert {task.task_id for task in jobs} == {
            *("describe", "train", "evaluate", "evaluate_champion", "test", "predict")
        }
        for task in jobs:
            assert task.limits == {
                "cpus": 1.5,
                "memory": 1024**3,
                "shm": 64 * 1024**2,
                "pids": 512,
                "disk": 20 * 1024**3,
                "gpus": 0,
            }
            assert (task.seed, task.job_timeout, task.deferrable) == (3, 300, False)
            assert (task.runner, task.network) == (
                {"kind": "docker", "docker_conn_id": "docker_default"},
                "none",
            )

    def test_as_processes_the_jobs_lie_in_the_store(self, build, tmp_path):
        code = {"process": {"directory": str(tmp_path), "command": ["python", "m.py"]}}
        train = build(code=code)["training"].get_task("train")
        assert train.runner == {"kind": "process", "root": "/s/tiny/jobs"}

    def test_beside_a_store_in_a_bucket_processes_have_a_folder_of_the_worker(
        self, build, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "home"))
        code = {"process": {"directory": str(tmp_path), "command": ["python", "m.py"]}}
        dags = build(code=code, store="s3://lake@models/mlops")
        train = dags["training"].get_task("train")
        assert train.store == "s3://lake@models/mlops"
        assert train.runner == {"kind": "process", "root": f"{tmp_path}/home/mlops-jobs/tiny"}


class TestDelivery:
    def test_plan_provision_predict(self, build):
        dag = build()["delivery"]
        assert edges(dag) == {
            ("plan_batch", "provision"),
            ("plan_batch", "predict"),
            ("provision", "predict"),
        }
        provision = dag.get_task("provision")
        assert (provision.purpose, provision.when_empty, provision.split) == ("prediction", "skip", None)


class TestMonitoring:
    def test_profile_measure_decide_raise(self, build):
        assert edges(build()["monitoring"]) == {
            ("profile_inputs", "measure_performance"),
            ("measure_performance", "decide"),
            ("decide", "raise_alarm"),
        }

    def test_the_rules_of_the_yaml_arrive_as_json(self, build):
        dag = build(retraining={"on": ["performance"]}, monitoring={"drift": {"min_columns": 3}})[
            "monitoring"
        ]
        rules = dag.get_task("decide").rules
        assert rules["retraining"] == {"on": ["performance"]}
        assert rules["drift"]["min_columns"] == 3
        assert json.loads(json.dumps(rules)) == rules


def test_airflow_can_store_them(tmp_path):
    """In a process of its own: what serializes DAGs is not for DAG files, and heavy."""
    path = write(tmp_path, delivery=BATCH)
    program = f"""
import json
from airflow.serialization.serialized_objects import DagSerialization
from airflow_mlops.factories import build_dags
from airflow_mlops.spec import load_application
for dag_id, dag in build_dags(load_application({str(path)!r})).items():
    print(dag_id, len(json.dumps(DagSerialization.to_dict(dag))) > 1000)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line.split() for line in done.stdout.splitlines() if line.startswith("tiny__")] == [
        [f"tiny__{name}", "True"] for name in ("provisioning", "training", "delivery", "monitoring")
    ]
