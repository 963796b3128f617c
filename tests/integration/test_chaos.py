"""What survives what: a real Airflow and a real Docker Engine, whose processes are killed while jobs run.

Every job counts, a number a line, so that a lost or doubled line shows; the engine's events say how many containers
there ever were, and Airflow's API what people see in the log. docs/howto/failures.md has a row for each scenario.
"""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time

import pytest

from tests.fixtures.chaos_airflow import SECOND

pytestmark = [pytest.mark.docker, pytest.mark.system]

ON_WORKER = {"deferrable": False}
SHORT = {"lines": 6}
#: What each task does; the jobs count until they are told that it is enough, unless their lines are given.
SCENARIOS = {
    # Processes of Airflow are killed.
    "triggerer_killed": {},
    "worker_killed": ON_WORKER,
    "scheduler_killed": {},
    "both_killed": ON_WORKER,
    "dies_created": {**SHORT, "die": "created"},
    "dies_started": {**SHORT, "die": "started"},
    "dies_collected": {**SHORT, "die": "collected"},
    "dies_removed": {**SHORT, "die": "removed"},
    "full_disk": {**SHORT, "bytes": 3_000_000, "full_disk": True, "retries": 20},
    "marked_meanwhile": {},
    # One of two triggerers stands still for a while, then the other is killed.
    "triggerer_frozen": {},
    "frozen_ends": {"hold": True},
    # The API server is away for two minutes, and the engine is restarted meanwhile.
    "away_ends_within": {},
    "away_goes_on": {},
    "away_on_worker": {"retries": 30, **ON_WORKER},
    # The engine's machine is restarted.
    "engine_stopped": {},
    "engine_stopped_on_worker": ON_WORKER,
    "engine_killed": {},
    "engine_killed_on_worker": ON_WORKER,
    # People.
    "living": {},
    "finished": SHORT,
    "mark": {},
    "mark_on_worker": ON_WORKER,
    "clear": {},
    "clear_on_worker": ON_WORKER,
    "delete": {},
    "delete_on_worker": ON_WORKER,
    "timeout": {"timeout": 15},
    "timeout_on_worker": {"timeout": 15, **ON_WORKER},
    "again": SHORT,
    "pooled": {"lines": 12, "pool": "one_at_a_time"},
}
#: Most seconds between a person's action and the end of the job: a busy machine's, of jobs that count without end.
GONE = 90
#: Lines of the last second before a worker was killed: how far its log was is saved no more often.
LAST_SECOND = 8
#: Lines of a job while its engine is dead.
MEANWHILE = 40


