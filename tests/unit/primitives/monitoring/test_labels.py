import hashlib
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.exceptions import DataError, SourceError, SpecError
from airflow_mlops.primitives.datasets.examples import Examples
from airflow_mlops.primitives.datasets.query import ExamplesQuery
from airflow_mlops.primitives.monitoring.labels import LabelledPredictions, join_labels, labels_are_complete
from airflow_mlops.primitives.sources.base import LocalSources

START = datetime(2013, 3, 1, tzinfo=UTC)
EXAMPLES = {
    "sql": "SELECT * FROM read_parquet('landed/*.parquet') -- of all months",
    "keys": ["flight_id"],
    "timestamp": "event_timestamp",
    "targets": ["late"],
    "targets_known_at": "known_at",
}


@pytest.fixture
def folder(tmp_path):
    times = [START + timedelta(hours=hour) for hour in range(10)]
    predictions = {
        "flight_id": range(10),
        "event_timestamp": times,
        "prediction": [i / 10 for i in range(10)],
    }
    pq.write_table(
        pa.table(predictions).take([3, 1, 2, 0, 9, 8, 7, 6, 5, 4]), tmp_path / "predictions.parquet"
    )
    (tmp_path / "landed").mkdir()
    write_labels(tmp_path, range(8))
    return tmp_path


def write_labels(folder, ids, name="march", **changes):
    ids = list(ids)
    columns = {
        "flight_id": ids,
        "event_timestamp": [START + timedelta(hours=i) for i in ids],
        "known_at": [START + timedelta(hours=i + 4) for i in ids],
        "late": [i % 2 for i in ids],
    } | changes
    pq.write_table(pa.table(columns), folder / "landed" / f"{name}.parquet")


def join(folder, **changes):
    return join_labels(*given(folder, LocalSources(), **changes))


def given(folder, sources, **changes):
    examples = {**EXAMPLES, "folder": str(folder), **changes}

    def opened(connection):
        Examples.open(connection, ExamplesQuery.from_mapping(examples), sources)

    return folder / "predictions.parquet", examples, opened


SHUFFLED = sorted(range(8), key=lambda i: hashlib.sha256(str(i).encode()).hexdigest())


def test_labels_are_joined_by_key_in_a_published_shuffled_order_from_a_relative_path(folder):
    found = join(folder)
    assert found.prediction.tolist() == [i / 10 for i in SHUFFLED]
    assert found.actual.tolist() == [i % 2 for i in SHUFFLED]
    assert found.rows == 10
    assert found.newest_known == START + timedelta(hours=11)
    assert found.usual_delay == pytest.approx(4 * 3600)


@pytest.mark.parametrize("parquet", ["landed/*.parquet", "landed", "landed/march.parquet"])
def test_files_instead_of_sql_and_booleans_and_unknown_labels(folder, parquet):
    write_labels(folder, range(8), late=pa.array([True, False, None, True, None, False, True, True]))
    found = join(folder, sql=None, parquet=parquet)
    labels = {0: 1, 1: 0, 3: 1, 5: 0, 6: 1, 7: 1}
    assert found.actual.tolist() == [labels[i] for i in SHUFFLED if i in labels]


def test_without_a_time_of_knowing_the_example_itself_counts(folder):
    found = join(folder, targets_known_at=None)
    assert found.newest_known == START + timedelta(hours=7)
    assert found.usual_delay == 0


def test_the_same_key_at_another_time_is_another_example(folder):
    later = [START + timedelta(days=30, hours=i) for i in range(8)]
    write_labels(folder, range(8), name="april", event_timestamp=later, known_at=later, late=[1] * 8)
    found = join(folder)
    assert found.actual.tolist() == [i % 2 for i in SHUFFLED]


def test_of_two_labels_for_one_key_the_newest_counts_and_the_other_is_counted(folder):
    newer = [START + timedelta(days=1, hours=i) for i in range(8)]
    write_labels(folder, range(8), name="again", known_at=newer, late=[1] * 8)
    found = join(folder)
    assert len(found.actual) == 8
    assert set(found.actual.tolist()) == {1.0}
    assert found.replaced == 8


