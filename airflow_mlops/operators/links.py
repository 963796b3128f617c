"""Buttons on a task's page in the Airflow UI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

__all__ = ["MLflowRunLink"]


class MLflowRunLink(BaseOperatorLink):
    """Leads from a task to its MLflow run, from the moment at which there is one."""

    name = "MLflow run"
    #: Under this key Airflow keeps the address as an XCom of the task.
    key = "mlflow_run_link"

    @property
    def xcom_key(self) -> str:
        """Where the API server finds the address."""
        return self.key

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """The address that the operator has found out; Airflow asks for it when the task ends or defers."""
        return str(getattr(operator, "run_url", "") or "")
