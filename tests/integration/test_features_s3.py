"""A feature pipeline whose store, source and training set are on S3: its own tasks, one after the other, and Feast."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_mlops.cli import main
from airflow_mlops.factories import build_dags
from airflow_mlops.hooks.feast.hook import FeastHook
from airflow_mlops.operators.datasets.provision import ProvisionDatasetOperator
from airflow_mlops.operators.datasets.split import SplitDatasetOperator
from airflow_mlops.operators.datasets.validate import ValidateDatasetOperator
from airflow_mlops.spec import load_features
from tests.fixtures.feast_store import connect, inline
from tests.fixtures.features import observed, task_context

SQL = "SELECT station, seen, temp, temp * 1.8 + 32 AS fahrenheit FROM extracted"
ASKED = (
    "SELECT * FROM (VALUES (0, 'n', TIMESTAMPTZ '2026-01-01 01:30:00+00'), (1, 's', TIMESTAMPTZ "
    "'2026-01-01 01:30:00+00'), (2, 'n', TIMESTAMPTZ '2026-01-02 05:00:00+00')) t(__row, station, event_timestamp)"
)


class Run:
    """The tasks of one run of the DAG that the YAML makes, rendered and carried out as Airflow would."""

    def __init__(self, spec: Any, number: int) -> None:
        (self.dag,) = build_dags(spec).values()
        self.number, self.done = number, {}

    def __call__(self, task_id: str) -> Any:
        task = self.dag.get_task(task_id)
        context = {**task_context(f"run{self.number}", task_id), "params": self.dag.params.dump()}
        context["ti"].xcom_pull = lambda task_ids, default=None, **_: self.done.get(task_ids, default)
        task.render_template_fields(context)
        self.done[task_id] = task.execute(context)
        return self.done[task_id]


def known_stations(bucket: str, name: str = "stations") -> dict[str, Any]:
    """An assumption that reads a file on S3, which nothing else looks for."""
    return {"column": "station", "found_in": {"csv": f"s3://lake@{bucket}/{name}.csv", "column": "code"}}


@pytest.fixture
def land(s3_server, s3_bucket, tmp_path):
    def land(name: str, rows: str) -> None:
        file = observed(tmp_path / f"{name}.parquet", rows)
        s3_server.client().upload_file(str(file), s3_bucket, f"in/{name}.parquet")

    return land


@pytest.fixture
def run(s3_server, s3_bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", s3_server.connection_json)
    # Whatever goes by another connection than the one that is named is refused.
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", s3_server.with_secret("wrong").connection_json)
    known = b"code\nn\ns\n"
    s3_server.client().put_object(Bucket=s3_bucket, Key="stations.csv", Body=known)
    connect(monkeypatch, **inline(tmp_path))
    numbers = iter(range(100))

    def run(features: dict[str, str], sql: str = SQL) -> Run:
        value = {
            "features": "weather",
            "store": f"s3://lake@{s3_bucket}/mlops",
            "extract": {"files": f"s3://lake@{s3_bucket}/in/*.parquet", "watermark": "seen"},
            "transform": {"sql": sql},
            "assumptions": [known_stations(s3_bucket)],
            "publish": {"timestamp": "seen", "partition": "day"},
            "views": [{"entities": {"station": "string"}, "ttl": "4h", "features": features}],
            "services": {"warm_v1": ["weather"]},
        }
        (tmp_path / "weather.yaml").write_text(json.dumps(value))
        return Run(load_features(tmp_path / "weather.yaml"), next(numbers))

    return run


def joined(folder, column="fahrenheit"):
    found = FeastHook().training_set("warm_v1", ASKED, folder / "set.parquet")
    table = pq.read_table(found.path, columns=["__row", column]).sort_by("__row")
    assert not [text for view in found.views for text in view.get("paths", ()) if "lake@" in text]
    return table[column].to_pylist()


def provision(bucket: str, folder: Path, stations: str = "stations") -> dict[str, Any]:
    """A dataset of examples in a file here and features on S3, whose assumption reads S3 as well."""
    asked = (
        "(0, 'n', TIMESTAMPTZ '2026-01-01 01:30:00+00', 1), (1, 's', TIMESTAMPTZ '2026-01-02 05:00:00+00', 0)"
    )
    observed(folder / "asked.parquet", asked, "id, station, asked, rained")
    examples = {"keys": ["id"], "timestamp": "asked", "targets": ["rained"]}
    return ProvisionDatasetOperator(
        task_id="provision",
        application="app",
        store=f"s3://lake@{bucket}/mlops",
        examples={"folder": str(folder), "parquet": "asked.parquet", **examples},
        features="warm_v1",
        assumptions=[known_stations(bucket, stations)],
    ).execute({})


def test_from_a_bucket_to_a_training_set_and_back(run, land, tmp_path, s3_bucket, capsys):
    first = run({"fahrenheit": "float64"})
    with pytest.raises(
        AirflowSkipException, match="Nothing is published of weather yet: its views are applied"
    ):
        first("apply")
    land(
        "a",
        "('n', TIMESTAMPTZ '2026-01-01 00:00:00+00', 10.0), ('s', TIMESTAMPTZ '2026-01-01 01:00:00+00', 20.0)",
    )
    for task_id in ("extract", "transform", "publish"):
        first(task_id)
    assert {change["name"] for change in first("apply")["changes"]} == {"station", "weather", "warm_v1"}
    assert joined(tmp_path) == [50.0, 68.0, None]

    # Nothing new at the source; what was changed in the file is applied all the same, if there are rows for it.
    idle = run({"fahrenheit": "float64"})
    land("a", "('n', TIMESTAMPTZ '2025-01-01 00:00:00+00', 10.0)")
    with pytest.raises(AirflowSkipException, match="has no row where seen lies from 2026-01-01T01:00"):
        idle("extract")
    assert idle("apply")["changes"] == []
    assert [
        change["name"] for change in run({"fahrenheit": "float64", "temp": "float64"})("apply")["changes"]
    ] == [
        "weather",
        "warm_v1",
    ]
    assert joined(tmp_path, "temp") == [10.0, 20.0, None]
    later = {"fahrenheit": "float64", "temp": "float64", "kelvin": "float64"}
    with pytest.raises(
        AirflowSkipException, match="No published row of weather has kelvin, which the view weather"
    ):
        run(later)("apply")

    # New rows, and a column more of them.
    land("b", "('n', TIMESTAMPTZ '2026-01-02 04:00:00+00', 30.0)")
    wrong = run(later)
    for task_id in ("extract", "transform", "publish"):
        wrong(task_id)
    with pytest.raises(
        AirflowFailException, match="has kelvin, and the published rows have not; they have station"
    ):
        wrong("apply")
    assert joined(tmp_path) == [50.0, 68.0, 86.0]

    # A dataset of them, and the same one again.
    made = provision(s3_bucket, tmp_path)
    with pytest.raises(AirflowFailException, match=r"none\.csv cannot be read"):
        provision(s3_bucket, tmp_path, "none")
    again = {"application": "app", "store": f"s3://lake@{s3_bucket}/mlops", "dataset": made}
    rules = [known_stations(s3_bucket)]
    assert ValidateDatasetOperator(task_id="validate", assumptions=rules, **again).execute({})["passed"]
    halves = {"by": "time", "train": 0.5, "test": 0.5}
    split = SplitDatasetOperator(task_id="split", split=halves, assumptions=rules, line="halves", **again)
    assert split.execute({})["splits"] == {"train": 1, "test": 1}
    capsys.readouterr()
    words = ["--store", f"s3://lake@{s3_bucket}/mlops", "--application", "app", "--json"]
    assert main(["dataset", "rebuild", made["dataset_id"], *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["problem"], found["notes"], found["rebuilt_id"]) == (None, [], made["dataset_id"])
    assert [source["state"] for source in found["sources"]] == ["same"] * 3
