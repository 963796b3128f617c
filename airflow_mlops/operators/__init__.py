"""Every operator of the package, by its name: ``from airflow_mlops.operators import TrainModelOperator``.

A class is loaded when it is asked for, so that a DAG file pays only for the operators that it names. The modules
behind these names may move; the names do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_mlops import lazily

if TYPE_CHECKING:
    from airflow_mlops.operators.announcement import AnnounceFeaturesOperator
    from airflow_mlops.operators.assumptions import ValidateDatasetOperator
    from airflow_mlops.operators.delivery import PlanBatchOperator, PredictBatchOperator
    from airflow_mlops.operators.evaluation import (
        EvaluateChampionOperator,
        EvaluateModelOperator,
        TestModelOperator,
        TrainedModelOperator,
    )
    from airflow_mlops.operators.extraction import ExtractFeaturesOperator
    from airflow_mlops.operators.gate import GateModelOperator
    from airflow_mlops.operators.links import MLflowModelLink, MLflowReportLink, MLflowRunLink
    from airflow_mlops.operators.maintenance import ReapJobsOperator
    from airflow_mlops.operators.materialization import ApplyFeaturesOperator, MaterializeFeaturesOperator
    from airflow_mlops.operators.model_code import ModelCodeOperator
    from airflow_mlops.operators.monitoring import (
        DecideRetrainingOperator,
        MeasurePerformanceOperator,
        MonitoringOperator,
        ProfileInputsOperator,
        RaiseAlarmOperator,
    )
    from airflow_mlops.operators.provisioning import ProvisionDatasetOperator
    from airflow_mlops.operators.publication import PublishFeaturesOperator
    from airflow_mlops.operators.registration import RegisterModelOperator
    from airflow_mlops.operators.retraining import (
        AnswerReasonsOperator,
        CollectReasonsOperator,
        ConcludeTrainingOperator,
        RearmOperator,
        ReasonsOperator,
    )
    from airflow_mlops.operators.splitting import SplitDatasetOperator
    from airflow_mlops.operators.tracking import CloseRunsOperator
    from airflow_mlops.operators.training import DescribeModelCodeOperator, TrainModelOperator
    from airflow_mlops.operators.transformation import PrepareFeaturesOperator, TransformFeaturesOperator
    from airflow_mlops.operators.tuning import TuneModelOperator

__all__ = [
    "AnnounceFeaturesOperator",
    "AnswerReasonsOperator",
    "ApplyFeaturesOperator",
    "CloseRunsOperator",
    "CollectReasonsOperator",
    "ConcludeTrainingOperator",
    "DecideRetrainingOperator",
    "DescribeModelCodeOperator",
    "EvaluateChampionOperator",
    "EvaluateModelOperator",
    "ExtractFeaturesOperator",
    "GateModelOperator",
    "MLflowModelLink",
    "MLflowReportLink",
    "MLflowRunLink",
    "MaterializeFeaturesOperator",
    "MeasurePerformanceOperator",
    "ModelCodeOperator",
    "MonitoringOperator",
    "PlanBatchOperator",
    "PredictBatchOperator",
    "PrepareFeaturesOperator",
    "ProfileInputsOperator",
    "ProvisionDatasetOperator",
    "PublishFeaturesOperator",
    "RaiseAlarmOperator",
    "ReapJobsOperator",
    "RearmOperator",
    "ReasonsOperator",
    "RegisterModelOperator",
    "SplitDatasetOperator",
    "TestModelOperator",
    "TrainModelOperator",
    "TrainedModelOperator",
    "TransformFeaturesOperator",
    "TuneModelOperator",
    "ValidateDatasetOperator",
]

__getattr__ = lazily(
    {
        "AnnounceFeaturesOperator": "airflow_mlops.operators.announcement",
        "AnswerReasonsOperator": "airflow_mlops.operators.retraining",
        "ApplyFeaturesOperator": "airflow_mlops.operators.materialization",
        "CloseRunsOperator": "airflow_mlops.operators.tracking",
        "CollectReasonsOperator": "airflow_mlops.operators.retraining",
        "ConcludeTrainingOperator": "airflow_mlops.operators.retraining",
        "DecideRetrainingOperator": "airflow_mlops.operators.monitoring",
        "DescribeModelCodeOperator": "airflow_mlops.operators.training",
        "EvaluateChampionOperator": "airflow_mlops.operators.evaluation",
        "EvaluateModelOperator": "airflow_mlops.operators.evaluation",
        "ExtractFeaturesOperator": "airflow_mlops.operators.extraction",
        "GateModelOperator": "airflow_mlops.operators.gate",
        "MLflowModelLink": "airflow_mlops.operators.links",
        "MLflowReportLink": "airflow_mlops.operators.links",
        "MLflowRunLink": "airflow_mlops.operators.links",
        "MaterializeFeaturesOperator": "airflow_mlops.operators.materialization",
        "MeasurePerformanceOperator": "airflow_mlops.operators.monitoring",
        "ModelCodeOperator": "airflow_mlops.operators.model_code",
        "MonitoringOperator": "airflow_mlops.operators.monitoring",
        "PlanBatchOperator": "airflow_mlops.operators.delivery",
        "PredictBatchOperator": "airflow_mlops.operators.delivery",
        "PrepareFeaturesOperator": "airflow_mlops.operators.transformation",
        "ProfileInputsOperator": "airflow_mlops.operators.monitoring",
        "ProvisionDatasetOperator": "airflow_mlops.operators.provisioning",
        "PublishFeaturesOperator": "airflow_mlops.operators.publication",
        "RaiseAlarmOperator": "airflow_mlops.operators.monitoring",
        "ReapJobsOperator": "airflow_mlops.operators.maintenance",
        "RearmOperator": "airflow_mlops.operators.retraining",
        "ReasonsOperator": "airflow_mlops.operators.retraining",
        "RegisterModelOperator": "airflow_mlops.operators.registration",
        "SplitDatasetOperator": "airflow_mlops.operators.splitting",
        "TestModelOperator": "airflow_mlops.operators.evaluation",
        "TrainModelOperator": "airflow_mlops.operators.training",
        "TrainedModelOperator": "airflow_mlops.operators.evaluation",
        "TransformFeaturesOperator": "airflow_mlops.operators.transformation",
        "TuneModelOperator": "airflow_mlops.operators.tuning",
        "ValidateDatasetOperator": "airflow_mlops.operators.assumptions",
    }
)
