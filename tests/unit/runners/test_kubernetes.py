"""What a cluster is told, and what its answers mean; no cluster needed."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import kubernetes_validate
import pytest

from airflow_mlops.exceptions import RunnerError
from airflow_mlops.hooks.kubernetes.hook import KubernetesClusterHook
from airflow_mlops.runners import get_runner
from airflow_mlops.runners.kubernetes.logs import PodLog, since_time
from airflow_mlops.runners.kubernetes.manifests import (
    PodOptions,
    job_manifest,
    object_name,
    secret_manifest,
    service_manifest,
)
from airflow_mlops.runners.kubernetes.state import Seen, job_state, logs_are_there
from airflow_mlops.runners.lines import Delivered
from airflow_mlops.runners.protocol import ContainerJob, Distribution, Resources

NOW = datetime(2026, 1, 5, 3, 0, tzinfo=UTC)
JOB = ContainerJob(
    name="mlops-flight_delay-train-0123456789ab",
    command="train",
    image="registry.example.com/model:1",
    labels={"dag_id": "flight_delay__training", "run_id": "scheduled__2026-01-05T03:00:00+00:00", "store": "s3://b/p"},
)  # fmt: skip
EVERYTHING = PodOptions(
    service_account="trainer",
    node_selector={"pool": "gpu"},
    tolerations=({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},),
    affinity={"nodeAffinity": {}},
    image_pull_secrets=("registry",),
    labels={"team": "flights"},
    annotations={"cost": "a free text"},
    priority_class="low",
    runtime_class="nvidia",
    disk=20 * 1024**3,
)


def valid(thing):
    for version in ("1.29", "1.37"):
        kubernetes_validate.validate(thing, version, strict=True)
    return thing


def pod_spec(job=JOB, options=None):
    return valid(job_manifest(job, options or PodOptions(), "abc", 7200))["spec"]["template"]["spec"]


class TestManifests:
    def test_a_job_is_held_and_never_repeated_by_the_cluster(self):
        manifest = valid(job_manifest(JOB, PodOptions(), "abc", 7200))
        spec = manifest["spec"]
        assert (spec["suspend"], spec["backoffLimit"], spec["podReplacementPolicy"]) == (True, 0, "Failed")
        assert (spec["completions"], spec["parallelism"], spec["completionMode"]) == (1, 1, "NonIndexed")
        assert spec["template"]["spec"]["restartPolicy"] == "Never"
        assert spec["template"]["spec"]["activeDeadlineSeconds"] == 7200

    def test_pods_may_do_nothing_but_compute(self):
        pod = pod_spec()
        (container,) = pod["containers"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 1000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["args"] == ["train"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)

    def test_limits_are_requests(self):
        job = ContainerJob(**{**vars(JOB), "resources": Resources(cpus=1.5, memory=2**30, shm=2**26, gpus=2)})
        pod = pod_spec(job, EVERYTHING)
        resources = pod["containers"][0]["resources"]
        wanted = {
            "cpu": "1500m",
            "memory": "1073741824",
            "nvidia.com/gpu": "2",
            "ephemeral-storage": "21474836480",
        }
        assert resources == {"requests": wanted, "limits": wanted}
        shm = {"medium": "Memory", "sizeLimit": "67108864"}
        assert {volume["name"]: volume.get("emptyDir") for volume in pod["volumes"]} == {
            "work": {"sizeLimit": "21474836480"},
            "input": {"sizeLimit": "21474836480"},
            "shm": shm,
        }

    def test_gpus_of_a_type_choose_machines(self):
        gpus = {"type": "NVIDIA-H100-80GB-HBM3", "count": 4}
        pod = pod_spec(ContainerJob(**{**vars(JOB), "resources": Resources(gpus=gpus)}), EVERYTHING)
        assert pod["nodeSelector"] == {"pool": "gpu", "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
        assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "4"

    @pytest.mark.parametrize("gpus", ["all", ("GPU-1",), ["GPU-1"]])
    def test_gpus_are_asked_for_by_number(self, gpus):
        job = ContainerJob(**{**vars(JOB), "resources": Resources(gpus=gpus)})
        with pytest.raises(RunnerError, match="Kubernetes gives GPUs by number"):
            job_manifest(job, PodOptions(), "abc", 1)

    def test_everything_that_a_yaml_says_gets_into_the_pod(self):
        pod = pod_spec(options=EVERYTHING)
        assert (pod["serviceAccountName"], pod["priorityClassName"], pod["runtimeClassName"]) == (
            "trainer",
            "low",
            "nvidia",
        )
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
        assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"

    def test_labels_are_those_that_can_be_and_annotations_say_all(self):
        metadata = job_manifest(JOB, EVERYTHING, "abc", 1)["metadata"]
        assert metadata["labels"]["team"] == "flights"
        assert metadata["labels"]["ai.airflow-mlops/dag_id"] == "flight_delay__training"
        assert "ai.airflow-mlops/run_id" not in metadata["labels"]
        assert metadata["annotations"]["ai.airflow-mlops/run_id"] == JOB.labels["run_id"]
        assert metadata["annotations"]["ai.airflow-mlops/name"] == JOB.name
        assert metadata["annotations"]["cost"] == "a free text"

    def test_several_machines_get_a_name_for_the_first(self):
        job = ContainerJob(**{**vars(JOB), "distribution": Distribution(nodes=3)})
        manifest = valid(job_manifest(job, PodOptions(), "abc", 1))
        service, name = valid(service_manifest(job, "uid-1")), object_name(JOB.name)
        spec, pod = manifest["spec"], manifest["spec"]["template"]
        assert (spec["completions"], spec["parallelism"], spec["completionMode"]) == (3, 3, "Indexed")
        assert pod["spec"]["subdomain"] == service["metadata"]["name"] == name
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        environment = {each["name"]: each.get("value") for each in pod["spec"]["containers"][0]["env"]}
        assert environment["MLOPS_RENDEZVOUS"] == f"{name}-0.{name}:29400"
        assert service["metadata"]["ownerReferences"][0]["uid"] == "uid-1"

    def test_secrets_are_files_that_the_jobs_user_alone_reads(self):
        job = ContainerJob(**{**vars(JOB), "secrets": {"warehouse": "prod"}})
        secret = valid(secret_manifest(job, "abc", "uid-1", "https://signed", {"warehouse": b"{}"}))
        pod = pod_spec(job)
        (volume,) = [each["secret"] for each in pod["volumes"] if "secret" in each]
        assert volume["secretName"] == secret["metadata"]["name"]
        assert volume["items"] == [{"key": "warehouse.json", "path": "warehouse.json"}]
        assert volume["defaultMode"] == 0o440
        assert set(secret["data"]) == {"MLOPS_TRANSFER", "warehouse.json"}
        assert {"mountPath": "/opt/ml/input/secrets", "name": "secrets", "readOnly": True} in pod[
            "containers"
        ][0]["volumeMounts"]

    @pytest.mark.parametrize("name", ["A_b.c", "0-digits-first", "x" * 200, "Ümlaut.", "..--"])
    def test_names_fit_a_host_name(self, name):
        made = object_name(name)
        assert len(f"{made}-1023") <= 63
        assert made == made.lower()
        assert made[0].isalpha()
        assert object_name(name + "x") != made


def pod(state=None, index=0, labels=None, conditions=(), deleted=None, **status):
    return {
        "metadata": {
            "name": f"pod-{index}",
            "labels": {"batch.kubernetes.io/job-completion-index": str(index)},
            "ownerReferences": [{"uid": "j"}],
            **({"deletionTimestamp": deleted} if deleted else {}),
        },
        "status": {
            "conditions": list(conditions),
            "containerStatuses": [
                {"name": "a-sidecar", "imageID": "other", "state": {"running": {}}},
                {"name": "model", "imageID": "docker-pullable://r/m@sha256:1", "state": state or {}},
            ],
            **status,
        },
    }


def ended(code, at="2026-01-05T02:59:00Z", **more):
    return {"terminated": {"exitCode": code, "finishedAt": at, "startedAt": "2026-01-05T02:00:00Z", **more}}


def stamp(seconds_ago):
    return (NOW - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


def state_of(*pods, nodes=1, age=10, conditions=(), annotations=None, suspend=False, **metadata):
    job = {
        "metadata": {
            "name": "j",
            "uid": "j",
            "creationTimestamp": stamp(age),
            "annotations": annotations,
            **metadata,
        },
        "spec": {
            "completions": nodes,
            "suspend": suspend,
            "template": {"spec": {"containers": [{"image": "m:1"}]}},
        },
        "status": {"conditions": list(conditions)},
    }
    return job_state(Seen.of(job, pods), NOW, 60)


RUNNING = {"running": {"startedAt": "2026-01-05T02:00:00Z"}}
DISRUPTED = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "DeletionByTaintManager",
    "message": "taint",
}
FAILED = {
    "type": "Failed",
    "status": "True",
    "reason": "BackoffLimitExceeded",
    "message": "limit",
    "lastTransitionTime": "t",
}


class TestState:
    def test_no_job_is_gone(self):
        assert job_state(Seen(None), NOW, 60).status == "gone"
        assert state_of(pod(RUNNING), deletionTimestamp="now").status == "gone"

    def test_running_and_done(self):
        running = state_of(pod(RUNNING, phase="Running"))
        assert (running.status, running.started_at) == ("running", "2026-01-05T02:00:00Z")
        assert running.image_digest == "r/m@sha256:1"
        done = state_of(pod(ended(0), phase="Succeeded"))
        assert (done.status, done.exit_code, done.cause, done.finished_at) == (
            "exited",
            0,
            "",
            "2026-01-05T02:59:00Z",
        )
        assert done.image_digest == "r/m@sha256:1"

    def test_pods_of_an_earlier_job_of_this_name_do_not_count(self):
        former = pod(ended(1), phase="Failed")
        former["metadata"]["ownerReferences"] = [{"uid": "former"}]
        assert state_of(former).status == "created"

    def test_the_models_own_judgement_counts_more_than_the_clusters(self):
        state = state_of(pod(ended(11), phase="Failed", conditions=[DISRUPTED]))
        assert (state.exit_code, state.cause) == (11, "")

    def test_a_job_that_ended_well_while_its_machine_was_drained_ended_well(self):
        state = state_of(pod(ended(0), phase="Succeeded", conditions=[DISRUPTED]))
        assert (state.exit_code, state.cause) == (0, "")

    @pytest.mark.parametrize(
        ("found", "cause", "words"),
        [
            (pod(ended(143), phase="Failed", conditions=[DISRUPTED]), "preempted", "DeletionByTaintManager: taint"),
            (pod(ended(137), phase="Failed", reason="NodeShutdown", message="going down"), "preempted", "going down"),
            (pod(None, phase="Failed", reason="Evicted", message="low on disk"), "preempted", "low on disk"),
            (
                pod(None, phase="Failed", reason="Evicted", message="Pod ephemeral local storage usage exceeds the total limit"),
                "over_limit",
                "training.kubernetes.disk",
            ),
            (pod(ended(143), phase="Failed", reason="DeadlineExceeded"), "over_time", "training.timeout"),
            (pod(None, phase="Failed"), "preempted", "does not say how it ended"),
            (pod(ended(128, reason="StartError", message="no such file"), phase="Failed"), "not_started", "ENTRYPOINT"),
        ],
    )  # fmt: skip
    def test_ends_that_are_not_the_jobs_own(self, found, cause, words):
        state = state_of(found)
        assert (state.status, state.cause) == ("exited", cause)
        assert words in state.error

    def test_killed_for_memory(self):
        state = state_of(pod(ended(137, reason="OOMKilled"), phase="Failed"))
        assert (state.exit_code, state.out_of_memory, state.cause) == (137, True, "")

    def test_a_machine_that_does_not_answer(self):
        leaving = pod(RUNNING, phase="Running", deleted=stamp(5), conditions=[DISRUPTED])
        assert state_of(leaving).status == "running"
        lost = state_of(pod(RUNNING, phase="Running", deleted=stamp(300), conditions=[DISRUPTED]))
        assert (lost.status, lost.exit_code, lost.cause) == ("exited", None, "preempted")

    def test_a_job_without_its_pod(self):
        deleted = state_of(conditions=[FAILED])
        assert (deleted.status, deleted.cause) == ("exited", "preempted")
        assert "deleted from outside" in deleted.error
        late = state_of(conditions=[{**FAILED, "reason": "DeadlineExceeded"}])
        assert late.cause == "over_time"
        cleared = state_of(conditions=[{"type": "Complete", "status": "True", "lastTransitionTime": "t"}])
        assert (cleared.status, cleared.exit_code, cleared.cause) == ("exited", 0, "")
        stopped = state_of(annotations={"ai.airflow-mlops/stopped": "t"}, suspend=True)
        assert (stopped.status, stopped.exit_code, stopped.cause) == ("exited", 143, "")

    @pytest.mark.parametrize(
        ("reason", "message", "age", "cause"),
        [
            ("ContainerCreating", "", 10, None),
            ("ContainerCreating", "", 100, "not_scheduled"),
            ("InvalidImageName", "bad", 1, "not_started"),
            ("ErrImagePull", "dial tcp: i/o timeout", 10, None),
            ("ImagePullBackOff", "Back-off pulling image", 100, "not_started"),
            ("ErrImagePull", "pull access denied", 1, "not_started"),
            ("CreateContainerConfigError", "container has runAsNonRoot", 100, "not_scheduled"),
        ],
    )
    def test_a_pod_that_does_not_start(self, reason, message, age, cause):
        state = state_of(pod({"waiting": {"reason": reason, "message": message}}, phase="Pending"), age=age)
        if cause is None:
            assert state.status == "created"
        else:
            assert (state.status, state.cause) == ("exited", cause)
            assert message in state.error
            assert "Cure: " in state.error

    def test_no_machine_and_no_pod(self):
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/3 nodes",
        }
        waiting = pod(None, phase="Pending", conditions=[condition])
        assert state_of(waiting).status == "created"
        assert "Unschedulable: 0/3 nodes after 60 s" in state_of(waiting, age=100).error
        assert state_of(age=100).cause == "not_scheduled"
        assert state_of(age=100, suspend=True).status == "created"

    def test_of_several_machines_the_first_to_fail_says_why(self):
        first = pod(ended(143, at="2026-01-05T02:59:09Z"), 0, phase="Failed", deleted=stamp(1))
        second = pod(ended(11, at="2026-01-05T02:59:00Z", message="bad rows"), 1, phase="Failed")
        state = state_of(first, second, nodes=2)
        assert (state.status, state.exit_code) == ("exited", 11)
        assert state.error == "machine 1 of 2: bad rows"
        assert state_of(pod(ended(0), 0, phase="Succeeded"), pod(RUNNING, 1), nodes=2).status == "running"
        assert state_of(pod(ended(0), 0, phase="Succeeded"), nodes=2).status == "running"

    def test_output_is_there_once_a_container_has_begun(self):
        assert not logs_are_there(None)
        assert not logs_are_there(pod({"waiting": {}}))
        assert logs_are_there(pod(RUNNING))


AT = "2026-01-05T03:00:00.{:09d}Z"


def read(data, since="", size=7):
    log = PodLog(Delivered(since))
    lines = [line for start in range(0, len(data), size) for line in log.feed(data[start : start + size])]
    return [(line.at, line.text) for line in lines + log.flush()]


class TestLog:
    @pytest.mark.parametrize("size", [1, 7, 1000])
    def test_lines_are_cut_from_a_stream_wherever_it_breaks(self, size):
        data = f"{AT.format(1)} one\n{AT.format(2)} \n{AT.format(2)} zwö lf\n{AT.format(3)} the end".encode()
        assert read(data, size=size) == [
            (AT.format(1), "one"),
            (AT.format(2), ""),
            (f"{AT.format(2)}#1", "zwö lf"),
            (AT.format(3), "the end"),
        ]

    def test_what_was_handed_over_is_left_out(self):
        data = f"{AT.format(1)} one\n{AT.format(2)} two\n{AT.format(2)} three\n".encode()
        assert read(data, since=AT.format(2)) == [(f"{AT.format(2)}#1", "three")]
        assert since_time(Delivered(AT.format(2))) == "2026-01-05T03:00:00Z"
        assert since_time(Delivered("")) == ""

    def test_stamps_of_a_machine_that_is_not_in_utc(self):
        assert read(b"2026-01-05T05:00:00.5+02:00 x\n") == [(AT.format(500_000_000), "x")]

    def test_progress_bars_and_giant_lines(self):
        data = f"{AT.format(1)} 10%\r100%\n{AT.format(2)} {'x' * 50_000}\n{AT.format(3)} end\n".encode()
        lines = read(data, size=65536)
        assert [text for _, text in lines[:2]] == ["10%", "100%"]
        assert lines[2][1].startswith("x" * 8192 + " … [41808 more bytes]")
        assert lines[3] == (AT.format(3), "end")

    def test_words_of_the_server_itself_do_not_break_it(self):
        data = f"{AT.format(1)} one\nunable to retrieve container logs for containerd://abcdefghijklmnopqrstuvwxyz\n".encode()
        assert [text for _, text in read(data)] == [
            "one",
            "unable to retrieve container logs for containerd://abcdefghijklmnopqrstuvwxyz",
        ]


def test_without_the_provider_there_is_a_cure():
    code = (
        "import sys; sys.modules['airflow.providers.cncf.kubernetes.hooks.kubernetes'] = None\n"
        "from airflow_mlops.runners import get_runner\n"
        "get_runner('kubernetes').inspect('job')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                          env={"AIRFLOW_CONN_KUBERNETES_DEFAULT": json.dumps({"conn_type": "kubernetes"})})  # fmt: skip
    assert "pip install 'airflow-mlops[kubernetes]'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("host", "extra", "in_cluster"),
    [("10.0.0.1", {}, True), ("10.0.0.1", {"kube_config_path": "/k"}, None), (None, {}, None)],
)
def test_in_a_pod_its_own_account_is_the_default(monkeypatch, host, extra, in_cluster):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    if host:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    made = KubernetesClusterHook()._provider_hook(extra)
    assert made.in_cluster is in_cluster
    assert made.client_configuration is not KubernetesClusterHook()._provider_hook(extra).client_configuration


def test_a_runner_costs_no_import_of_a_client():
    code = (
        "import sys; from airflow_mlops.runners import get_runner; get_runner('kubernetes')\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('kubernetes', 'kubernetes_asyncio', 'boto3')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(RunnerError, match="Options of runner 'kubernetes' do not fit"):
        get_runner("kubernetes", pod={"color": "red"})
