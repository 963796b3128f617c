"""Every operator of the package, by its name: ``from airflow_mlops.operators import TrainModelOperator``.

A class is loaded when it is asked for, so that a DAG file pays only for the operators that it names. The modules
behind these names may move; the names do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_mlops import lazily

if TYPE_CHECKING:
    from airflow_mlops.operators.datasets.provision import ProvisionDatasetOperator
    from airflow_mlops.operators.datasets.split import SplitDatasetOperator
    from airflow_mlops.operators.datasets.validate import ValidateDatasetOperator
    from airflow_mlops.operators.delivery import PlanBatchOperator, PredictBatchOperator
    from airflow_mlops.operators.evaluation.evaluate import (
        EvaluateChampionOperator,
        EvaluateModelOperator,
        TestModelOperator,
        TrainedModelOperator,
    )
    from airflow_mlops.operators.evaluation.gate import GateModelOperator
    from airflow_mlops.operators.features.announce import AnnounceFeaturesOperator
    from airflow_mlops.operators.features.apply import ApplyFeaturesOperator, MaterializeFeaturesOperator
    from airflow_mlops.operators.features.extract import ExtractFeaturesOperator
    from airflow_mlops.operators.features.publish import PublishFeaturesOperator
    from airflow_mlops.operators.features.transform import PrepareFeaturesOperator, TransformFeaturesOperator
    from airflow_mlops.operators.links import MLflowModelLink, MLflowReportLink, MLflowRunLink
    from airflow_mlops.operators.maintenance import ReapJobsOperator
    from airflow_mlops.operators.model_code import ModelCodeOperator
    from airflow_mlops.operators.monitoring.alarm import RaiseAlarmOperator
    from airflow_mlops.operators.monitoring.decide import DecideRetrainingOperator
    from airflow_mlops.operators.monitoring.performance import MeasurePerformanceOperator
    from airflow_mlops.operators.monitoring.profile import ProfileInputsOperator
    from airflow_mlops.operators.monitoring.windows import MonitoringOperator
    from airflow_mlops.operators.registration import RegisterModelOperator
    from airflow_mlops.operators.retraining import (
        AnswerReasonsOperator,
        CollectReasonsOperator,
        ConcludeTrainingOperator,
        RearmOperator,
        ReasonsOperator,
    )
    from airflow_mlops.operators.training.runs import CloseRunsOperator
    from airflow_mlops.operators.training.train import DescribeModelCodeOperator, TrainModelOperator
    from airflow_mlops.operators.training.tune import TuneModelOperator

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
        "AnnounceFeaturesOperator": "airflow_mlops.operators.features.announce",
        "AnswerReasonsOperator": "airflow_mlops.operators.retraining",
        "ApplyFeaturesOperator": "airflow_mlops.operators.features.apply",
        "CloseRunsOperator": "airflow_mlops.operators.training.runs",
        "CollectReasonsOperator": "airflow_mlops.operators.retraining",
        "ConcludeTrainingOperator": "airflow_mlops.operators.retraining",
        "DecideRetrainingOperator": "airflow_mlops.operators.monitoring.decide",
        "DescribeModelCodeOperator": "airflow_mlops.operators.training.train",
        "EvaluateChampionOperator": "airflow_mlops.operators.evaluation.evaluate",
        "EvaluateModelOperator": "airflow_mlops.operators.evaluation.evaluate",
        "ExtractFeaturesOperator": "airflow_mlops.operators.features.extract",
        "GateModelOperator": "airflow_mlops.operators.evaluation.gate",
        "MLflowModelLink": "airflow_mlops.operators.links",
        "MLflowReportLink": "airflow_mlops.operators.links",
        "MLflowRunLink": "airflow_mlops.operators.links",
        "MaterializeFeaturesOperator": "airflow_mlops.operators.features.apply",
        "MeasurePerformanceOperator": "airflow_mlops.operators.monitoring.performance",
        "ModelCodeOperator": "airflow_mlops.operators.model_code",
        "MonitoringOperator": "airflow_mlops.operators.monitoring.windows",
        "PlanBatchOperator": "airflow_mlops.operators.delivery",
        "PredictBatchOperator": "airflow_mlops.operators.delivery",
        "PrepareFeaturesOperator": "airflow_mlops.operators.features.transform",
        "ProfileInputsOperator": "airflow_mlops.operators.monitoring.profile",
        "ProvisionDatasetOperator": "airflow_mlops.operators.datasets.provision",
        "PublishFeaturesOperator": "airflow_mlops.operators.features.publish",
        "RaiseAlarmOperator": "airflow_mlops.operators.monitoring.alarm",
        "ReapJobsOperator": "airflow_mlops.operators.maintenance",
        "RearmOperator": "airflow_mlops.operators.retraining",
        "ReasonsOperator": "airflow_mlops.operators.retraining",
        "RegisterModelOperator": "airflow_mlops.operators.registration",
        "SplitDatasetOperator": "airflow_mlops.operators.datasets.split",
        "TestModelOperator": "airflow_mlops.operators.evaluation.evaluate",
        "TrainModelOperator": "airflow_mlops.operators.training.train",
        "TrainedModelOperator": "airflow_mlops.operators.evaluation.evaluate",
        "TransformFeaturesOperator": "airflow_mlops.operators.features.transform",
        "TuneModelOperator": "airflow_mlops.operators.training.tune",
        "ValidateDatasetOperator": "airflow_mlops.operators.datasets.validate",
    }
)
