"""What a reproduction says beside the figures."""

from __future__ import annotations

import pytest

from airflow_mlops.cli.reproduce.command import _changed_code, _damage
from airflow_mlops.exceptions import TrackingError, TrackingUnavailableError
from airflow_mlops.operators.training.record import code_record
from airflow_mlops.primitives.registration.record import TrainingRecord
from airflow_mlops.runners.protocol import JobState


def test_it_says_which_files_of_the_code_differ(tmp_path):
    for name in ("model_code.py", "old.py"):
        (tmp_path / name).write_text(name)
    code = code_record({"entrypoint": ["python"], "directory": str(tmp_path)}, {}, "", JobState("exited"))
    record = TrainingRecord("a", code=code, config={}, data={})
    assert _changed_code(record, tmp_path) == ""

    (tmp_path / "model_code.py").write_text("another")
    (tmp_path / "old.py").rename(tmp_path / "new.py")
    assert (
        _changed_code(record, tmp_path)
        == "old.py is missing, model_code.py has other bytes, new.py was not there"
    )

    del code["directory_files"]
    assert "does not say which" in _changed_code(TrainingRecord("a", code=code, config={}, data={}), tmp_path)


class Server:
    def __init__(self, error):
        self.error = error

    def fetch_model(self, run_id, folder):
        folder.mkdir()
        if self.error:
            raise self.error


def test_a_registered_model_that_was_changed_is_told_and_one_that_cannot_be_asked_for_is_an_error(tmp_path):
    assert _damage(Server(None), "1", tmp_path / "a") == ""
    assert (
        _damage(Server(TrackingError("weights has other bytes")), "1", tmp_path / "a")
        == "weights has other bytes"
    )
    with pytest.raises(TrackingUnavailableError):
        _damage(Server(TrackingUnavailableError("away")), "1", tmp_path / "a")
    assert not (tmp_path / "a").exists()