class Storm:
    """Runs of several scenarios at once, and what became of them."""

    def __init__(self, airflow, engine, *names):
        self.airflow, self.engine = airflow, engine
        self.runs = {name: airflow.trigger(name) for name in names}

    def counting(self, *names, lines=3):
        """Wait until these have logged so many numbers."""
        for name in names:
            self.airflow.until(
                f"lines of {name}", lambda n=name: self.airflow.heard(n, self.runs[n]) >= lines
            )

    def going_on(self, *names, lines=3):
        """Wait until these have logged more numbers than now."""
        before = {name: self.airflow.heard(name, self.runs[name]) for name in names}
        for name in names:
            self.counting(name, lines=before[name] + lines)

    def enough(self, *names):
        """Tell the jobs to come to their end."""
        for name in names:
            self.engine.say_enough(f"mlops-{name}-train-")

    def second_is_enough(self, name):
        """Wait for a second job, and tell it to come to its end."""
        self.airflow.until(f"second job of {name}", lambda: self.made(name) == (2, 1))
        self.enough(name)

    def survived(self, name, *, containers=1, resumed=False, repeated=0, at_once=1, anew=False, weights=10):
        """The run succeeded, with one job at a time, one result, and a log without gap or double line.

        :param repeated: lines that a later try may print again.
        :param at_once: lines that may share their millisecond with another one: Airflow merges files by the millisecond,
            and shows what is in two of them twice where another line comes between.
        :param anew: each try counts from the beginning.
        """
        run_id = self.runs[name]
        state = self.airflow.finished(name, run_id)
        assert state == "success", self.airflow.log(name, run_id)[-4000:]
        result = self.airflow.client.xcom(name, run_id, "train")
        lines = result["counted"]
        assert result["weights"] == weights
        assert (result["began_at"] > 0) == resumed
        assert self.made(name) == (containers, 1), name
        assert self.left(name) == []
        tries = self.airflow.numbers(name, run_id)
        for numbers in map(_without_doubles, tries):
            assert numbers == list(range(numbers[0], numbers[-1] + 1)) if numbers else True, (name, tries)
        if anew:  # what an earlier try had counted to is not the result's
            assert [numbers[0] for numbers in tries] == [1] * containers, (name, tries)
            assert tries[-1][-1] == lines, (name, tries)
        else:
            printed = [number for numbers in tries for number in numbers]
            assert sorted(set(printed)) == list(range(1, lines + 1)), (name, tries)
            assert len(printed) - lines <= repeated + at_once, (name, tries)

    def made(self, name):
        """How many containers there ever were, and how many at once."""
        return self.engine.created(f"mlops-{name}-train-"), self.engine.most_at_once(f"mlops-{name}-train-")

    def left(self, name):
        return self.engine.containers(f"mlops-{name}-train-")

    def stopped(self, name, since, containers=1):
        """Wait until this many jobs were asked to stop, wrote their checkpoint, and are gone; seconds that it took."""
        prefix = f"mlops-{name}-train-"

        def gone():
            events = self.engine.events(prefix, "destroy")
            return events[containers - 1] if len(events) >= containers else None

        last = self.airflow.until(f"end of {name}", gone)
        (killed, *_), ends = self.engine.events(prefix, "kill"), self.engine.events(prefix, "die")
        assert killed.said["signal"] == str(signal.SIGTERM.value)
        assert ends[0].said["exitCode"] == "143", name
        return last.at / 1e9 - since


def _without_doubles(numbers):
    return list(dict.fromkeys(numbers))


def test_killed_processes_of_airflow(chaos, chaos_engine, small_disk):
    """Worker, triggerer, scheduler, singly and together; a worker at each step of a job's life; a full disk."""
    dying = [name for name in SCENARIOS if name.startswith("dies_")]
    killed = ["triggerer_killed", "worker_killed", "scheduler_killed", "both_killed"]
    storm = Storm(chaos, chaos_engine, *killed, "marked_meanwhile", "full_disk", *dying)
    storm.counting(*killed, "marked_meanwhile")

    chaos.kill("triggerer")
    chaos.kill_worker("worker_killed", storm.runs["worker_killed"])
    chaos.mark_failed("marked_meanwhile", storm.runs["marked_meanwhile"])
    chaos.kill("scheduler")
    for component in ("triggerer", "scheduler"):
        chaos.revive(component, wait=False)

    storm.going_on(*killed)
    storm.enough(*killed)
    chaos.until("full disk", lambda: "No space left" in chaos.log("full_disk", storm.runs["full_disk"]))
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    for name in ("triggerer_killed", "scheduler_killed"):
        storm.survived(name)
    for name in ("worker_killed", "both_killed"):
        storm.survived(name, repeated=LAST_SECOND)
    for name in dying:
        storm.survived(name, repeated=LAST_SECOND)
    storm.survived("full_disk", weights=3_000_000, repeated=LAST_SECOND)


