"""``training.kubernetes:`` as the runner gets it."""

from __future__ import annotations

import kubernetes_validate
import pytest

from airflow_mlops.exceptions import SpecError
from airflow_mlops.factories.application import runner_of
from airflow_mlops.runners import get_runner
from airflow_mlops.runners.kubernetes.manifests import job_manifest
from airflow_mlops.runners.protocol import ContainerJob
from airflow_mlops.spec import load_application
from tests.unit.factories.samples import write

OPTIONS = {
    "connection": "cluster",
    "namespace": "ml",
    "service_account": "trainer",
    "node_selector": {"pool": "gpu"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
                ]
            }
        }
    },
    "image_pull_secrets": ["registry"],
    "labels": {"team": "flights"},
    "annotations": {"cost-centre": "free text, of any kind"},
    "disk": "20g",
    "start_timeout": "1h",
}


def runner(folder, training=None, **options):
    keys = {"store": "s3://lake/mlops", **(training or {})}
    said = {"run_on": "kubernetes", "kubernetes": options, **keys.pop("also", {})}
    return runner_of(load_application(write(folder, training=said, **keys)))


def test_every_key_reaches_a_manifest_that_kubernetes_accepts(tmp_path):
    options = runner(tmp_path, **OPTIONS)
    assert (options["kubernetes_conn_id"], options["namespace"]) == ("cluster", "ml")
    assert (options["start_timeout"], options["time_limit"]) == (3600.0, 7200.0)
    made = get_runner(**options)
    manifest = job_manifest(ContainerJob(name="job", command="train", image="m:1"), made.pod, "abc", 60)
    kubernetes_validate.validate(manifest, "1.37", strict=True)
    pod = manifest["spec"]["template"]["spec"]
    assert pod["tolerations"] == OPTIONS["tolerations"]
    assert pod["affinity"] == OPTIONS["affinity"]
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert pod["serviceAccountName"] == "trainer"
    assert pod["containers"][0]["resources"]["limits"] == {"ephemeral-storage": str(20 * 1024**3)}
    assert manifest["metadata"]["labels"]["team"] == "flights"


def test_data_goes_through_the_store_unless_another_place_is_said(tmp_path):
    assert runner(tmp_path)["staging"] == "s3://lake/mlops"
    assert runner(tmp_path, staging="s3://jobs@scratch/x")["staging"] == "s3://jobs@scratch/x"
    assert runner(tmp_path, {"store": "/s"}, staging="s3://scratch/x")["staging"] == "s3://scratch/x"


@pytest.mark.parametrize(
    ("training", "options", "words"),
    [
        ({"store": "/s"}, {}, "must be on S3"),
        ({"also": {"resources": {"gpus": "all"}}}, {}, "must be a number with run_on: kubernetes"),
        ({"code": {"process": {"directory": ".", "command": ["x"]}}}, {}, "code.image is missing"),
        ({}, {"namespace": "Under_Score"}, "training.kubernetes.namespace"),
        ({}, {"tolerations": [{"operator": "Is"}]}, "training.kubernetes.tolerations[0].operator"),
        ({}, {"labels": {"team": "two words"}}, "training.kubernetes.labels"),
        ({}, {"node_selecter": {}}, "node_selector"),
    ],
)
def test_what_kubernetes_would_refuse_is_an_error_of_the_file(tmp_path, training, options, words):
    with pytest.raises(SpecError) as error:
        runner(tmp_path, training, **options)
    assert words in str(error.value)
