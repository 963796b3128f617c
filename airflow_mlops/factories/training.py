"""Training: reasons + dataset + code + parameters → a registered model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from airflow.sdk import TriggerRule, XComArg

from airflow_mlops.assets import (
    code_asset,
    dataset_asset,
    model_asset,
    retraining_asset,
    training_asset,
)
from airflow_mlops.factories.application import (
    BOOKKEEPING_RETRIES,
    application_dag,
    code_of,
    job_task_timeout,
    model_code_arguments,
    training_dataset_arguments,
    training_form,
)
from airflow_mlops.factories.schedules import schedule_of
from airflow_mlops.factories.verbatim import Template
from airflow_mlops.factories.watchers import watchers_of
from airflow_mlops.operators.datasets.provision import ProvisionDatasetOperator
from airflow_mlops.operators.evaluation.evaluate import (
    EvaluateChampionOperator,
    EvaluateModelOperator,
    TestModelOperator,
)
from airflow_mlops.operators.evaluation.gate import GateModelOperator
from airflow_mlops.operators.registration import RegisterModelOperator
from airflow_mlops.operators.retraining import (
    AnswerReasonsOperator,
    CollectReasonsOperator,
    ConcludeTrainingOperator,
    RearmOperator,
)
from airflow_mlops.operators.training.train import DescribeModelCodeOperator, TrainModelOperator
from airflow_mlops.operators.training.tune import TuneModelOperator

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_mlops.spec import ApplicationSpec


def build_training_dag(spec: ApplicationSpec) -> DAG:
    """Build ``<application>__training``."""
    name, mlflow, model = (
        spec.application,
        spec.tracking.connection,
        spec.registration.model,
    )
    job = model_code_arguments(spec)
    with application_dag(
        spec,
        "training",
        "Trains for a reason, evaluates against the champion, and registers what is better.",
        schedule=schedule_of(
            spec.retraining.schedule, retraining_asset(name), code_asset(name, watchers_of(spec))
        ),
        params=training_form(),
    ) as dag:
        reasons = CollectReasonsOperator(
            task_id="collect_reasons",
            application=name,
            why=Template("{{ params.why or '' }}"),
            model=model,
            experiment=spec.tracking.experiment,
            mlflow_conn_id=mlflow,
            outlets=[training_asset(name)],
        )
        dataset = ProvisionDatasetOperator(
            task_id="provision", outlets=[dataset_asset(name)], **training_dataset_arguments(spec)
        )
        description = DescribeModelCodeOperator(
            task_id="describe",
            code=code_of(spec),
            parameters=dict(spec.training.parameters),
            overrides=Template("{{ params.parameters | tojson }}"),
            commands=commands_of(spec),
            **job,
        )
        code = XComArg(description, key="code")
        described = _tuned(spec, job, code=code, dataset=dataset.output, description=description.output)
        train = TrainModelOperator(
            task_id="train",
            code=code,
            dataset=dataset.output,
            description=described,
            reasons=reasons.output,
            experiment=spec.tracking.experiment,
            mlflow_conn_id=mlflow,
            system_metrics=10 if spec.tracking.system_metrics else 0,
            input_example=spec.registration.input_example,
            distributed=_distributed(spec),
            **job,
        )
        trained = {"dataset": dataset.output, "mlflow_conn_id": mlflow, **job}
        threshold = spec.evaluation.threshold
        evaluate = EvaluateModelOperator(
            task_id="evaluate", code=code, training=train.output, threshold=threshold, **trained
        )
        champion = EvaluateChampionOperator(task_id="evaluate_champion", code=code, model=model, **trained)
        gate = GateModelOperator(
            task_id="gate",
            application=name,
            rules=[rule.model_dump(mode="json", exclude_none=True) for rule in spec.evaluation.require],
            candidate=evaluate.output,
            champion=champion.output,
            tests=_tests(spec, code=code, training=train.output, **trained),
            dataset=dataset.output,
            store=spec.store,
            paradigm=spec.paradigm,
            threshold=threshold,
            seed=spec.training.seed,
            mode=spec.evaluation.mode,
            mlflow_conn_id=mlflow,
            trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
        )
        register = RegisterModelOperator(
            task_id="register",
            application=name,
            model=model,
            run_id=XComArg(train, key="run_id"),
            decision=gate.output,
            lineage=XComArg(train, key="lineage"),
            evaluation=evaluate.output,
            about={
                "description": spec.description,
                "owner": spec.owner,
                "limits": list(spec.registration.limits),
            },
            promote=spec.registration.promote,
            mlflow_conn_id=mlflow,
            outlets=[model_asset(name)],
        )
        kept: dict[str, Any] = {"retries": max(spec.training.retries, BOOKKEEPING_RETRIES)}
        outcome = {"reasons": reasons.output, "decision": gate.output, "registered": register.output}
        answered = AnswerReasonsOperator(
            task_id="answer_reasons", application=name, outlets=[training_asset(name)], **outcome, **kept
        )
        rearm = RearmOperator(task_id="rearm", application=name, pending=answered.output, **kept)
        # By templates: as an XCom each would be an edge, and the task before it no leaf that Airflow judges the run by.
        conclude = ConcludeTrainingOperator(
            task_id="conclude",
            reasons=_returned("collect_reasons"),
            decision=_returned("gate"),
            registered=_returned("register"),
            watched=["answer_reasons", "rearm"],
            **kept,
        )

        # What a task returns joins it to the next one; only these hand nothing over.
        reasons >> [dataset, description]
        train >> champion
        # Teardowns run whatever happened and leave the state of the run to the tasks before them; only the last one has
        # a say too.
        register >> answered.as_teardown() >> rearm.as_teardown()
        rearm >> conclude.as_teardown(on_failure_fail_dagrun=True)
    return dag


def _returned(task_id: str) -> Template:
    return Template(f"{{{{ ti.xcom_pull(task_ids='{task_id}') | tojson }}}}")


def _distributed(spec: ApplicationSpec) -> dict[str, Any] | None:
    distributed = spec.training.distributed.model_dump()
    return distributed if distributed != {"nodes": 1, "processes_per_node": 1} else None


def _tuned(spec: ApplicationSpec, job: dict[str, Any], **arguments: Any) -> XComArg:
    """The description with the parameters to train with: searched for, when the YAML says so."""
    tuning = spec.training.tuning
    if tuning is None:
        return cast("XComArg", arguments["description"])
    seconds = {"timeout": tuning.timeout.total_seconds()} if tuning.timeout else {}
    longest = tuning.timeout or tuning.trials * spec.training.timeout
    limit = job_task_timeout(spec, longest, deferrable=spec.training.deferrable)
    return TuneModelOperator(
        task_id="tune",
        tuning={**tuning.model_dump(mode="json", exclude_none=True), **seconds},
        parameters=dict(spec.training.parameters),
        overrides=Template("{{ params.parameters | tojson }}"),
        experiment=spec.tracking.experiment,
        mlflow_conn_id=spec.tracking.connection,
        distributed=_distributed(spec),
        **arguments,
        **{**job, "execution_timeout": limit},
    ).output


def commands_of(spec: ApplicationSpec) -> list[str]:
    tested = ["test"] if spec.evaluation.cases else []
    delivered = [command for item in spec.delivery for command in item.form.commands]
    return list(dict.fromkeys(["train", "evaluate", *tested, *delivered]))


def _tests(spec: ApplicationSpec, **arguments: Any) -> XComArg | None:
    return TestModelOperator(task_id="test", **arguments).output if spec.evaluation.cases else None