def test_a_triggerer_that_stood_still_leaves_its_jobs_to_the_other(chaos, chaos_engine):
    """And takes them back when that one is killed; a task that is ended by hand is ended by whoever has it."""
    names = ["triggerer_frozen", "frozen_ends"]
    storm = Storm(chaos, chaos_engine, *names)
    storm.counting(*names)
    chaos.freeze("triggerer")
    frozen = time.monotonic()
    chaos.revive(SECOND)
    storm.going_on(*names)
    try:
        # One job ends meanwhile, and a worker has come for its result when the first triggerer is back.
        storm.enough("frozen_ends")
        run = storm.runs["frozen_ends"]
        chaos.until("a worker", lambda: chaos.running("frozen_ends", run))
        time.sleep(max(0, 45 - (time.monotonic() - frozen)))
        chaos.thaw("triggerer")

        told = "goes on: another triggerer or a worker has it now"
        for name in names:
            chaos.until(f"the first one's word of {name}", lambda n=name: told in chaos.log(n, storm.runs[n]))
        (chaos.dags / "frozen_ends.go").touch()
        storm.going_on("triggerer_frozen")
        storm.survived("frozen_ends")
    finally:
        chaos.kill(SECOND)
    storm.going_on("triggerer_frozen")
    storm.enough("triggerer_frozen")
    storm.survived("triggerer_frozen")


def test_a_tuning_outlives_its_triggerer_and_its_worker(chaos, chaos_engine):
    """The one while trials run, the other while it completes: each trial is begun once, and the best one found."""
    run_id, trials = chaos.trigger("tuning"), "mlops-tuning-tune-"
    chaos.until("two trials", lambda: len(chaos_engine.containers(trials, running=True)) == 2)
    chaos.kill("triggerer")
    chaos.revive("triggerer", wait=False)

    assert chaos.finished("tuning", run_id) == "success", chaos.log("tuning", run_id, "tune")[-4000:]

    result = chaos.client.xcom("tuning", run_id, "tune")
    assert (result["parameters"]["lines"], result["tuning"]["values"]) == (18, [18.0])
    assert result["tuning"]["trials"] == 4
    assert chaos.task("tuning", run_id, "tune")["try_number"] == 2
    begun = sorted(event.name.rpartition("-")[2] for event in chaos_engine.events(trials, "start"))
    assert begun == ["t0", "t1", "t2", "t3"]
    assert chaos_engine.containers(trials) == []


def test_the_reaper_removes_what_belongs_to_finished_tasks(chaos, chaos_engine):
    """What a succeeded task left, a task of a deleted run too; not a living job, and not another Airflow's."""
    storm = Storm(chaos, chaos_engine, "living", "finished")
    storm.counting("living")
    (living,) = storm.left("living")
    storm.survived("finished")

    def leave(name, **changed):
        """A container as this Airflow makes them, with other labels."""
        given = json.loads(chaos_engine("inspect", "--format", "{{json .Config.Labels}}", living))
        labels = given | {
            f"ai.airflow-mlops.{key}": value for key, value in {"name": name, **changed}.items()
        }
        options = [f"--label={key}={value}" for key, value in labels.items()]
        chaos_engine(
            "create", "--name", name, "--network=none", *options, "airflow-mlops-test-chaos:1", "train"
        )

    over = {"dag_id": "finished", "run_id": storm.runs["finished"]}
    leave("of-a-finished-task", **over)
    leave("of-a-deleted-run", **{**over, "run_id": "manual__2020-01-01"})
    leave("of-another-airflow", **over, airflow="another")
    leave("of-another-store", **over, store="/somewhere/else")

    run_id = chaos.trigger("reaper")

    assert chaos.finished("reaper", run_id) == "success"
    removed = chaos.client.xcom("reaper", run_id, "reap")["removed"]
    # Where the triggerer was dead at that moment, its successor stops the job, or does not come to know of it.
    ours = [name for name in removed if not name.startswith("mlops-marked_meanwhile-")]
    assert sorted(ours) == ["of-a-deleted-run", "of-a-finished-task"]
    assert storm.left("marked_meanwhile") == []
    assert {living, "of-another-airflow", "of-another-store"} <= set(chaos_engine.containers())
    assert not {*removed} & {*chaos_engine.containers()}
    chaos_engine("rm", "of-another-airflow", "of-another-store")
    storm.enough("living")
    storm.survived("living")


