"""``ApplicationSpec``: the whole file, the model code, and the checks that need two sections."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from airflow_mlops.spec.delivery import Delivery
from airflow_mlops.spec.evaluation import Evaluation
from airflow_mlops.spec.monitoring import LOSSES, Monitoring
from airflow_mlops.spec.provisioning import Provisioning
from airflow_mlops.spec.registration import Registration
from airflow_mlops.spec.retraining import Retraining
from airflow_mlops.spec.store import StoreUri
from airflow_mlops.spec.training import Training
from airflow_mlops.spec.values import (
    ApplicationName,
    ConnectionId,
    Document,
    FolderPath,
    FreeText,
    ImageReference,
    Label,
    Section,
    Text,
    complaint,
    section,
    unstated,
)


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


class ProcessCode(Section):
    """Model code that runs as a process of the worker (``run_on: process``)."""

    directory: FolderPath = Field(description="Folder in which the command starts; relative to this file.")
    command: tuple[Text, ...] = Field(
        min_length=1,
        description="Command line in front of the contract's word; `python` is the worker's own interpreter.",
    )


class Code(Section):
    """The model code: an image, a command line, or both."""

    image: ImageReference | None = Field(
        default=None, description="Image with the label ai.airflow-mlops.contract=1, for run_on: docker."
    )
    process: ProcessCode | None = Field(default=None, description="Command line, for run_on: process.")


class ApplicationSpec(Document):
    """One machine-learning application, as its YAML file and the defaults of its folder describe it."""

    application: ApplicationName = Field(
        description="Unique name: a lower-case letter, then letters, digits and underscores; prefix of all DAGs."
    )
    description: FreeText = Field(
        default="", description="One sentence for people: what is predicted, for whom."
    )
    owner: Label = Field(default="airflow", description="Owner of the DAGs.")
    tags: tuple[Label, ...] = Field(default=(), description="Tags of the DAGs.")
    paradigm: Literal["classification", "regression"] = Field(
        default="classification",
        description="What kind of learning this is; decides which losses make sense.",
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

    @field_validator("training")
    @classmethod
    def _where_it_runs(cls, value: Training, info: ValidationInfo) -> Training:
        code: Code | None = info.data.get("code")
        if code is None:
            return value
        if "run_on" not in value.model_fields_set:
            return value.model_copy(update={"run_on": "docker" if code.image else "process"})
        needed, got = ("image", code.image) if value.run_on == "docker" else ("process", code.process)
        if got is None:
            other = "process" if value.run_on == "docker" else "docker"
            raise complaint(
                f"is {value.run_on}, but code.{needed} is missing",
                cure=f"add code.{needed}, or write run_on: {other}",
                at=("run_on",),
            )
        return value

    @field_validator("delivery")
    @classmethod
    def _each_form_once(cls, value: tuple[Delivery, ...]) -> tuple[Delivery, ...]:
        if len(value) > 1:
            raise complaint("has batch twice", expected="each form once", cure="keep one", at=(1,))
        return value

    @field_validator("monitoring")
    @classmethod
    def _loss_of_paradigm(cls, value: Monitoring, info: ValidationInfo) -> Monitoring:
        paradigm = info.data.get("paradigm")
        if paradigm is None or value.performance.loss in LOSSES[paradigm]:
            return value
        fitting = LOSSES[paradigm]
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
