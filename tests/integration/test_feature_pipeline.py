"""A feature pipeline in a real Airflow: published, told to Feast, shared by two applications, and backfilled."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airflow_mlops.exceptions import MLOpsError
from airflow_mlops.factories.stubs import write_stubs
from airflow_mlops.hooks.store.open import open_store
from airflow_mlops.stores.datasets.versions import DatasetStore

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(900)]

START = datetime(2026, 1, 1, tzinfo=UTC)
OFFLINE = [{"entities": {"station": "string"}, "features": {"fahrenheit": "float64"}}]


def land(folder: Path, name: str, first: int, last: int) -> None:
    """A file of hourly readings at two stations, from one hour to another; each is written ten minutes later."""
    import duckdb

    folder.mkdir(exist_ok=True)
    duckdb.sql(f"""
        SELECT station, TIMESTAMPTZ '{START.isoformat()}' + to_hours(hour::INT) AS time,
               TIMESTAMPTZ '{START.isoformat()}' + to_hours(hour::INT) + to_minutes(10) AS written,
               CASE WHEN station = 'north' THEN hour ELSE -hour END::DOUBLE AS celsius
        FROM range({first}, {last}) hours(hour), (VALUES ('north'), ('south')) stations(station)
    """).write_parquet(str(folder / f"{name}.parquet"))


def pipeline(home: Home, **keys: object) -> str:
    """YAML of the pipeline; JSON is YAML."""
    return json.dumps(
        {
            "features": "readings",
            "store": str(home.store),
            "feature_store": home.feast,
            "retry_delay": "1s",
            "extract": {"files": f"{home.readings}/*.parquet", "watermark": "written"},
            "transform": {
                "sql": "SELECT station, time, written, celsius * 1.8 + 32 AS fahrenheit FROM extracted"
            },
            "assumptions": [{"column": "fahrenheit", "between": [-500, 500]}],
            "publish": {"timestamp": "time", "created": "written", "partition": "day"},
            "views": [
                {
                    "entities": {"station": "string"},
                    "ttl": "3h",
                    "features": {"fahrenheit": "float64"},
                    "online": True,
                }
            ],
            "services": {"warm_v1": ["readings"], "cold_v1": ["readings"]},
            **keys,
        },
        indent=1,
    )


def application(name: str, service: str, home: Home) -> str:
    return json.dumps(
        {
            "application": name,
            "code": {"image": "none:1"},
            "provisioning": {
                "features": service,
                "feature_store": home.feast,
                "examples": {
                    "folder": str(home.examples),
                    "parquet": "*.parquet",
                    "keys": ["id", "station"],
                    "timestamp": "asked_at",
                    "targets": ["answer"],
                },
                "schedule": {"assets": ["readings.features"]},
            },
            "training": {"retry_delay": "1s"},
        }
    )


def ask(folder: Path, hours: int) -> None:
    """Examples: each hour, half past, about both stations in turn."""
    import duckdb

    folder.mkdir(exist_ok=True)
    duckdb.sql(f"""
        SELECT hour AS id, CASE WHEN hour % 2 = 0 THEN 'north' ELSE 'south' END AS station,
               TIMESTAMPTZ '{START.isoformat()}' + to_hours(hour::INT) + to_minutes(30) AS asked_at,
               hour % 3 AS answer
        FROM range({hours}) hours(hour)
    """).write_parquet(str(folder / "examples.parquet"))


class Home:
    """The folders of one test, and its YAML files in Airflow's."""

    def __init__(self, airflow, folder: Path) -> None:
        self.airflow, self.folder = airflow, folder
        self.readings, self.examples, self.store = folder / "in", folder / "examples", airflow.store
        self.features = airflow.settings.dags / "features"
        self.features.mkdir(exist_ok=True)
        self.feast = f"feast_{folder.name}"

    def add(self, name: str, text: str) -> None:
        (self.features / f"{name}.yaml").write_text(text)
        write_stubs(self.features)
        (self.features / f"{name}.py").touch()

    def run(self, dag_id: str, conf: dict | None = None) -> str:
        self.airflow.until(f"DAG {dag_id}", lambda: dag_id in self.airflow.dag_ids())
        run_id = self.airflow.client.trigger(dag_id, conf or {})
        assert self.airflow.finish(dag_id, run_id) == "success", self.airflow.client.tasks(dag_id, run_id)
        return run_id

    def provisioned(self, application: str, number: int) -> list[dict]:
        """What the application's provisioning made, oldest first, once it has run so often."""
        dag_id = f"{application}__provisioning"

        def look():
            runs = self.airflow.client.runs(dag_id)
            over = [run for run in runs if run["state"] in ("success", "failed")]
            return over[::-1] if len(over) == len(runs) >= number else None

        runs = self.airflow.until(f"{number} run(s) of {dag_id}", look)
        assert {run["state"] for run in runs} == {"success"}
        return [self.airflow.client.xcom(dag_id, run["dag_run_id"], "provision") for run in runs]

    def joined(self, application: str, dataset: dict) -> dict[int, float | None]:
        """Example → feature, as a training would read it."""
        import duckdb

        datasets = DatasetStore(open_store(dataset["store"]), application)
        files = [
            str(path)
            for split in dataset["splits"]
            for path in datasets.fetch(dataset["dataset_id"], self.folder / dataset["dataset_id"])[split]
        ]
        return dict(duckdb.sql(f"SELECT id, fahrenheit FROM read_parquet({files})").fetchall())


