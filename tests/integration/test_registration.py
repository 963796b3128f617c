"""Registration on a real MLflow server: by many at once, again and again, and with a card that people read."""

from __future__ import annotations

import multiprocessing
import uuid

import pytest

from airflow_mlops.hooks.mlflow.hook import MLflowHook
from airflow_mlops.operators.registration import RegisterModelOperator
from airflow_mlops.primitives.registration.record import RECORD_FILE, TrainingRecord
from tests.fixtures.deadlines import DEADLINE

PASSED = {"passed": True, "message": "The candidate passed all 1 checks.", "results": []}


@pytest.fixture
def hook(mlflow_server, monkeypatch):
    for key, value in mlflow_server.environment.items():
        monkeypatch.setenv(key, value)
    return MLflowHook()


@pytest.fixture
def trained(hook, tmp_path):
    """Make runs that hold a model."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors: {}\n")

    def make(name: str) -> str:
        run_id = hook.find_or_create_run("registration", f"{name}-{uuid.uuid4().hex}")
        hook.log_directory(run_id, folder, "model")
        return run_id

    return make


def register(model: str, run_id: str, **arguments):
    task = RegisterModelOperator(
        task_id="register", application="tiny", model=model, run_id=run_id, decision=PASSED, **arguments
    )
    return task.execute({})


def _register_as_told(start, results, model, run_id):
    start.wait()
    try:
        results.put((run_id, register(model, run_id)["version"]))
    except BaseException as error:  # noqa: BLE001  the test must not wait for ever
        results.put((run_id, repr(error)))


def test_eight_at_once_give_one_version_a_run_and_the_newest_leads(hook, trained):
    model, processes = f"crowd-{uuid.uuid4().hex[:8]}", multiprocessing.get_context("fork")
    runs = [trained(str(number)) for number in range(4)]
    start, results = processes.Barrier(8), processes.Queue()
    crowd = [
        processes.Process(target=_register_as_told, args=(start, results, model, run_id))
        for run_id in runs * 2
    ]
    for one in crowd:
        one.start()
    told = [results.get(timeout=DEADLINE) for _ in crowd]
    for one in crowd:
        one.join()

    versions = {version.run_id: version.version for version in hook.versions(model)}
    assert len(hook.versions(model)) == len(versions) == 4
    assert set(told) == {(run_id, versions[run_id]) for run_id in runs}
    champion = hook.champion(model)
    assert champion is not None
    assert int(champion.version) == max(int(version) for version in versions.values())
    assert hook.by_alias(model, "challenger") is None
    assert {version.tags["airflow_mlops.promoted"] for version in hook.versions(model)} <= {"done"}


def test_a_version_that_waits_is_the_challenger(hook, trained):
    model = f"waits-{uuid.uuid4().hex[:8]}"
    first, second = trained("first"), trained("second")
    assert register(model, first)["champion"] is True
    assert register(model, second, promote=False)["champion"] is False
    assert hook.champion(model).version == "1"
    assert hook.by_alias(model, "challenger").version == "2"
    # Its turn has come.
    assert register(model, second)["champion"] is True
    assert hook.champion(model).version == "2"
    assert hook.by_alias(model, "challenger") is None


def test_a_champion_that_was_taken_back_is_not_promoted_again_by_a_late_retry(hook, trained):
    model = f"back-{uuid.uuid4().hex[:8]}"
    first, second = trained("first"), trained("second")
    register(model, first)
    register(model, second)
    hook.set_champion(model, "1")
    assert register(model, second)["champion"] is False
    assert hook.champion(model).version == "1"
    assert register(model, trained("third"))["champion"] is True


@pytest.mark.parametrize("crash", ["set_champion", "set_version_tags"])
def test_a_crash_in_the_middle_is_completed_by_the_retry(hook, trained, monkeypatch, crash):
    model, run_id = f"crash-{uuid.uuid4().hex[:8]}", trained("only")
    real = getattr(MLflowHook, crash)

    def dies(self, *arguments):
        real(self, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MLflowHook, crash, dies)
        with pytest.raises(KeyboardInterrupt):
            register(model, run_id)
    assert register(model, run_id)["champion"] is True
    assert hook.champion(model).tags["airflow_mlops.promoted"] == "done"


def test_the_card_goes_with_the_version(hook, trained, tmp_path):
    model, run_id = f"card-{uuid.uuid4().hex[:8]}", trained("card")
    record = TrainingRecord(
        application="tiny", code={"name": "tiny"}, config={"seed": 7}, data={"dataset_id": "d" * 64}
    )
    hook.log_json(run_id, RECORD_FILE, record.to_dict())
    hook.log_evaluation(run_id, [{"name": "auc", "value": 0.75, "split": "test", "stderr": 0.01, "n": 40}])
    for _ in range(2):
        register(model, run_id, about={"description": "Tiny, to try things.", "owner": "ml-team"})
    text = (hook.download(run_id, "model_card.md", tmp_path)).read_text()
    assert "Tiny, to try things." in text
    assert "| test.auc | 0.75 | 0.7304 to 0.7696 | 40 |" in text
    assert hook.get_conn().get_model_version(model, "1").description == text
    assert (hook.download(run_id, "model_card.html", tmp_path)).read_text().startswith("<!doctype html>")
    assert (tmp_path / "model_card.html").stat().st_size < 20_000
