from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_mlops.contract.protocol.distribution import (
    Topology,
    is_worker,
    launch,
    rank,
    read_topology,
    world_size,
)
from airflow_mlops.contract.protocol.failures import ParameterError
from airflow_mlops.contract.protocol.paths import Paths
from tests.fixtures.jobs import eventually


@pytest.fixture
def asked(tmp_path):
    def write(distributed, **files):
        config = tmp_path / "input/config"
        config.mkdir(parents=True, exist_ok=True)
        (config / "mlops.json").write_text(json.dumps({"distributed": distributed}))
        for name, content in files.items():
            (config / f"{name}.json").write_text(json.dumps(content))
        return Paths(tmp_path)

    return write


def test_nothing_asked_is_one_process(tmp_path):
    assert not read_topology(Paths(tmp_path), {}).distributed


def test_one_machine_meets_on_itself(asked):
    topology = read_topology(asked({"nodes": 1, "processes_per_node": 2}), {})
    assert topology == Topology(1, 2)
    assert topology.arguments() == [
        *("--nnodes", "1", "--nproc-per-node", "2", "--standalone", "--local-addr", "127.0.0.1"),
    ]


@pytest.mark.parametrize(
    ("environment", "rank", "where"),
    [
        ({"MLOPS_NODE_RANK": "1", "MLOPS_RENDEZVOUS": "train-0.train:3000"}, 1, "train-0.train:3000"),
        ({"JOB_COMPLETION_INDEX": "1", "MLOPS_RENDEZVOUS": "train-0.train"}, 1, "train-0.train:29400"),
        (
            {
                "AWS_BATCH_JOB_NODE_INDEX": "0",
                "AWS_BATCH_JOB_MAIN_NODE_INDEX": "1",
                "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS": "10.0.0.4",
            },
            1,
            "10.0.0.4:29400",
        ),
    ],
)
def test_several_machines_meet_where_the_runner_says(asked, environment, rank, where):
    topology = read_topology(asked({"nodes": 2, "processes_per_node": "gpu"}), environment)
    assert topology == Topology(2, "gpu", rank, where)
    assert topology.arguments()[:6] == ["--nnodes", "2", "--nproc-per-node", "gpu", "--node-rank", str(rank)]
    conf = f"is_host={int(rank == 0)},read_timeout=900"
    assert topology.arguments()[-4:] == ["--rdzv-endpoint", where, "--rdzv-conf", conf]


def test_sagemaker_says_who_is_there(asked):
    hosts = {"current_host": "algo-2", "hosts": ["algo-1", "algo-2"]}
    paths = asked({"nodes": 2, "processes_per_node": 1}, resourceconfig=hosts)
    assert read_topology(paths, {}) == Topology(2, 1, 1, "algo-1:29400")


def test_several_machines_without_a_place_to_meet_are_refused(asked):
    with pytest.raises(ParameterError, match=r"Cure: choose a place \(run_on\) with several machines"):
        read_topology(asked({"nodes": 2}), {})


@pytest.mark.parametrize(
    "wrong", [{"nodes": 0}, {"nodes": "two"}, {"processes_per_node": "cpu"}, [1], {"nodes": True}]
)
def test_what_cannot_be_meant_is_refused(asked, wrong):
    with pytest.raises(ParameterError, match="distributed: expected"):
        read_topology(asked(wrong), {})


def test_an_image_without_torch_says_so(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ParameterError, match=r"no torch\. Cure"):
        launch(Topology(1, 2), ["model_code.py", "train"])


def test_only_a_launched_process_has_a_rank():
    assert (rank({"RANK": "1"}), world_size({"WORLD_SIZE": "2"})) == (0, 1)
    launched = {"RANK": "1", "WORLD_SIZE": "2", "MLOPS_RANKS": "/tmp/ranks"}
    assert is_worker(launched)
    assert (rank(launched), world_size(launched)) == (1, 2)


#: As torchrun: its process has a session of its own, and gets SIGTERM from it. The launcher waits for it, or dies.
LAUNCHER = """
import os, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "{deaf}", sys.argv[-1]], start_new_session=True)
def stop(number, frame):
    os.killpg(child.pid, number)
signal.signal(signal.SIGTERM, stop)
while not os.path.exists(sys.argv[-1]):
    time.sleep(0.01)
if os.environ.get("DIES"):
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(child.wait())
""".replace(
    "{deaf}",
    "import os, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "open(sys.argv[1] + '.new', 'w').write(str(os.getpid())); os.rename(sys.argv[1] + '.new', sys.argv[1]); "
    "time.sleep(600)",
)
PROGRAM = """
import sys
from airflow_mlops.contract.protocol import distribution
distribution._STOP_SECONDS = 0.5
sys.exit(distribution.launch(distribution.Topology(1, 2), [sys.argv[1]]))
"""


def launch_instead(folder, launcher, word, **environment):
    """Launch with something else in torchrun's place."""
    torch = folder / "torch/distributed"
    torch.mkdir(parents=True)
    for package in (torch, torch.parent):
        (package / "__init__.py").touch()
    (torch / "run.py").write_text(launcher)
    path = f"{folder}:{Path(__file__).parents[4]}"
    environment = {**os.environ, "PYTHONPATH": path, **environment}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, word], env=environment)


@pytest.mark.parametrize(("dies", "code"), [("", 143), ("yes", 1)], ids=["stopped", "its launcher died"])
def test_a_process_that_does_not_listen_dies_with_the_training(tmp_path, dies, code):
    told = tmp_path / "pid"
    with launch_instead(tmp_path, LAUNCHER, str(told), DIES=dies) as launched:
        eventually(told.exists)
        pid = int(told.read_text())
        if not dies:
            launched.send_signal(signal.SIGTERM)
        assert launched.wait(20) == code
    eventually(lambda: not alive(pid))


#: As torchrun with two processes that leave their exit codes, and crash then.
CRASHING = """
import os, subprocess, sys
program = (
    "import os, sys; from airflow_mlops.contract.protocol import distribution; "
    "distribution.leave_exit_code(int(sys.argv[1])); os.abort()"
)
for rank, code in enumerate(sys.argv[-1].split(",")):
    environment = {**os.environ, "RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
    subprocess.run([sys.executable, "-c", program, code], env=environment)
sys.exit(1)
"""


@pytest.mark.parametrize(("left", "code"), [("0,0", 0), ("0,11", 11), ("0", 1), ("75,1", 75)])
def test_who_has_done_its_work_may_crash(tmp_path, left, code):
    assert launch_instead(tmp_path, CRASHING, left).wait(20) == code


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
