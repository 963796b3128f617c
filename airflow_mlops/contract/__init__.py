"""The model-code contract, version 1, in plain Python: what runs inside the model's container.

Standard library only. A data scientist writes one class and one line::

    from airflow_mlops.contract import ModelCode, main

    class Churn(ModelCode):
        name = "churn"
        version = "1.0.0"

        def train(self, job): ...

    if __name__ == "__main__":
        main(Churn)

and the image's entrypoint understands ``describe``, ``train`` and every other command whose method
the class has. Tests of the class inherit :class:`airflow_mlops.contract.testing.ModelCodeTestCase`.
"""

from __future__ import annotations

from airflow_mlops.contract.container.entrypoint import execute, main
from airflow_mlops.contract.model_code.cases import Case
from airflow_mlops.contract.model_code.job import Columns, Fold, Job
from airflow_mlops.contract.model_code.model_code import ModelCode
from airflow_mlops.contract.protocol.failures import (
    AssumptionError,
    CasesFailedError,
    DataError,
    JobError,
    ParameterError,
    StopRequested,
    TryAgainError,
)
from airflow_mlops.contract.protocol.paths import CONTRACT_VERSION, Paths

__all__ = [
    "CONTRACT_VERSION",
    "AssumptionError",
    "Case",
    "CasesFailedError",
    "Columns",
    "DataError",
    "Fold",
    "Job",
    "JobError",
    "ModelCode",
    "ParameterError",
    "Paths",
    "StopRequested",
    "TryAgainError",
    "execute",
    "main",
]
