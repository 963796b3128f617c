"""``training:``: how and where a model is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, JsonValue, StringConstraints, ValidationInfo, create_model, field_validator

from airflow_mlops.spec.places import PLACES, Place
from airflow_mlops.spec.training.distributed import Distributed
from airflow_mlops.spec.training.resources import TrainingResources
from airflow_mlops.spec.training.tuning import Tuning
from airflow_mlops.spec.values import (
    ConnectionId,
    Duration,
    Flag,
    Label,
    PositiveDuration,
    Section,
    Text,
    WholeNumber,
    duration,
    section,
    unstated,
)

SecretName = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z][A-Za-z0-9_]{0,62}$")]


if TYPE_CHECKING:
    from airflow_mlops.spec.places.docker import DockerOptions

    class _Placed(Section):
        run_on: str
        docker: DockerOptions

else:
    _Placed = create_model(
        "_Placed",
        __base__=Section,
        run_on=(
            Literal[tuple(PLACES)],
            Field(
                default="docker",
                description="Where model code runs. Default: docker when code.image is given, else process.",
                json_schema_extra=unstated,
            ),
        ),
        **{name: (place, section(place.about)) for name, place in PLACES.items() if place.model_fields},
    )


class Training(_Placed):
    """How and where a model is trained."""

    resources: TrainingResources = section("Limits of each container.")
    parameters: dict[Text, JsonValue] = Field(
        default={}, description="Parameters of the model code, checked against what it describes."
    )
    distributed: Distributed = section("Several processes that train one model.")
    tuning: Tuning | None = Field(
        default=None, description="Search good parameters first; null: train with those given."
    )
    secrets: dict[SecretName, ConnectionId] = Field(
        default={},
        description="What the model code must know and nobody else: name → Airflow connection. It finds each as "
        "input/secrets/<name>.json.",
    )
    pool: Label | None = Field(
        default=None,
        description="Airflow pool of the tasks that run model code; with `include deferred` it bounds how many jobs "
        "there are at once.",
    )
    pool_slots: WholeNumber = Field(default=1, ge=1, le=1000, description="Slots of it that one job takes.")
    seed: WholeNumber = Field(default=0, ge=0, le=2**32 - 1, description="Seed of all randomness.")
    timeout: PositiveDuration = Field(
        default=duration("2h"), description="Longest time of one job: one command of the model code, once."
    )
    stall_timeout: PositiveDuration | None = Field(
        default=None,
        description="Longest time without a line of output, after which a job is taken for hung; null: none.",
    )
    retries: WholeNumber = Field(
        default=2, ge=0, le=100, description="Tries after the first, of every task of the application."
    )
    retry_delay: Duration = Field(default=duration("1m"), description="Pause between tries.")
    deferrable: Flag = Field(default=True, description="Wait in the triggerer instead of holding a worker.")

    @property
    def place(self) -> Place:
        """The section of the place where jobs run."""
        return getattr(self, self.run_on, None) or PLACES[self.run_on]()

    def at(self, run_on: str, **more: Any) -> Training:
        """The same training in another place.

        :param more: other keys that change.
        """
        return self.model_copy(update={"run_on": run_on, **more})

    @field_validator(*(name for name, place in PLACES.items() if place.needs))
    @classmethod
    def _what_the_place_needs(cls, value: Place, info: ValidationInfo) -> Place:
        if info.data.get("run_on") == info.field_name:
            value.check_needs(str(info.field_name))
        return value

    @field_validator("resources")
    @classmethod
    def _gpus_of_the_place(cls, value: TrainingResources, info: ValidationInfo) -> TrainingResources:
        if run_on := info.data.get("run_on"):
            PLACES[run_on].gpus.check(value.limits()["gpus"], run_on)
        return value

    @field_validator("secrets")
    @classmethod
    def _secrets_that_stay_secret(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        if run_on := info.data.get("run_on"):
            PLACES[run_on].check_secrets(value, run_on)
        return value

    @field_validator("distributed")
    @classmethod
    def _machines_of_the_place(cls, value: Distributed, info: ValidationInfo) -> Distributed:
        if run_on := info.data.get("run_on"):
            several = [name for name, place in PLACES.items() if place.machines]
            PLACES[run_on].check_machines(value.nodes, run_on, several)
        return value
