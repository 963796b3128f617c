"""Model code as a process of the worker's machine; it has no section of its own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

from airflow_mlops.spec.places.place import Gpus, Place


class ProcessOptions(Place):
    """A process of the worker's machine."""

    runs: ClassVar[str] = "process"
    gpus: ClassVar[Gpus] = Gpus(
        (),
        "cannot be kept for one job on run_on: {run_on}, whose jobs see all GPUs of the machine",
        cure="write gpus: 0, or run_on: docker",
    )

    def runner(self, jobs: str, time_limit: timedelta) -> dict[str, Any]:  # noqa: ARG002
        """See :meth:`.Place.runner`."""
        return {"kind": "process", "root": jobs}
