"""What the end of a job means: whether it succeeded, and if not, whose turn it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from airflow_mlops.contract.protocol.storable import storable
from airflow_mlops.spec.values import format_duration

OutcomeKind = Literal[
    "success",
    "parameters",
    "data",
    "assumption",
    "tests",
    "try_again",
    "stopped",
    "out_of_memory",
    "engine_gone",
    "preempted",
    "not_started",
    "stalled",
    "timeout",
    "failed",
]

#: Kind and meaning of each exit code of the model-code contract, and whether it is final.
EXIT_CODES: Mapping[int, tuple[OutcomeKind, bool, str]] = {
    0: ("success", True, "it succeeded"),
    10: (
        "parameters",
        True,
        "it refuses its parameters (exit code 10). Cure: correct training.parameters in the YAML",
    ),
    11: (
        "data",
        True,
        "it cannot use its data (exit code 11). Cure: look at the dataset version, or at what the model code expects",
    ),
    12: (
        "assumption",
        True,
        "an assumption that it makes does not hold (exit code 12). Cure: correct the data or the assumption",
    ),
    13: ("tests", True, "its test cases failed (exit code 13). Cure: see output/tests.xml for the cases"),
    75: ("try_again", False, "it asks to be tried again (exit code 75)"),
    143: ("stopped", False, "it was stopped from outside (exit code 143, SIGTERM)"),
}
#: Kind of what a runner says itself of a job's end, whether it is final, and in words.
CAUSES: Mapping[str, tuple[OutcomeKind, bool, str]] = {
    "preempted": ("preempted", False, "it lost its machine before it ended, and can be tried again"),
    "not_started": ("not_started", True, "it could not be started"),
    "not_scheduled": ("not_started", False, "it was not started in time"),
    "over_limit": ("failed", False, "it was stopped for using more than its limit"),
    "over_disk": ("failed", True, "it was stopped for writing more than it may"),
    "over_time": ("timeout", False, "it ran longer than its limit and was stopped"),
}
#: Ends before its time, after which another try of the same job goes on from the checkpoint that it left.
RESUMABLE = ("try_again", "stopped", "out_of_memory", "preempted", "stalled", "timeout")
#: Exit codes of shells and engines for a command that could not be run.
NOT_RUN = (125, 126, 127)
KILLED = 137
#: Characters of the model code's own words that go into a message.
TEXT_LIMIT = 2_000
#: Broken assumptions of the model code that go into a message, and characters of each.
PRINTED = 10
LINE_LIMIT = 500


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    :param kind: class of the end.
    :param final: trying again without a change cannot help.
    :param message: what happened, in the model code's own words where it left some, and the cure.
    """

    kind: OutcomeKind
    final: bool
    message: str

    @property
    def resumable(self) -> bool:
        """Whether its checkpoint is worth going on from."""
        return self.kind in RESUMABLE


def gave_up(kind: Literal["stalled", "timeout"], seconds: float, failure_text: str = "") -> Outcome:
    """Outcome of a job that was stopped because nobody wanted to wait any longer.

    :param seconds: how long it was waited for.
    :param failure_text: content of ``output/failure``; may be empty.
    """
    if kind == "timeout":
        words = (
            f"it ran longer than {_time(seconds)} and was stopped. Cure: raise training.timeout or resources"
        )
    else:
        words = (
            f"it printed nothing for {_time(seconds)} and was stopped. Cure: find out where it hangs, print progress "
            "more often, or raise training.stall_timeout"
        )
    return Outcome(kind, False, _sentence(words, failure_text.strip()[:TEXT_LIMIT]))


def _time(seconds: float) -> str:
    """A time in the unit that says it: ``90 s``, ``2h``, ``1d``."""
    if seconds < 120 or seconds != int(seconds):
        return f"{seconds:.0f} s"
    return format_duration(timedelta(seconds=seconds))


