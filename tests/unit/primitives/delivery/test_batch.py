"""Which examples come next, what their batch is called, and what is recorded of it."""

from __future__ import annotations

import itertools
import json

import pytest

from airflow_mlops.exceptions import DataError
from airflow_mlops.primitives.delivery.batch import PredictionBatch, next_start, overtaken_by, window_id


def batch(start: str, end: str) -> PredictionBatch:
    return PredictionBatch(window_id(start, end), (start, end), 3, "app", "d", "m", "1", "r", "run", end)


@pytest.mark.parametrize(
    ("start", "end", "name"),
    [
        ("2013-03-01T00:00:00+00:00", "2013-04-01T00:00:00Z", "20130301T000000Z-20130401T000000Z"),
        ("2013-03-31T01:30:00+01:00", "2013-03-31T03:30:00+02:00", "20130331T003000Z-20130331T013000Z"),
        (
            "2013-03-01T00:00:00.250000+00:00",
            "2013-03-01T00:00:00.500000Z",
            "20130301T000000Z250000-20130301T000000Z500000",
        ),
    ],
)
def test_a_window_is_named_by_its_times_in_utc(start, end, name):
    assert window_id(start, end) == name


def test_names_differ_and_sort_by_time_within_a_second_too():
    moments = [
        f"2013-03-01T00:00:{second}+00:00" for second in ("00", "00.000001", "00.5", "00.75", "01", "59")
    ]
    names = [window_id(*pair) for pair in itertools.pairwise(moments)]
    assert sorted(set(names)) == names


def test_the_next_batch_begins_where_the_last_one_ended():
    trained_to = "2013-03-01T00:00:00+00:00"
    assert next_start([], trained_to) == trained_to
    batches = [
        batch("2013-03-01T00:00:00+00:00", end)
        for end in ("2013-04-01T00:00:00+00:00", "2013-04-01T00:30:00+01:00")
    ]
    assert next_start(batches, trained_to) == "2013-04-01T00:00:00+00:00"


def test_a_new_champion_does_not_predict_again_what_was_predicted():
    batches = [batch("2013-03-01T00:00:00+00:00", "2013-04-01T00:00:00+00:00")]
    assert next_start(batches, "2013-03-20T00:00:00+00:00") == "2013-04-01T00:00:00+00:00"


def test_a_window_is_overtaken_by_a_later_one_but_not_by_itself_or_earlier_ones():
    months = [f"2013-{month:02}-01T00:00:00+00:00" for month in range(1, 6)]
    batches = [batch(*pair) for pair in itertools.pairwise(months[:4])]
    assert overtaken_by(batches, months[3], months[4]) is None
    assert overtaken_by(batches, months[2], months[3]) is None
    assert overtaken_by(batches, months[2], months[4]) == window_id(months[2], months[3])
    assert overtaken_by(batches, months[0], months[4]) == window_id(months[0], months[1])


#: What the first release that named the file and the report wrote, byte for byte.
WRITTEN = """{
 "application": "flight_delay",
 "dataset_id": "d2",
 "file": "ab12.parquet",
 "model": "flight_delay",
 "model_version": "3",
 "predicted_at": "2013-05-01T06:00:00+00:00",
 "reference": {
  "metrics": [
   {
    "name": "auc",
    "split": "test",
    "value": 0.7
   }
  ]
 },
 "reference_dataset_id": "d1",
 "report": "/store/flight_delay/datasets/assumptions/x.json",
 "rows": 28000,
 "run_id": "r3",
 "window": [
  "2013-04-01T00:00:00+00:00",
  "2013-05-01T00:00:00+00:00"
 ],
 "window_id": "20130401T000000Z-20130501T000000Z"
}"""


class TestRecord:
    def test_it_is_read_and_written_byte_for_byte(self):
        read = PredictionBatch.from_json(json.loads(WRITTEN))
        assert read == PredictionBatch(
            window_id="20130401T000000Z-20130501T000000Z",
            window=("2013-04-01T00:00:00+00:00", "2013-05-01T00:00:00+00:00"),
            rows=28000,
            application="flight_delay",
            dataset_id="d2",
            model="flight_delay",
            model_version="3",
            reference_dataset_id="d1",
            run_id="r3",
            predicted_at="2013-05-01T06:00:00+00:00",
            reference={"metrics": [{"name": "auc", "value": 0.7, "split": "test"}]},
            file="ab12.parquet",
            report="/store/flight_delay/datasets/assumptions/x.json",
        )
        assert read.metrics[0]["value"] == 0.7
        assert read.to_json().decode() == WRITTEN

    def test_one_of_a_release_that_named_no_file_is_read(self):
        document = json.loads(WRITTEN)
        del document["file"], document["report"]
        read = PredictionBatch.from_json(document)
        assert (read.file, read.report, read.rows) == ("", "", 28000)

    def test_one_of_a_later_release_is_read(self):
        assert PredictionBatch.from_json({**json.loads(WRITTEN), "shares": [1]}).rows == 28000

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"rows": "many"}, "rows: expected a whole number, got 'many'"),
            ({"rows": True}, "rows: expected a whole number, got True"),
            ({"window": ["2013-04-01T00:00:00+00:00"]}, "window: expected two times in ISO 8601"),
            ({"window": ["2013-04-01T00:00:00+00:00", "May"]}, "window: expected two times in ISO 8601"),
            ({"predicted_at": 7}, "predicted_at: expected a time in ISO 8601, got 7"),
            ({"model": ["m"] * 1000}, r"model: expected text, got .{80}…\. Cure: restore"),
            ({"reference": "none"}, "reference: expected an object, got 'none'"),
        ],
    )
    def test_one_that_is_damaged_is_refused_with_its_place(self, changes, message):
        with pytest.raises(DataError, match=f"^s3://b/meta.json: {message}"):
            PredictionBatch.from_json({**json.loads(WRITTEN), **changes}, "s3://b/meta.json")

    def test_a_field_that_is_missing_is_named(self):
        document = json.loads(WRITTEN)
        del document["dataset_id"]
        with pytest.raises(
            DataError, match=r"meta\.json: dataset_id is missing, expected text\. Cure: restore"
        ):
            PredictionBatch.from_json(document, "meta.json")

    @pytest.mark.parametrize("document", [None, [], "text"])
    def test_what_is_no_object_is_refused(self, document):
        with pytest.raises(DataError, match="expected a JSON object, got"):
            PredictionBatch.from_json(document)
