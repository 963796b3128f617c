"""
The source of the flights example: one month's schedule, or its outcomes, arrive in a folder.

These two DAGs stand for whatever delivers data in your company. They are written by hand and know nothing of
machine learning: each lands files, then updates its asset, and the applications in ``applications/`` wake up.
Trigger them month by month, the schedule of a month before its landings. The folder is ``<home>/data``, with the
home from the environment variable ``FLIGHTS_HOME`` or the Airflow variable ``flights_home``.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, Asset, Param, Variable, task

CODE = Path(__file__).resolve().parents[1] / "examples" / "flight_delay" / "flights.py"
MONTHS = [f"2013-{month:02}" for month in range(1, 13)]

scheduled = Asset("flights_scheduled")
landed = Asset("flights_landed")


def _flights():
    """Load the example's data module, which is beside the DAGs and not on the Python path."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("flight_delay_flights", CODE)
    if spec is None or spec.loader is None or not CODE.is_file():
        raise FileNotFoundError(f"{CODE} is missing: keep dags/ and examples/ side by side")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _folder() -> Path:
    home = os.environ.get("FLIGHTS_HOME") or Variable.get("flights_home", default=None)
    if not home:
        raise ValueError(
            "where the flights land is not said: set the environment variable FLIGHTS_HOME, or the Airflow variable "
            "flights_home, to an absolute folder; the files go to its subfolder data/"
        )
    return Path(home) / "data"


def _report(event, month: str, written: list[Path]) -> dict[str, str | int]:
    # A month that is there already updates the asset too: the first try may have died between file and event.
    event.extra = {"month": month, "new_files": len(written)}
    return event.extra


def _arriving(dag_id: str, description: str) -> DAG:
    return DAG(
        dag_id,
        description=description,
        doc_md=__doc__,
        schedule=None,
        catchup=False,
        params={"month": Param(MONTHS[0], type="string", enum=MONTHS, description="the month that arrives")},
        tags=["flight_delay", "source"],
        default_args={
            "owner": "source",
            "retries": 2,
            "retry_delay": timedelta(seconds=10),
            "execution_timeout": timedelta(hours=1),
        },
    )


with _arriving(
    "nyc_flights__schedule", "A month's planned flights arrive, with what was measured until each of them."
) as schedule:

    @task(outlets=[scheduled])
    def land_schedule(*, params, outlet_events):
        """Land the month's examples, without their outcome, and its features."""
        written = _flights().land_schedule(_folder(), params["month"])
        return _report(outlet_events[scheduled], params["month"], written)

    land_schedule()

with _arriving(
    "nyc_flights__landings", "A month's outcomes arrive: how late every flight was, and when that was known."
) as landings:

    @task(outlets=[landed])
    def land_labels(*, params, outlet_events):
        """Land the month's outcomes."""
        written = _flights().land_labels(_folder(), params["month"])
        return _report(outlet_events[landed], params["month"], written)

    land_labels()