def test_people_end_tasks_and_the_clock_does(chaos, chaos_engine):
    """Mark failed, Clear, deletion and execution_timeout: SIGTERM, checkpoint, gone long before the job would end by itself."""
    actions = {"mark": chaos.mark_failed, "clear": chaos.clear, "delete": chaos.delete_run}
    ended = {f"{name}{where}": act for name, act in actions.items() for where in ("", "_on_worker")}
    late = ["timeout", "timeout_on_worker"]
    storm = Storm(chaos, chaos_engine, *late, *ended, "again")
    seconds = [threading.Thread(target=storm.second_is_enough, args=(name,)) for name in late]
    for second in seconds:
        second.start()
    storm.counting(*ended)
    # Of its run, not of its task: who clears while Airflow ends the run is not heard.
    assert chaos.finished("again", storm.runs["again"]) == "success"
    chaos.clear("again", storm.runs["again"])
    asked = {}
    for name, act in ended.items():
        asked[name] = time.time()
        act(name, storm.runs[name])

    assert {name: took for name in ended if (took := storm.stopped(name, asked[name])) >= GONE} == {}
    assert {chaos.finished(name, storm.runs[name]) for name in ("mark", "mark_on_worker")} == {"failed"}
    # A retry after a timeout goes on from the checkpoint; Clear begins anew, of a running and of a succeeded task.
    for name, second in zip(late, seconds, strict=True):
        second.join()
        storm.survived(name, containers=2, resumed=True)
    for name in ("clear", "clear_on_worker"):
        storm.second_is_enough(name)
        storm.survived(name, containers=2, anew=True)
    storm.survived("again", containers=2, anew=True)
    for name in ("mark", "mark_on_worker", "delete", "delete_on_worker"):
        assert (storm.made(name), storm.left(name)) == ((1, 1), []), name


def test_a_pool_bounds_the_jobs_that_there_are_at_once(chaos, chaos_engine):
    """With deferred tasks included, as docs/howto/gpus.md sets it up."""
    pool = {"name": "one_at_a_time", "slots": 1, "include_deferred": True}
    chaos.client.call("POST", "/pools", pool)
    storm = Storm(chaos, chaos_engine, "pooled")
    another = chaos.trigger("pooled")
    assert chaos.finished("pooled", another) == "success"
    storm.survived("pooled", containers=2)


def test_the_api_server_away_for_two_minutes(chaos, chaos_engine):
    """No job notices, nor that its engine is restarted meanwhile with live-restore."""
    names = ["away_ends_within", "away_goes_on", "away_on_worker"]
    storm = Storm(chaos, chaos_engine, *names)
    storm.counting(*names)
    running = sorted(chaos_engine.containers(running=True))
    chaos.kill("api-server")
    away = time.monotonic()
    chaos_engine.live_restore(keep=True)
    chaos_engine.restart()
    assert sorted(chaos_engine.containers(running=True)) == running
    chaos_engine.live_restore(keep=False)
    storm.enough("away_ends_within")
    time.sleep(120 - (time.monotonic() - away))

    chaos.revive("api-server")

    storm.going_on("away_goes_on", "away_on_worker")
    storm.enough("away_goes_on", "away_on_worker")
    storm.survived("away_ends_within")
    storm.survived("away_goes_on")
    # While Airflow is away, nobody can be told how far the log is.
    storm.survived("away_on_worker", repeated=200)


@pytest.mark.parametrize(("way", "by"), [("stopped", signal.SIGTERM), ("killed", signal.SIGKILL)])
def test_the_engine_restarted_without_live_restore(chaos, chaos_engine, way, by):
    """Its jobs end with it; the retries go on from their checkpoints, one job at a time."""
    names = [f"engine_{way}", f"engine_{way}_on_worker"]
    storm = Storm(chaos, chaos_engine, *names)
    storm.counting(*names)
    chaos_engine.restart(by=by)
    for name in names:
        storm.second_is_enough(name)
    for name in names:
        # A killed engine gets what was printed meanwhile when it is back.
        storm.survived(name, containers=2, resumed=True, at_once=MEANWHILE if by == signal.SIGKILL else 1)