@pytest.fixture
def home(airflow, tmp_path):
    home = Home(airflow, tmp_path)
    extra = {
        "project": "pipelines",
        "registry": {"registry_type": "sql", "path": f"sqlite:///{tmp_path}/registry.db"},
        "online_store": {"type": "sqlite", "path": f"{tmp_path}/online.db"},
    }
    connection = {"connection_id": home.feast, "conn_type": "feast", "extra": json.dumps(extra)}
    airflow.client.call("POST", "/connections", connection)
    yield home
    for file in home.features.iterdir():
        if file.is_file():
            file.unlink()


def test_two_applications_share_what_is_published_once(home, airflow):
    ask(home.examples, 60)
    land(home.readings, "a", 0, 48)
    home.add("readings", pipeline(home))
    broken = pipeline(home, features="broken").replace('"watermark"', '"watermrk"')
    home.add("broken", broken)  # an error of its own, and no harm to the others
    for name, service in (("warm", "warm_v1"), ("cold", "cold_v1")):
        airflow.add(name, application(name, service, home))
        airflow.until(f"DAGs of {name}", lambda name=name: f"{name}__provisioning" in airflow.dag_ids())

    run_id = home.run("readings__features")
    (error,) = airflow.until("import error", airflow.client.import_errors)
    assert error["filename"] == "features/broken.py"
    line = next(number for number, row in enumerate(broken.splitlines(), 1) if "watermrk" in row)
    assert f"broken.yaml:{line}" in error["stack_trace"]
    assert "nearest:  watermark" in error["stack_trace"]
    for file in home.features.glob("broken.*"):
        file.unlink()
    published = airflow.client.xcom("readings__features", run_id, "publish")
    assert (published["rows"], published["new_rows"]) == (96, 96)
    assert published["partitions"] == ["2026-01-01", "2026-01-02"]
    assert airflow.client.tasks("readings__features", run_id) == dict.fromkeys(
        ("extract", "transform", "publish", "apply", "materialize", "announce"), "success"
    )
    first = {}
    for name in ("warm", "cold"):
        (dataset,) = home.provisioned(name, 1)
        first[name] = home.joined(name, dataset)
        assert first[name] == {
            hour: None if hour > 49 else (min(hour, 47) if hour % 2 == 0 else -min(hour, 47)) * 1.8 + 32
            for hour in range(60)
        }

    # What came since, and what had been there: only the former is added, and everybody is woken once.
    land(home.readings, "b", 46, 60)
    run_id = home.run("readings__features")
    published = airflow.client.xcom("readings__features", run_id, "publish")
    assert (published["rows"], published["new_rows"]) == (120, 24)
    _, dataset = home.provisioned("warm", 2)
    assert home.joined("warm", dataset)[59] == -59 * 1.8 + 32
    assert {hour: value for hour, value in home.joined("warm", dataset).items() if hour < 48} == {
        hour: value for hour, value in first["warm"].items() if hour < 48
    }
    home.provisioned("cold", 2)

    # Nothing new: nobody is woken.
    run_id = home.run("readings__features")
    assert airflow.client.tasks("readings__features", run_id)["announce"] == "skipped"
    asset = airflow.asset("readings.features")
    events = airflow.events(asset)
    assert sorted(event["extra"]["new_rows"] for event in events) == [24, 96]
    assert {event["extra"]["rows"] for event in events} == {96, 120}
    airflow.until("no import error", lambda: not airflow.client.import_errors())


