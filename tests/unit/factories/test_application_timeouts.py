"""Every task that is not deferred has an end, in the DAGs of all factories."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_mlops.factories import build_dags
from airflow_mlops.factories.features import build_features_dag
from airflow_mlops.factories.maintenance import build_maintenance_dag
from airflow_mlops.operators.model_code import ModelCodeOperator
from airflow_mlops.spec import load_application, load_spec
from tests.unit.factories.samples import write
from tests.unit.factories.test_features import YAML as FEATURES

HOURS = timedelta(hours=1)
TUNED = {"objective": "train.loss", "trials": 4, "search_space": {"x": {"low": 0, "high": 1}}}
PREPARE = {"prepare": {"image": "prepare:1", "timeout": "2h"}, "transform": None}


def tasks(folder, **keys):
    """The tasks of an application with everything, by name."""
    delivery = [{"batch": {"schedule": {"assets": ["examples_arrived"]}}}]
    spec = load_application(write(folder, **{"delivery": delivery, **keys}))
    return [task for dag in build_dags(spec).values() for task in dag.tasks]


@pytest.mark.parametrize(("keys", "limit"), [({}, 6 * HOURS), ({"task_timeout": "90m"}, 1.5 * HOURS)])
def test_what_works_on_a_worker_has_an_end_and_what_is_deferred_none_of_its_own(tmp_path, keys, limit):
    training = {"deferrable": True, "timeout": "3h", "tuning": TUNED}
    found = tasks(tmp_path, training=training, **keys)
    assert len(found) > 12
    for task in found:
        expected = None if isinstance(task, ModelCodeOperator) else limit
        assert task.execution_timeout == expected, task.task_id


@pytest.mark.parametrize(("more", "longest"), [({}, 12 * HOURS), ({"timeout": "5h"}, 5 * HOURS)])
def test_a_task_that_waits_for_its_job_on_a_worker_has_both(tmp_path, more, longest):
    training = {"deferrable": False, "timeout": "3h", "tuning": {**TUNED, **more}}
    for task in tasks(tmp_path, training=training):
        expected = 6 * HOURS
        if isinstance(task, ModelCodeOperator):
            expected += longest if task.task_id == "tune" else 3 * HOURS
        assert task.execution_timeout == expected, task.task_id


def test_feature_pipelines_and_maintenance_too(tmp_path):
    folder = tmp_path / "features"
    folder.mkdir()
    import yaml

    for name, more in (("plain", {}), ("prepared", PREPARE)):
        given = {key: value for key, value in {**FEATURES, **more}.items() if value is not None}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**given, "features": name}))
        spec = load_spec(folder / f"{name}.yaml")
        for task in build_features_dag(spec).tasks:
            expected = None if isinstance(task, ModelCodeOperator) else 6 * HOURS
            assert task.execution_timeout == expected, task.task_id
    for task in build_maintenance_dag([spec]).tasks:
        assert task.execution_timeout == HOURS