def broken_assumptions(content: bytes) -> list[dict[str, Any]]:
    """What the model code found broken, from its ``output/assumptions.json``; nothing where that is no list of mappings.

    :param content: it comes from a container, and may be anything.
    """
    try:
        found = json.loads(content, parse_constant=str)
    except (ValueError, RecursionError):
        return []
    # The report is a file of its own, so each entry is bounded and not all of them together.
    return [storable(one) for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def read_broken_assumptions(file: str) -> list[dict[str, Any]]:
    """As :func:`broken_assumptions`, of a file; for :func:`airflow_mlops.primitives.container_output.judging.judge_file`."""
    return broken_assumptions(Path(file).read_bytes())


def assumption_lines(failures: Sequence[Mapping[str, Any]]) -> str:
    """Broken assumptions in words, at most ten, each on one line."""
    lines = [f"  {_assumption(failure)}"[:LINE_LIMIT] for failure in failures[:PRINTED]]
    more = [f"  … and {len(failures) - PRINTED} more"] if len(failures) > PRINTED else []
    return "\n".join([*lines, *more])


def classify(state: Mapping[str, Any], failure_text: str = "") -> Outcome:
    """Class the end of a job.

    A code of the contract is the model code's own judgement and counts more than the kernel's killing of one of
    its children.

    :param state: ``status``, ``exit_code``, ``out_of_memory`` and ``error`` as a runner gives them.
    :param failure_text: content of ``output/failure``; may be empty.
    """
    text, error = failure_text.strip()[:TEXT_LIMIT], str(state.get("error") or "").strip()
    if state.get("status") == "gone":
        reason = f" ({error})" if error else ""
        return Outcome(
            "engine_gone",
            False,
            f"the job is no longer there, and neither is its result{reason}: its machine was restarted, or somebody "
            "removed it. It can be tried again.",
        )
    if state.get("status") == "exited" and state.get("cause") in CAUSES:
        kind, final, message = CAUSES[str(state["cause"])]
        return Outcome(kind, final, _sentence(f"{message}: {error.rstrip('.')}" if error else message, text))
    if state.get("status") != "exited" or state.get("exit_code") is None:
        raise ValueError(f"Only a job that has ended has an outcome; this one is {state.get('status')!r}.")
    return _classify_exit(int(state["exit_code"]), bool(state.get("out_of_memory")), error, text)


def _classify_exit(code: int, out_of_memory: bool, error: str, text: str) -> Outcome:
    kind, final, message = EXIT_CODES.get(code, ("failed", False, ""))
    if message and not (kind == "stopped" and out_of_memory):
        if kind == "stopped" and error:  # who stopped it, in the words of whoever ran it
            message = f"{message}: {error.rstrip('.')}"
        return Outcome(kind, final, _sentence(message, text))
    if out_of_memory or code == KILLED:
        what = (
            "it needed more memory than its limit"
            if out_of_memory
            else "it was killed (exit code 137, SIGKILL), most likely because the machine ran out of memory"
        )
        cure = "Cure: raise training.resources.memory, or use less data"
        return Outcome("out_of_memory", False, _sentence(f"{what}. {cure}", text))
    if code in NOT_RUN and error:
        message = f"its command could not be run: {error} (exit code {code}). Cure: correct the entrypoint"
        return Outcome("failed", True, _sentence(message, text))
    reason = f" ({error})" if error else ""
    hint = "" if text else ". Cure: its last log lines say why"
    return Outcome("failed", False, _sentence(f"it failed with exit code {code}{reason}{hint}", text))


def _assumption(failure: Mapping[str, Any]) -> str:
    about = f"{failure['column']}: " if failure.get("column") else ""
    words = f"expected {failure.get('expected') or failure.get('rule') or '?'}, observed {failure.get('observed')}"
    examples = failure.get("examples")
    shown = f" e.g. {examples[0]}" if isinstance(examples, list) and examples else ""
    return " ".join(f"{about}{words}{shown}".split())


def _sentence(message: str, text: str) -> str:
    return f"{message}. It says: {text}" if text else f"{message}."