def test_a_label_that_is_nan_is_none(folder):
    write_labels(folder, range(8), late=[float("nan"), *[1.0] * 7])
    found = join(folder)
    assert (len(found.actual), found.rows) == (7, 10)


@pytest.mark.parametrize("name", ["label", "known", "happened", "newest", "n", "k1", "answers", "p"])
@pytest.mark.parametrize("what", ["flight_id", "event_timestamp", "known_at", "late"])
def test_a_column_may_have_any_name(folder, name, what):
    for file in (folder / "landed" / "march.parquet", folder / "predictions.parquet"):
        table = pq.read_table(file)
        pq.write_table(
            table.rename_columns([name if one == what else one for one in table.column_names]), file
        )
    names = {
        key: name if value == what else value for key, value in EXAMPLES.items() if isinstance(value, str)
    }
    lists = {key: [name] if EXAMPLES[key] == [what] else EXAMPLES[key] for key in ("keys", "targets")}
    found = join(folder, **names, **lists)
    assert found.prediction.tolist() == [i / 10 for i in SHUFFLED]
    assert found.actual.tolist() == [i % 2 for i in SHUFFLED]


def test_a_key_that_is_nan_and_one_that_is_null_are_one(folder):
    keys = pa.array([None, *map(float, range(1, 10))])
    table = pq.read_table(folder / "predictions.parquet").sort_by("flight_id")
    pq.write_table(table.set_column(0, "flight_id", keys), folder / "predictions.parquet")
    march = pq.read_table(folder / "landed" / "march.parquet")
    for key, file in ((None, "march"), (float("nan"), "again")):
        other = march.set_column(0, "flight_id", pa.array([key, *map(float, range(1, 8))]))
        pq.write_table(other.slice(0, 8 if key is None else 1), folder / "landed" / f"{file}.parquet")
    found = join(folder)
    assert (len(found.actual), found.replaced) == (8, 1)


def test_text_labels_name_the_column(folder):
    write_labels(folder, range(8), late=["yes"] * 8)
    with pytest.raises(DataError, match="Labels in column late: expected numbers"):
        join(folder)


def test_a_source_without_the_key_says_where_to_look(folder):
    with pytest.raises(SourceError, match=r"examples lack the column\(s\) tail"):
        join(folder, keys=["tail"])


def test_several_targets_cannot_be_measured(folder):
    with pytest.raises(
        SpecError, match=r"exactly one column in provisioning\.examples\.targets, got 2: late, delay"
    ):
        join(folder, targets=["late", "delay"])


@pytest.mark.parametrize(
    ("labelled", "newest_known", "complete"),
    [
        (95, START, True),
        (94, START, False),
        (0, None, False),
        (50, START + timedelta(hours=3), False),
        (50, START + timedelta(hours=5), True),
    ],
    ids=["enough", "too few", "none at all", "may still come", "will never come"],
)
def test_labels_that_never_come_do_not_block(labelled, newest_known, complete):
    some = np.zeros(labelled)
    found = LabelledPredictions(some, some, rows=100, newest_known=newest_known, usual_delay=4 * 3600)
    assert labels_are_complete(found, START, 0.95) is complete


@pytest.mark.parametrize("place", ["relative", "file", "table", "folder"])
def test_labels_are_found_wherever_provisioning_finds_them(folder, place):
    landed = folder / "landed"
    (landed / "_temporary").mkdir()
    (landed / "_temporary" / "half.parquet").write_bytes(b"half a fi")
    places = {
        "relative": {"sql": None, "parquet": "landed/*.parquet"},
        "file": {"sql": None, "parquet": f"file://{landed}/march.parquet"},
        "table": {"sql": "SELECT * FROM flights", "tables": {"flights": {"parquet": "landed/**"}}},
        "folder": {"sql": None, "parquet": str(landed)},
    }
    assert len(join(folder, **places[place]).actual) == 8


def test_labels_are_found_by_the_sources_that_are_given(folder):
    class Bucket(LocalSources):
        def find(self, pattern, folder=None):
            return super().find(pattern.replace("s3://bucket", str(folder)), folder)

    found = join_labels(*given(folder, Bucket(), sql=None, parquet="s3://bucket/landed/*.parquet"))
    assert len(found.actual) == 8
