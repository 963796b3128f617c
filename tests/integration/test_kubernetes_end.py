"""A task of Kubernetes that somebody ends while it waits for its job."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from airflow.sdk.exceptions import AirflowException

from airflow_mlops.operators import model_code
from airflow_mlops.runners import get_runner
from tests.fixtures.deadlines import SOON
from tests.fixtures.jobs import eventually
from tests.fixtures.tasks import context
from tests.fixtures.tiny_operator import TinyOperator

pytestmark = [pytest.mark.docker]


class DeafOperator(TinyOperator):
    """Waits on its worker for a job that does not listen to SIGTERM."""

    def __init__(self, **kwargs):
        super().__init__(do="deaf", deferrable=False, **kwargs)


def test_who_ends_a_task_that_waits_is_not_kept_waiting(
    carried_image, kubernetes, s3_server, s3_bucket, monkeypatch, tmp_path
):
    """Airflow calls ``on_kill`` from its handler of SIGTERM, amid the loop that waits, and kills five seconds later."""
    place = {"kind": "kubernetes", "staging": f"s3://{s3_bucket}/staging"}
    operator = DeafOperator(store=str(tmp_path), code={"image": carried_image}, runner=place)
    runner = get_runner(**place)
    monkeypatch.setattr(model_code, "airflow_answers", lambda: True)
    took = []

    def on_sigterm(*_):
        began = time.monotonic()
        operator.on_kill()
        took.append(time.monotonic() - began)

    def end_it():
        eventually(lambda: any("does not listen" in line.text for line in runner.logs(operator._job_name)))
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, on_sigterm)
    ending = ThreadPoolExecutor(1).submit(end_it)
    try:
        with pytest.raises(AirflowException, match="no longer there"):
            operator.execute(context("train"))
    finally:
        signal.signal(signal.SIGTERM, before)
        ending.result()

    assert took[0] < SOON
    assert not kubernetes.objects["jobs"]
    assert "Contents" not in s3_server.client().list_objects_v2(Bucket=s3_bucket)
    eventually(lambda: not kubernetes.leftovers(), 6)
