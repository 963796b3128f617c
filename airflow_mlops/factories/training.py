"""Training: reasons + dataset + code + parameters → a registered model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import TriggerRule, XComArg

from airflow_mlops.assets import dataset_asset, model_asset, retraining_asset
from airflow_mlops.factories.application import (
    BOOKKEEPING_RETRIES,
    application_dag,
    code_of,
    model_code_arguments,
    training_dataset_arguments,
    training_form,
)
from airflow_mlops.factories.schedules import schedule_of
from airflow_mlops.operators.evaluation import (
    EvaluateChampionOperator,
    EvaluateModelOperator,
    TestModelOperator,
)
from airflow_mlops.operators.provisioning import ProvisionDatasetOperator
from airflow_mlops.operators.registration import GateModelOperator, RegisterModelOperator
from airflow_mlops.operators.retraining import (
    AnswerReasonsOperator,
    CollectReasonsOperator,
    RearmOperator,
)
from airflow_mlops.operators.training import DescribeModelCodeOperator, TrainModelOperator

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
        schedule=schedule_of(spec.retraining.schedule, retraining_asset(name)),
        params=training_form(),
    ) as dag:
        reasons = CollectReasonsOperator(task_id="collect_reasons", application=name, why="{{ params.why }}")
        dataset = ProvisionDatasetOperator(
            task_id="provision", outlets=[dataset_asset(name)], **training_dataset_arguments(spec)
        )
        description = DescribeModelCodeOperator(
            task_id="describe",
            code=code_of(spec),
            parameters=dict(spec.training.parameters),
            overrides="{{ params.parameters | tojson }}",
            commands=_commands(spec),
            **job,
        )
        code = XComArg(description, key="code")
        train = TrainModelOperator(
            task_id="train",
            code=code,
            dataset=dataset.output,
            description=description.output,
            reasons=reasons.output,
            experiment=spec.tracking.experiment,
            mlflow_conn_id=mlflow,
            **job,
        )
        trained = {"dataset": dataset.output, "mlflow_conn_id": mlflow, **job}
        evaluate = EvaluateModelOperator(task_id="evaluate", code=code, training=train.output, **trained)
        champion = EvaluateChampionOperator(task_id="evaluate_champion", code=code, model=model, **trained)
        gate = GateModelOperator(
            task_id="gate",
            application=name,
            rules=[rule.model_dump(mode="json", exclude_none=True) for rule in spec.evaluation.require],
            candidate=evaluate.output,
            champion=champion.output,
            tests=_tests(spec, code=code, training=train.output, **trained),
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
            mlflow_conn_id=mlflow,
            outlets=[model_asset(name)],
        )
        answered = AnswerReasonsOperator(
            task_id="answer_reasons",
            application=name,
            reasons=reasons.output,
            decision=gate.output,
            registered=register.output,
            retries=max(spec.training.retries, BOOKKEEPING_RETRIES),
        )
        rearm = RearmOperator(
            task_id="rearm",
            application=name,
            pending=answered.output,
            retries=max(spec.training.retries, BOOKKEEPING_RETRIES),
        )

        # What a task returns joins it to the next one; only these hand nothing over.
        reasons >> [dataset, description]
        train >> champion
        # Teardowns run whatever happened and leave the state of the run to the tasks before them.
        register >> answered.as_teardown() >> rearm.as_teardown()
    return dag


def _commands(spec: ApplicationSpec) -> list[str]:
    tested = ["test"] if spec.evaluation.cases else []
    return ["train", "evaluate", *tested, *(["predict"] if spec.delivery else [])]


def _tests(spec: ApplicationSpec, **arguments: Any) -> XComArg | None:
    return TestModelOperator(task_id="test", **arguments).output if spec.evaluation.cases else None
