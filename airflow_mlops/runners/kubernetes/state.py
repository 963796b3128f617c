"""What the objects of a Kubernetes Job say of a job: waiting, running, ended, and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_mlops.runners.kubernetes.manifests import CONTAINER, NAME, PREFIX, STOPPED, TOKEN
from airflow_mlops.runners.protocol import Cause, FoundJob, JobState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Object = dict[str, Any]

#: Label of the pods of a Job with several: which one it is.
INDEX = "batch.kubernetes.io/job-completion-index"
#: Reasons for which a container does not start, that no waiting mends.
NEVER_STARTS = ("InvalidImageName", "ErrImageNeverPull")
#: Words of a registry that says no, and not that it is away.
PULL_REFUSED = (
    "not found",
    "manifest unknown",
    "denied",
    "unauthorized",
    "authentication required",
    "no match",
)
IMAGE_PROBLEMS = ("ErrImagePull", "ImagePullBackOff", "ImageInspectError", "ModelCodeUnavailableError")
#: Reasons of a pod whose machine was taken away, or is no longer heard of.
LOST = ("NodeLost", "Preempting", "Preempted", "NodeShutdown", "Shutdown", "Terminated", "NodeAffinity")
#: Exit codes of a process that was told to end from outside.
ENDED_FROM_OUTSIDE = (None, 137, 143)
STOPPED_EXIT = 143
#: Seconds that a machine may be silent after it should have ended a pod.
SILENCE = 30
#: Characters of the server's own words that go into an error.
WORDS = 1_000


@dataclass(frozen=True)
class Seen:
    """A Job and its pods at one moment.

    :param pods: those of this Job, the first machine's first.
    """

    job: Object | None
    pods: tuple[Object, ...] = ()

    @classmethod
    def of(cls, job: Object | None, pods: Iterable[Object]) -> Seen:
        """Leave out the pods of an earlier Job of the same name, which may still be ending."""
        uid = job["metadata"].get("uid") if job else None
        mine = [pod for pod in pods if uid in (owner.get("uid") for owner in _owners(pod))]
        return cls(job, tuple(sorted(mine, key=lambda pod: (_index(pod), pod["metadata"].get("name", "")))))

    @property
    def first(self) -> Object | None:
        """The pod whose output and results count."""
        return next((pod for pod in self.pods if _index(pod) == 0), None)


def job_state(seen: Seen, now: datetime, start_timeout: float) -> JobState:
    """What is known of the job.

    :param start_timeout: seconds that it may wait for a machine, its image and its volumes.
    """
    job = seen.job
    if job is None or job["metadata"].get("deletionTimestamp"):
        return JobState("gone")
    if _is_over(seen, now):
        return _ended(seen)
    if any(_running(pod) or _terminated(pod) for pod in seen.pods):
        return JobState("running", started_at=_started(seen), image_digest=_digest(seen))
    return _waiting(seen, now, start_timeout)


def owner_of(job: Object) -> str:
    """Name of the job that a Job was made for; empty when somebody else made it."""
    return str((job["metadata"].get("annotations") or {}).get(NAME, ""))


def found_job(job: Object) -> FoundJob:
    """A Job by what is written on it."""
    said = job["metadata"]["annotations"]
    labels = {key.removeprefix(PREFIX): value for key, value in said.items() if key.startswith(PREFIX)}
    own = {key.removeprefix(PREFIX) for key in (NAME, TOKEN, STOPPED)}
    return FoundJob(
        name=said[NAME],
        labels={key: value for key, value in labels.items() if key not in own},
        created_at=datetime.fromisoformat(job["metadata"]["creationTimestamp"]),
    )


def logs_are_there(pod: Object | None) -> bool:
    """Whether a pod's container has begun to speak."""
    return pod is not None and bool(_running(pod) or _terminated(pod))


# Ended ---------------------------------------------------------------------------------------------


def _is_over(seen: Seen, now: datetime) -> bool:
    job = seen.job or {}
    if _condition(job, "Complete") or _condition(job, "Failed"):
        return True
    if _stopped(job) and not any(_alive(pod) for pod in seen.pods):
        return True
    wanted = int((job.get("spec") or {}).get("completions") or 1)
    if any(_is_lost(pod, now) for pod in seen.pods):
        return True
    return len(seen.pods) >= wanted and not any(_alive(pod) for pod in seen.pods)


