"""``training.resources``: what each container may use, GPUs included."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from airflow_mlops.spec.values import Number, Section, Size, WholeNumber, complaint, no_doubles, size

_MOST = 64
_UUID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./=\-]{0,199}")
_EXPECTED = "a number, all, a list of UUIDs, or {type: H100, count: 2}"


def _gpus(value: Any) -> Any:
    if isinstance(value, dict):
        return _of_type(value)
    if isinstance(value, (list, tuple)):
        for number, uuid in enumerate(value):
            if not isinstance(uuid, str) or not _UUID.fullmatch(uuid):
                raise complaint(
                    "is no UUID of a GPU",
                    expected="as nvidia-smi -L says it",
                    cure="copy it from nvidia-smi -L",
                    at=(number,),
                )
        if not value:
            raise complaint("names no GPU", expected=_EXPECTED, cure="write gpus: 0 for none")
        return no_doubles(tuple(value))
    if value == "all" or (type(value) is int and 0 <= value <= _MOST):
        return value
    raise complaint(
        "is not a request for GPUs", expected=f"{_EXPECTED}; at most {_MOST}", cure="write gpus: 1"
    )


def _of_type(value: dict[Any, Any]) -> dict[str, Any]:
    kind, count = value.get("type"), value.get("count", 1)
    if not isinstance(kind, str) or not kind.strip():
        raise complaint(
            "needs a part of the type's name",
            expected="as nvidia-smi -L says it",
            cure="write type: H100",
            at=("type",),
        )
    if type(count) is not int or not 1 <= count <= _MOST:
        raise complaint(
            "is no number of GPUs", expected=f"1 to {_MOST}", cure="write count: 1", at=("count",)
        )
    if unknown := [str(key) for key in value if key not in ("type", "count")]:
        raise complaint("is unknown", expected="type and count", cure="remove it", at=(unknown[0],))
    return {"type": kind, "count": count}


Gpus = Annotated[
    int | str | tuple[str, ...] | dict[str, str | int],
    BeforeValidator(_gpus),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": _MOST},
                {"const": "all"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True},
                {
                    "type": "object",
                    "properties": {
                        "type": {"type": "string"},
                        "count": {"type": "integer", "minimum": 1, "maximum": _MOST},
                    },
                    "required": ["type"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
"""What a job asks for: a number, ``all``, UUIDs, or GPUs of a type."""


class TrainingResources(Section):
    """Limits of each container."""

    cpus: Number | None = Field(
        default=None, gt=0, le=4096, description="CPU cores, fractions allowed; null: no limit."
    )
    memory: Size = Field(default=size("4g"), description="Memory, swap included.")
    shm: Size = Field(default=size("64m"), description="Shared memory (/dev/shm).")
    pids: WholeNumber = Field(default=512, ge=1, le=4194304, description="Most processes and threads.")
    disk: Size = Field(
        default=size("20g"),
        description="What a job may write to the disk of its machine, beside its inputs. For run_on: "
        "docker and process.",
    )
    gpus: Gpus = Field(
        default=0,
        description="GPUs that a job has for itself: a number, all, a list of UUIDs, or {type: H100, count: 2}. "
        "`describe` gets none.",
    )

    def limits(self) -> dict[str, Any]:
        """The limits as JSON values, sizes in bytes."""
        values = self.model_dump()
        return {**values, "gpus": list(values["gpus"])} if isinstance(self.gpus, tuple) else values
