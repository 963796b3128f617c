"""Buttons on a task's page in the Airflow UI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperatorLink

from airflow_mlops.exceptions import MLOpsError

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

    from airflow_mlops.hooks.mlflow.hook import MLflowHook

__all__ = ["PAGE_FILE", "MLflowModelLink", "MLflowReportLink", "MLflowRunLink", "show_model", "show_run"]

#: Where a run keeps the gate's report.
PAGE_FILE = "evaluation/report.html"


class MLflowLink(BaseOperatorLink):
    """Leads from a task to a page of MLflow, from the moment at which there is one."""

    #: Under this key Airflow keeps the address as an XCom of the task.
    key: ClassVar[str]
    #: Attribute of the operator that holds the address.
    attribute: ClassVar[str]

    @property
    def xcom_key(self) -> str:
        """Where the API server finds the address."""
        return self.key

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """The address that the operator has found out; Airflow asks for it when the task ends or defers."""
        return str(getattr(operator, self.attribute, "") or "")


class MLflowRunLink(MLflowLink):
    """Leads to the MLflow run."""

    name = "MLflow run"
    key, attribute = "mlflow_run_link", "run_url"


class MLflowReportLink(MLflowLink):
    """Leads to the gate's report of the run."""

    name = "Report"
    key, attribute = "mlflow_report_link", "report_url"


class MLflowModelLink(MLflowLink):
    """Leads to the version of the registered model."""

    name = "MLflow model"
    key, attribute = "mlflow_model_link", "model_url"


def show_run(operator: Any, mlflow: MLflowHook, run_id: str) -> None:
    """Let the buttons of an operator lead to a run and its report; without them, the task is none the worse."""
    try:
        operator.run_url = mlflow.run_url(mlflow.run(run_id))
    except MLOpsError as error:
        operator.log.warning("No link to MLflow run %s: %s", run_id, error)
    else:
        operator.report_url = f"{operator.run_url}/artifacts/{PAGE_FILE}"


def show_model(operator: Any, mlflow: MLflowHook, model: str, version: str) -> None:
    """Let the button of an operator lead to a version of a model."""
    try:
        operator.model_url = mlflow.model_url(model, version)
    except MLOpsError as error:
        operator.log.warning("No link to version %s of model %s: %s", version, model, error)
