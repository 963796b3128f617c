"""Apply, copy and wait as tasks of a real DAG: the memory of what was copied is Airflow's."""

from __future__ import annotations

import json

import pytest

from tests.fixtures.feast_store import at, land, service, view

pytestmark = pytest.mark.airflow

DAG = """
from datetime import timedelta
from airflow.sdk import DAG
from airflow_mlops.operators.features.apply import ApplyFeaturesOperator, MaterializeFeaturesOperator
from airflow_mlops.sensors.provisioning import FeaturesFreshSensor

tries = dict(retries=3, retry_delay=timedelta(seconds=1))
with DAG("online_weather", schedule=None, is_paused_upon_creation=False, default_args=tries, params={{"end": "{end}"}}):
    waits = dict(service="weather_v1", max_age="90m", at="{at}", feast_conn_id="feast_weather", poke_interval=2)
    (
        ApplyFeaturesOperator(task_id="apply", definitions={definitions}, feast_conn_id="feast_weather")
        >> [
            FeaturesFreshSensor(task_id="rescheduled", **waits),
            FeaturesFreshSensor(task_id="deferred", deferrable=True, **waits),
        ]
        >> MaterializeFeaturesOperator(
            task_id="materialize", views=["weather"], feast_conn_id="feast_weather", end="{{{{ params.end }}}}"
        )
    )
"""


def test_a_dag_keeps_the_online_store_up_to_date(airflow, tmp_path):
    home, client = tmp_path, airflow.client
    data = land(home / "data", [("A", 1, 1, 11.0, 1)])
    extra = {
        "project": "weather",
        "registry": f"sqlite:///{home}/registry.db",
        "online_store": {"type": "sqlite", "path": f"{home}/online.db"},
    }
    connection = {"connection_id": "feast_weather", "conn_type": "feast", "extra": json.dumps(extra)}
    client.call("POST", "/connections", connection)
    file = airflow.settings.dags / "online_weather.py"
    definitions = [view(data), service()]
    file.write_text(DAG.format(definitions=definitions, at=at(6).isoformat(), end=at(6).isoformat()))
    try:
        airflow.until("the DAG", lambda: "online_weather" in airflow.dag_ids())
        run = client.trigger("online_weather", {})

        def waiting():
            states = client.tasks("online_weather", run)
            return (states["rescheduled"], states["deferred"]) == ("up_for_reschedule", "deferred") or None

        airflow.until("both sensors wait without a slot", waiting)
        land(data, [("A", 5, 5, 15.0, 5)], "b")
        assert airflow.finish("online_weather", run) == "success"
        windows = client.xcom("online_weather", run, "materialize")["views"]
        assert (windows["weather"]["start"], windows["weather"]["end"]) == (
            at(4).isoformat(),
            at(6).isoformat(),
        )

        land(data, [("A", 6.5, 6.5, 16.0, 6)], "c")
        again = client.trigger("online_weather", {"end": at(7).isoformat()})
        assert airflow.finish("online_weather", again) == "success"
        windows = client.xcom("online_weather", again, "materialize")["views"]
        assert (windows["weather"]["start"], windows["weather"]["end"]) == (
            at(6).isoformat(),
            at(7).isoformat(),
        )
        assert client.xcom("online_weather", again, "apply")["changes"] == []
    finally:
        file.unlink()
