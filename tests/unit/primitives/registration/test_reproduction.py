"""Whether a training that was done again gave the same."""

from __future__ import annotations

import pytest

from airflow_mlops.exceptions import TrackingError
from airflow_mlops.primitives.registration.aliases import challenger, may_lead
from airflow_mlops.primitives.registration.files import code_digest, differences, digest_of, file_digests
from airflow_mlops.primitives.registration.record import TrainingRecord
from airflow_mlops.primitives.registration.reproduction import compare_files, compare_metrics, same_files


def auc(value, **more):
    return {"name": "auc", "value": value, "split": "test", **more}


def test_metrics_are_told_apart_by_split_slice_and_step():
    old = [auc(0.7), auc(0.6, slice="origin=JFK"), auc(0.1, step=0), auc(0.2, step=10)]
    new = [auc(0.7), auc(0.61, slice="origin=JFK"), auc(0.1, step=0), auc(0.3, step=20)]
    pairs = {pair.name: (pair.old, pair.new, pair.same) for pair in compare_metrics(old, new, 0.0)}
    assert pairs == {
        "test.auc": (0.7, 0.7, True),
        "test.auc [origin=JFK]": (0.6, 0.61, False),
        "test.auc @0": (0.1, 0.1, True),
        "test.auc @10": (0.2, None, False),
        "test.auc @20": (None, 0.3, False),
    }


@pytest.mark.parametrize(
    ("old", "new", "same"), [(0.5, 0.509, True), (0.5, 0.511, False), (1000, 1009, True), (1000, 1011, False)]
)
def test_the_tolerance_is_relative_above_one(old, new, same):
    (pair,) = compare_metrics([auc(old)], [auc(new)], 0.01)
    assert pair.same is same


@pytest.mark.parametrize(
    ("name", "timing"),
    [
        ("latency_p95", True),
        ("fit_seconds", True),
        ("auc", False),
        ("secondsight", False),
        ("latency.p50", True),
    ],
)
def test_times_are_no_property_of_a_model(name, timing):
    (pair,) = compare_metrics([{"name": name, "value": 1}], [{"name": name, "value": 2}], 0)
    assert pair.timing is timing


def test_files():
    old = {"MLmodel": "1", "model.bin": "2", "gone": "3", "other": "4"}
    new = {"MLmodel": "9", "model.bin": "2", "new": "5", "other": "6"}
    states = compare_files(old, new)
    assert states == {
        "MLmodel": "volatile",
        "gone": "missing",
        "model.bin": "same",
        "new": "new",
        "other": "different",
    }
    assert not same_files(states)
    assert same_files(compare_files({"MLmodel": "1", "a": "2"}, {"MLmodel": "3", "a": "2"}))
    assert not same_files({})


def test_a_folder_of_code_has_one_digest_whatever_lies_around(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "code.py").write_text("a = 1\n")
    (tmp_path / "run.sh").write_text("echo\n")
    first = code_digest(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "code.pyc").write_bytes(b"1")
    (tmp_path / "link").symlink_to("/etc")
    assert code_digest(tmp_path) == first == digest_of(file_digests(tmp_path, {"__pycache__"}))
    (tmp_path / "run.sh").write_text("echo 2\n")
    assert code_digest(tmp_path) != first


def test_the_champion_moves_forward_only():
    assert may_lead(1, None)
    assert may_lead(2, 1)
    assert may_lead(2, 2)
    assert not may_lead(1, 2)


def test_the_challenger_is_newer_than_the_champion_or_there_is_none():
    assert challenger([1, 2, 3], 1) == 3
    assert challenger([1, 2, 3], 3) is None
    assert challenger([1, 2], None) == 2
    assert challenger([], None) is None


def test_a_record_comes_back_and_a_wrong_one_is_said():
    record = TrainingRecord(
        application="a", code={"image": "i"}, config={"seed": 1}, data={"dataset_id": "d"}
    )
    assert TrainingRecord.from_dict(record.to_dict(), "x") == record
    for wrong in (None, [], {"format": 2}, {"format": 1, "code": [], "config": {}, "data": {}}):
        with pytest.raises(TrackingError, match=r"lineage\.json of version 3"):
            TrainingRecord.from_dict(wrong, "version 3")


def test_files_are_held_against_their_digests():
    expected = {"a": "1", "b": "2", "c": "3"}

    assert differences(expected, dict(expected)) == []
    assert differences(expected, {"a": "1", "b": "3", "d": "4"}) == [
        "c is missing",
        "b has other bytes",
        "d was not there",
    ]