def _ended(seen: Seen) -> JobState:
    job = seen.job or {}
    pod = _culprit(seen.pods)
    if pod is None:
        return _ended_without_pod(job)
    end = _terminated(pod) or {}
    code, error = end.get("exitCode"), ""
    cause: Cause = ""
    if code == 0:
        return _exited(seen, pod, 0)
    reason = _reason(pod)
    if _stopped(job):
        code = STOPPED_EXIT if code is None else code
    elif code in ENDED_FROM_OUTSIDE and end.get("reason") != "OOMKilled":
        cause, error = _why_ended(pod, reason)
    elif end.get("reason") in ("StartError", "ContainerCannotRun"):
        cause = "not_started"
        error = f"{_words(end)}. Cure: correct the image's ENTRYPOINT, or what the pod may not do"
    machines = int(job["spec"].get("completions") or 1)
    if not error and machines > 1:
        where = f"machine {_index(pod)} of {machines}"
        error = f"{where}: {_words(end)}" if _index(pod) else where
    return _exited(seen, pod, code, error, cause)


def _why_ended(pod: Object, reason: str) -> tuple[Cause, str]:
    """Cause and words for a pod that was told to end, and not by us."""
    status = pod.get("status") or {}
    words = _words(status)
    disrupted = _condition(pod, "DisruptionTarget")
    if reason == "DeadlineExceeded":
        return (
            "over_time",
            f"the pod's activeDeadlineSeconds is over ({words}). Cure: raise training.timeout",
        )
    if disrupted:
        return "preempted", f"{disrupted.get('reason', 'DisruptionTarget')}: {_words(disrupted) or words}"
    if reason == "Evicted" and "exceeds the" in words:
        return "over_limit", f"{words}. Cure: raise training.kubernetes.disk, or write less"
    if reason in (*LOST, "Evicted") or pod["metadata"].get("deletionTimestamp"):
        return "preempted", f"{reason}: {words}" if words else reason or "its pod was deleted from outside"
    return "", ""


def _ended_without_pod(job: Object) -> JobState:
    if complete := _condition(job, "Complete"):
        return JobState("exited", 0, finished_at=complete.get("lastTransitionTime"))
    if _stopped(job):
        return JobState("exited", STOPPED_EXIT, finished_at=_stopped(job), error="it was stopped")
    failed = _condition(job, "Failed") or {}
    finished = failed.get("lastTransitionTime")
    if failed.get("reason") == "DeadlineExceeded":
        error = f"{_words(failed)}. Cure: raise training.timeout"
        return JobState("exited", finished_at=finished, error=error, cause="over_time")
    error = f"its pod was deleted from outside ({failed.get('reason')}: {_words(failed)})"
    return JobState("exited", finished_at=finished, error=error, cause="preempted")


def _exited(seen: Seen, pod: Object, code: int | None, error: str = "", cause: Cause = "") -> JobState:
    end = _terminated(pod) or {}
    finished = _condition(seen.job or {}, "Failed") or {}
    if code is None and not cause:
        # A machine that is gone does not say how it ended.
        cause, error = "preempted", error or "its machine does not say how it ended"
    return JobState(
        "exited",
        exit_code=code,
        out_of_memory=end.get("reason") == "OOMKilled",
        started_at=_started(seen),
        finished_at=end.get("finishedAt") or finished.get("lastTransitionTime"),
        error=error[:WORDS],
        image_digest=_digest(seen),
        cause=cause,
    )


def _culprit(pods: Sequence[Object]) -> Object | None:
    """The pod that decided how the job ended: who failed first, else the first machine's."""
    failed = [
        pod
        for pod in pods
        if (_terminated(pod) or {}).get("exitCode") or _phase(pod) == "Failed" or not _terminated(pod)
    ]
    # Those that the cluster ended because of the first one come after it.
    failed.sort(key=lambda pod: str((_terminated(pod) or {}).get("finishedAt") or "~"))
    return failed[0] if failed else (pods[0] if pods else None)


# Waiting -------------------------------------------------------------------------------------------


