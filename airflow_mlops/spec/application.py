"""``ApplicationSpec``: the whole file, the model code, and the checks that need two sections."""

from __future__ import annotations

from typing import Literal, TypeVar

from pydantic import Field, ValidationInfo, field_validator

from airflow_mlops.spec.code import Code
from airflow_mlops.spec.data.provisioning import Provisioning
from airflow_mlops.spec.delivery import Delivery, Form, each_once
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
AForm = TypeVar("AForm", bound=Form)


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
            value = value.at("docker" if code.image else "process")
        place, run_on = value.place, value.run_on
        place.gpus.check(value.resources.limits()["gpus"], run_on, "resources")
        if getattr(code, place.runs) is None:
            other = "docker" if place.runs == "process" else "process"
            raise complaint(
                f"is {run_on}, but code.{place.runs} is missing",
                cure=f"add code.{place.runs}, or write run_on: {other}",
                at=("run_on",),
            )
        if not place.staged:
            return value
        return value.at(run_on, **{run_on: place.staged_at(info.data.get("store", "s3://"), run_on)})

    @field_validator("delivery")
    @classmethod
    def _each_form_once(cls, value: tuple[Delivery, ...]) -> tuple[Delivery, ...]:
        each_once(value)
        return value

    def form(self, kind: type[AForm]) -> AForm | None:
        """The form of delivery of this kind, if the application has it."""
        return next((item.form for item in self.delivery if isinstance(item.form, kind)), None)

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