def test_a_backfill_and_the_form_read_exactly_the_intervals_that_they_name(home, airflow):
    land(home.readings, "year", 0, 400)  # the last days are hotter than the assumption allows
    extract = {"files": f"{home.readings}/*.parquet", "watermark": "time", "window": "interval"}
    home.add(
        "days",
        pipeline(
            home,
            features="days",
            extract=extract,
            schedule="0 0 * * *",
            services={},
            views=OFFLINE,
            retries=0,
        ),
    )
    dag_id = "days__features"
    airflow.until("DAG", lambda: dag_id in airflow.dag_ids())
    # Not beside the scheduler's own first run: on SQLite the two lose each other's, and the scheduler ends.
    airflow.until("its first run", lambda: airflow.client.runs(dag_id))
    body = {
        "dag_id": dag_id,
        "from_date": (START + timedelta(days=1)).isoformat(),
        "to_date": (START + timedelta(days=2)).isoformat(),
        "max_active_runs": 1,
    }

    def created():
        try:
            return airflow.client.call("POST", "/backfills", body)
        except MLOpsError as error:  # SQLite lets one write at a time, and this is Airflow's largest
            if "503" not in str(error):
                raise
            return None

    airflow.until("backfill", created)

    def over():
        try:
            runs = [run for run in airflow.client.runs(dag_id) if run["run_type"] == "backfill"]
        except MLOpsError:  # a busy machine: look again
            return None
        done = [run for run in runs if run["state"] in ("success", "failed")]
        return runs if len(done) == len(runs) == 2 else None

    runs = airflow.until("the backfill's runs", over)
    assert {run["state"] for run in runs} == {"success"}
    published = [airflow.client.xcom(dag_id, run["dag_run_id"], "publish") for run in runs]
    # Both ends of an interval belong to it: the hour between the days is read by both, and published once.
    assert sorted(found["new_rows"] for found in published) == [48, 50]
    windows = [airflow.client.xcom(dag_id, run["dag_run_id"], "extract")["window"] for run in runs]
    assert sorted((window["after"], window["until"]) for window in windows) == [
        (f"2026-01-0{day}T00:00:00+00:00", f"2026-01-0{day + 1}T00:00:00+00:00") for day in (2, 3)
    ]

    # One window by hand, from the form; its rows break an assumption, and none of them is published.
    before = (home.store / "features/days/snapshot.json").read_bytes()
    form = {"start": "2026-01-15T00:00:00Z", "end": "2026-01-15T05:00:00Z"}
    run_id = airflow.client.trigger(dag_id, form)
    assert airflow.finish(dag_id, run_id) == "failed"
    assert airflow.client.xcom(dag_id, run_id, "extract")["rows"] == 12
    tasks = airflow.client.tasks(dag_id, run_id)
    assert (tasks["publish"], tasks["apply"]) == ("failed", "upstream_failed")
    assert "between" in airflow.log(dag_id, run_id, "publish")
    assert (home.store / "features/days/snapshot.json").read_bytes() == before
