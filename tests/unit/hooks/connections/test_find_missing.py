"""A connection that Airflow does not have, and one of which it only cannot say so."""

from __future__ import annotations

import asyncio
import json

import pytest
from airflow.sdk import BaseHook, Connection
from airflow.sdk.exceptions import ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_mlops.exceptions import (
    EngineUnavailableError,
    FeatureStoreError,
    MLOpsError,
    ModelCodeUnavailableError,
    RunnerError,
    SourceError,
    SourceUnavailableError,
    StoreError,
    StoreUnavailableError,
    TrackingError,
)
from airflow_mlops.hooks.aws.batch import BatchHook
from airflow_mlops.hooks.aws.cloudwatch import CloudWatchHook
from airflow_mlops.hooks.aws.sagemaker import SageMakerTrainingHook
from airflow_mlops.hooks.aws.service import pinned_image
from airflow_mlops.hooks.feast.connection.config import read_settings
from airflow_mlops.hooks.feast.hook import FeastHook
from airflow_mlops.hooks.feast.sources import _endpoint
from airflow_mlops.hooks.git.repository import GitHook
from airflow_mlops.hooks.kubernetes.hook import IN_CLUSTER, KubernetesClusterHook
from airflow_mlops.hooks.mlflow.progress import MetricSink
from airflow_mlops.hooks.mlflow.runs import MLflowRunsHook
from airflow_mlops.hooks.registry import RegistryHook
from airflow_mlops.hooks.s3.client import s3_client, s3_filesystem
from airflow_mlops.hooks.sources.http import _open
from airflow_mlops.hooks.sources.sql import SqlReader
from airflow_mlops.hooks.sources.tables import _catalog

ECR = "123456789012.dkr.ecr.us-east-1.amazonaws.com/tiny:1"
ASKS = {
    "kubernetes": lambda conn_id: KubernetesClusterHook(conn_id).run(nothing),
    "kubernetes in the triggerer": lambda conn_id: asyncio.run(session(conn_id)),
    "batch": lambda conn_id: BatchHook(conn_id, "us-east-1").describe("job"),
    "sagemaker": lambda conn_id: SageMakerTrainingHook(conn_id, "us-east-1").describe("job"),
    "logs": lambda conn_id: CloudWatchHook(conn_id, "us-east-1", "group").streams("a"),
    "ecr": lambda conn_id: pinned_image(ECR, conn_id),
}


async def nothing(_):
    return None


async def session(conn_id):
    async with KubernetesClusterHook(conn_id).session():
        pass


class Supervisor:
    """Answers every question of a task in the same way."""

    def __init__(self, error):
        self.answer = ErrorResponse(error=error)

    def send(self, _):
        return self.answer

    async def asend(self, _):
        return self.answer


@pytest.fixture
def airflow_says(monkeypatch):
    # Whoever takes the machine's own account finds one here.
    monkeypatch.setenv(IN_CLUSTER, "10.0.0.1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the machine's own")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the machine's own")
    return lambda error: monkeypatch.setattr(
        task_runner, "SUPERVISOR_COMMS", Supervisor(error), raising=False
    )


@pytest.mark.parametrize("place", ASKS)
def test_while_airflow_is_away_nobody_takes_the_machines_own_account(airflow_says, place):
    airflow_says(ErrorType.API_SERVER_ERROR)
    default = "kubernetes_default" if "kubernetes" in place else "aws_default"
    for conn_id in ("gpu_farm", default):
        with pytest.raises(EngineUnavailableError, match=f"does not say what its connection '{conn_id}' is"):
            ASKS[place](conn_id)


@pytest.mark.parametrize("place", ASKS)
def test_a_named_connection_that_is_missing_is_said_for_good(airflow_says, place):
    airflow_says(ErrorType.CONNECTION_NOT_FOUND)
    with pytest.raises(RunnerError, match=r"no Airflow connection 'gpu_farm'\. Cure: create one") as error:
        ASKS[place]("gpu_farm")
    assert not error.value.retriable


def test_a_cluster_is_asked_from_within_an_event_loop(monkeypatch):
    config = {"kube_config": json.dumps({"clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}], "users": [{"name": "u", "user": {}}],
        "current-context": "x"})}  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_FARM", json.dumps({"conn_type": "kubernetes", "extra": config}))
    hook = KubernetesClusterHook("farm")

    async def ask():
        async def namespace(cluster):
            return cluster.namespace

        assert hook.run(namespace) == "default"
        with pytest.raises(EngineUnavailableError, match="does not answer"):
            hook.run(lambda cluster: cluster.get("jobs", "job"))

    asyncio.run(ask())


OTHERS = {
    "mlflow": (TrackingError, lambda: MLflowRunsHook("lake").server),
    "mlflow in the triggerer": (
        TrackingError,
        lambda: asyncio.run(MetricSink(mlflow_conn_id="lake", run_id="run")._find_server()),
    ),
    "feast": (FeatureStoreError, lambda: FeastHook("lake").settings),
    "a login of feast": (
        FeatureStoreError,
        lambda: read_settings(
            Connection(
                conn_id="feast",
                conn_type="feast",
                extra=json.dumps({"project": "p", "registry": {"connection": "lake"}}),
            ),
            BaseHook.get_connection,
        ),
    ),
    "an endpoint of feast": (FeatureStoreError, lambda: _endpoint("lake", "view x", needed=True)),
    "sql": (SourceError, lambda: SqlReader("lake", "SELECT 1", 10)),
    "http": (SourceError, lambda: _open("lake", "rows")),
    "git": (
        ModelCodeUnavailableError,
        lambda: asyncio.run(GitHook("https://127.0.0.1:9/x", "lake").digest("main")),
    ),
}


@pytest.mark.parametrize("place", OTHERS)
def test_everybody_else_says_it_too(airflow_says, place):
    kind, ask = OTHERS[place]
    airflow_says(ErrorType.CONNECTION_NOT_FOUND)
    with pytest.raises(kind, match=r"no Airflow connection 'lake'.*Cure: create one") as error:
        ask()
    assert not error.value.retriable
    airflow_says(ErrorType.API_SERVER_ERROR)
    with pytest.raises(kind, match=r"does not say what its connection 'lake'.* is") as error:
        ask()
    assert error.value.retriable


def test_what_may_do_without_a_connection_does_so_only_where_there_is_none(airflow_says):
    asks = [
        lambda: _endpoint("lake", "view x", needed=False),
        lambda: _catalog("lake") or None,
        lambda: asyncio.run(RegistryHook("127.0.0.1:9", "lake")._connection_login()),
    ]
    airflow_says(ErrorType.CONNECTION_NOT_FOUND)
    assert [ask() for ask in asks] == [None] * 3
    airflow_says(ErrorType.API_SERVER_ERROR)
    for ask in asks:
        with pytest.raises(MLOpsError, match=r"does not say what its connection 'lake'.* is") as error:
            ask()
        assert error.value.retriable


@pytest.mark.parametrize("ask", [s3_client, s3_filesystem])
def test_a_bucket_neither(airflow_says, ask):
    airflow_says(ErrorType.API_SERVER_ERROR)
    with pytest.raises(
        (StoreUnavailableError, SourceUnavailableError), match="does not say what its connection 'lake'"
    ):
        ask("lake")
    airflow_says(ErrorType.CONNECTION_NOT_FOUND)
    with pytest.raises((StoreError, SourceError), match="no Airflow connection 'lake'") as error:
        ask("lake")
    assert not error.value.retriable
