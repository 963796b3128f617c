"""The command of feature pipelines: extracted rows in, rows to publish out."""

from __future__ import annotations

import json

from airflow_mlops.contract import ModelCode, execute
from tests.unit.contract.tiny import Tiny


class Features(ModelCode):
    name, version = "features", "1"
    parameters = {"times": {"type": "integer", "default": 2}}  # noqa: RUF012

    def prepare(self, job):
        rows = [row for path in job.files("extracted") for row in json.loads(path.read_text())]
        doubled = [{**row, "x": row["x"] * job.parameters["times"]} for row in rows if row["x"] < 5]
        if doubled:
            (job.paths.prepared / "rows.parquet").write_text(json.dumps(doubled))


def extracted(paths, *numbers):
    folder = paths.split("extracted")
    folder.mkdir(exist_ok=True)
    (folder / "00000.parquet").write_text(json.dumps([{"x": number} for number in numbers]))


def test_a_class_with_prepare_alone_is_a_feature_pipeline():
    assert Features.commands() == ["describe", "prepare"]
    assert "prepare" not in Tiny.commands()


def test_it_reads_what_was_extracted_and_writes_what_is_published(prepare):
    paths = prepare({"times": 3})
    extracted(paths, 1, 2, 9)
    assert execute(Features, "prepare", paths) == 0
    assert json.loads((paths.prepared / "rows.parquet").read_text()) == [{"x": 3}, {"x": 6}]


def test_what_an_earlier_job_left_is_no_result(prepare):
    paths = prepare()
    extracted(paths, 1)
    assert execute(Features, "prepare", paths) == 0
    extracted(paths, 9)
    assert execute(Features, "prepare", paths) == 1
    assert "prepare wrote no *.parquet" in paths.failure.read_text()
    assert "an empty table" in paths.failure.read_text()
