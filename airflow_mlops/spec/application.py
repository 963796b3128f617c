"""``ApplicationSpec``: the whole file, the model code, and the checks that need two sections."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from airflow_mlops.spec.code import Code
from airflow_mlops.spec.data.provisioning import Provisioning
from airflow_mlops.spec.delivery import Delivery
from airflow_mlops.spec.evaluation import Evaluation
from airflow_mlops.spec.monitoring import LOSSES, Monitoring
from airflow_mlops.spec.registration import Registration
from airflow_mlops.spec.retraining import Retraining
from airflow_mlops.spec.store import StoreUri
from airflow_mlops.spec.training.training import Training
from airflow_mlops.spec.values import (
    ApplicationName,
    ConnectionId,
    Document,
    Flag,
    FreeText,
    Label,
    PositiveDuration,
    Section,
    Text,
    complaint,
    duration,
    section,
    unstated,
)

Paradigm = Literal[
    "classification", "regression", "ranking", "clustering", "anomaly", "reinforcement", "other"
]
SUPERVISED = ("classification", "regression", "ranking")


class Tracking(Section):
    """Where runs, metrics and models are recorded."""

    connection: ConnectionId = Field(
        default="mlflow_default", description="Airflow connection of type mlflow."
    )
    experiment: Text = Field(
        default="",
        description="MLflow experiment. Default: the application's name.",
        json_schema_extra=unstated,
    )
    system_metrics: Flag = Field(
        default=True, description="Log CPU, memory and GPUs of the training while it runs, every 10 seconds."
    )


class ApplicationSpec(Document):
    """One machine-learning application, as its YAML file and the defaults of its folder describe it."""

    application: ApplicationName = Field(
        description="Unique name: a lower-case letter, then letters, digits and underscores; prefix of all DAGs."
    )
    description: FreeText = Field(
        default="", description="One sentence for people: what is predicted, for whom."
    )
    owner: Label = Field(default="airflow", description="Owner of the DAGs.")
    task_timeout: PositiveDuration = Field(
        default=duration("6h"),
        description="How long a task may be at work on a worker; a job of model code has training.timeout for itself.",
    )
    tags: tuple[Label, ...] = Field(default=(), description="Tags of the DAGs.")
    paradigm: Paradigm = Field(
        default="classification",
        description="What kind of learning this is; decides whether there must be a target, what the gate can "
        "measure, and which losses make sense.",
    )
    store: StoreUri = Field(
        description="Where datasets, predictions and reports are kept: s3://bucket/prefix, or "
        "s3://connection@bucket/prefix for another Airflow connection than aws_default; or a folder (or file:// "
        "URL) that all workers share, relative to the file that names it. Usually written in defaults.yaml."
    )
    tracking: Tracking = section("MLflow.")
    code: Code = Field(description="The model code.")
    provisioning: Provisioning = Field(description="How a dataset is made.")
    training: Training = section("How a model is trained.")
    evaluation: Evaluation = section("What a model must reach to be registered.")
    registration: Registration = section("Under which name a model is registered.")
    delivery: tuple[Delivery, ...] = Field(
        default=(), description="Where the champion is put to use; one item a form."
    )
    monitoring: Monitoring = section("How data and predictions are watched.")
    retraining: Retraining = section("What starts a training.")

    @field_validator("application")
    @classmethod
    def _not_reserved(cls, value: str) -> str:
        if value == "features":
            raise complaint(
                "is the name under which the store keeps feature pipelines", cure="give it another name"
            )
        return value

    @field_validator("tracking")
    @classmethod
    def _experiment(cls, value: Tracking, info: ValidationInfo) -> Tracking:
        name = info.data.get("application", "")
        return value if value.experiment else value.model_copy(update={"experiment": name})

    @field_validator("registration")
    @classmethod
    def _model(cls, value: Registration, info: ValidationInfo) -> Registration:
        name = info.data.get("application", "")
        return value if value.model else value.model_copy(update={"model": name})

    @field_validator("code")
    @classmethod
    def _some_code(cls, value: Code) -> Code:
        if value.image is None and value.process is None:
            raise complaint(
                "names no model code",
                expected="image, or process with directory and command",
                cure="add image: my-model:1.0.0",
            )
        return value

    @field_validator("provisioning")
    @classmethod
    def _something_to_learn(cls, value: Provisioning, info: ValidationInfo) -> Provisioning:
        paradigm = info.data.get("paradigm")
        if paradigm in SUPERVISED and not value.examples.targets:
            raise complaint(
                f"are missing, and paradigm: {paradigm} learns from them",
                expected="the name of one column",
                cure="add targets: [column], or write another paradigm, such as clustering",
                at=("examples", "targets"),
            )
        return value

    @field_validator("training")
    @classmethod
    def _where_it_runs(cls, value: Training, info: ValidationInfo) -> Training:
        code: Code | None = info.data.get("code")
        if code is None:
            return value
        if "run_on" not in value.model_fields_set:
            value = value.model_copy(update={"run_on": "docker" if code.image else "process"})
        if value.run_on == "process" and value.resources.gpus:
            raise complaint(
                "cannot be kept for one job on run_on: process, whose jobs see all GPUs of the machine",
                cure="write gpus: 0, or run_on: docker",
                at=("resources", "gpus"),
            )
        needed, got = ("process", code.process) if value.run_on == "process" else ("image", code.image)
        if got is None:
            other = "docker" if value.run_on == "process" else "process"
            raise complaint(
                f"is {value.run_on}, but code.{needed} is missing",
                cure=f"add code.{needed}, or write run_on: {other}",
                at=("run_on",),
            )
        return _staged(value, info.data.get("store", "s3://"))

    @field_validator("delivery")
    @classmethod
    def _each_form_once(cls, value: tuple[Delivery, ...]) -> tuple[Delivery, ...]:
        if len(value) > 1:
            raise complaint("has batch twice", expected="each form once", cure="keep one", at=(1,))
        return value

    @field_validator("monitoring")
    @classmethod
    def _loss_of_paradigm(cls, value: Monitoring, info: ValidationInfo) -> Monitoring:
        paradigm, provisioning = info.data.get("paradigm"), info.data.get("provisioning")
        if paradigm is None or value.performance is None:
            return value
        # A section that is wrong in itself is no missing target.
        labelled = provisioning is None or provisioning.examples.targets
        fitting = LOSSES.get(paradigm, ()) if labelled else ()
        stated = "performance" in value.model_fields_set
        if not fitting or (paradigm == "other" and not stated):
            return _unmeasured(value, paradigm, stated=stated)
        if value.performance.loss in fitting:
            return value
        if "loss" in value.performance.model_fields_set:
            raise complaint(
                f"does not fit paradigm: {paradigm}",
                expected=" or ".join(fitting),
                cure=f"write loss: {fitting[0]}",
                at=("performance", "loss"),
            )
        return value.model_copy(
            update={"performance": value.performance.model_copy(update={"loss": fitting[0]})}
        )


def _staged(value: Training, store: str) -> Training:
    """Where data goes in and out by S3 alone: the place for it, which is the store if nothing else is said.

    :raises PydanticCustomError: neither is on S3.
    """
    options: Any = getattr(value, value.run_on, None)
    if not hasattr(options, "staging"):
        return value
    staging = options.staging or store
    if not staging.startswith("s3://"):
        raise complaint(
            f"must be on S3, through which jobs of {value.run_on} get their data",
            expected="s3://bucket/prefix, or s3://connection@bucket/prefix",
            cure="add staging: s3://my-bucket/staging, or put the store on S3",
            at=(value.run_on, "staging"),
        )
    return value.model_copy(update={value.run_on: options.model_copy(update={"staging": staging})})


def _unmeasured(value: Monitoring, paradigm: str, *, stated: bool) -> Monitoring:
    """Monitoring without performance.

    :raises PydanticCustomError: somebody asked for it.
    """
    if stated:
        raise complaint(
            "has nothing to compare with"
            if paradigm in LOSSES
            else f"knows no loss of one prediction for paradigm: {paradigm}",
            expected="provisioning.examples.targets" if paradigm in LOSSES else "null",
            cure="write performance: null, or leave it out",
            at=("performance",),
        )
    return value.model_copy(update={"performance": None})