def _waiting(seen: Seen, now: datetime, start_timeout: float) -> JobState:
    job = seen.job or {}
    since = _time((job.get("status") or {}).get("startTime") or job["metadata"].get("creationTimestamp"))
    late = since is not None and now - since > timedelta(seconds=start_timeout)
    image = str(_container_spec(job).get("image", ""))
    for pod in seen.pods:
        reason, words = _hindrance(pod)
        if reason in NEVER_STARTS:
            return _not_started(f"{reason}: {words}. Cure: correct code.image ({image})")
        if reason in IMAGE_PROBLEMS and (late or any(word in words.lower() for word in PULL_REFUSED)):
            return _not_started(
                f"image {image} cannot be pulled ({reason}: {words}). Cure: check its name, and give the registry's "
                "login by training.kubernetes.image_pull_secrets"
            )
        if late:
            what = f"{reason}: {words}" if reason else "its pod is still being prepared"
            cure = (
                "Cure: free or add machines, lower training.resources, correct node_selector and tolerations, or raise "
                "training.kubernetes.start_timeout"
            )
            return JobState(
                "exited", error=f"{what} after {start_timeout:.0f} s. {cure}"[:WORDS], cause="not_scheduled"
            )
    if late and not seen.pods and not (job.get("spec") or {}).get("suspend"):
        return JobState(
            "exited",
            error=f"the cluster made no pod in {start_timeout:.0f} s. Cure: kubectl describe job "
            f"{job['metadata']['name']} says why (a quota, most likely)",
            cause="not_scheduled",
        )
    return JobState("created", image_digest=_digest(seen))


def _not_started(error: str) -> JobState:
    return JobState("exited", error=error[:WORDS], cause="not_started")


def _hindrance(pod: Object) -> tuple[str, str]:
    """Why a pod does not run yet, in one word and in the server's."""
    scheduled = _condition(pod, "PodScheduled", "False")
    if scheduled:
        return str(scheduled.get("reason") or "Unschedulable"), _words(scheduled)
    waiting = (_container(pod).get("state") or {}).get("waiting") or {}
    return str(waiting.get("reason") or ""), _words(waiting)


# Parts of objects ----------------------------------------------------------------------------------


def _owners(pod: Object) -> list[Object]:
    return pod["metadata"].get("ownerReferences") or []


def _index(pod: Object) -> int:
    metadata = pod["metadata"]
    said = (metadata.get("labels") or {}).get(INDEX) or (metadata.get("annotations") or {}).get(INDEX) or "0"
    return int(said)


def _container_spec(job: Object) -> Object:
    containers = job.get("spec", {}).get("template", {}).get("spec", {}).get("containers") or [{}]
    return dict(containers[0])


def _container(pod: Object) -> Object:
    """Status of the model's container; a cluster may add some of its own."""
    found = (pod.get("status") or {}).get("containerStatuses") or []
    return next((dict(each) for each in found if each.get("name") == CONTAINER), {})


def _running(pod: Object) -> Object | None:
    return (_container(pod).get("state") or {}).get("running")


def _terminated(pod: Object) -> Object | None:
    return (_container(pod).get("state") or {}).get("terminated")


def _phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase") or "")


def _reason(pod: Object) -> str:
    return str((pod.get("status") or {}).get("reason") or "")


def _alive(pod: Object) -> bool:
    return not _terminated(pod) and _phase(pod) not in ("Succeeded", "Failed")


def _is_lost(pod: Object, now: datetime) -> bool:
    """Whether a pod's machine should have ended it long ago, and does not answer."""
    if not _alive(pod):
        return False
    due = _time(pod["metadata"].get("deletionTimestamp"))
    return _reason(pod) == "NodeLost" or (due is not None and now - due > timedelta(seconds=SILENCE))


def _stopped(job: Object) -> str:
    return str(((job.get("metadata") or {}).get("annotations") or {}).get(STOPPED) or "")


def _condition(thing: Object, kind: str, status: str = "True") -> Object | None:
    conditions = (thing.get("status") or {}).get("conditions") or []
    return next(
        (each for each in conditions if each.get("type") == kind and each.get("status") == status), None
    )


def _words(thing: Mapping[str, Any]) -> str:
    return " ".join(str(thing.get("message") or thing.get("reason") or "").split())[:WORDS].rstrip(".")


def _started(seen: Seen) -> str | None:
    pod = seen.first
    state = (_running(pod) or _terminated(pod) or {}) if pod else {}
    return state.get("startedAt")


def _digest(seen: Seen) -> str:
    """``repository@sha256:…``; empty for an image that no registry knows, which no pod can be told by its digest."""
    said = str(_container(seen.first).get("imageID") or "") if seen.first else ""
    return said.rpartition("://")[2] if "@" in said else ""


def _time(stamp: str | None) -> datetime | None:
    return datetime.fromisoformat(stamp) if stamp else None
