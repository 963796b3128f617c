"""Content of containers is judged in a process of its own, with limits of time and memory.

A regular expression, an alias of YAML or a page of Parquet may take any time and any memory, and nothing of Python can
stop it from within. What comes back is a small JSON value.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from airflow_mlops import exceptions
from airflow_mlops.exceptions import ContractError, MLOpsError

__all__ = ["judge", "judge_file"]

#: Seconds of a processor, and bytes of address space, that a judgement may take.
SECONDS, MEMORY = 30, 2 * 1024**3
#: Seconds that pass meanwhile, for each of the processor's: a busy machine is no fault of what is judged.
PATIENCE = 20
#: Bytes of what comes back.
ANSWER_LIMIT = 64 * 1024**2
#: Characters of an error's message.
MESSAGE_LIMIT = 8_000
#: Bytes of a file of JSON that is read in place: with time and memory in proportion to its length, that is a few MiB for
#: some milliseconds, and a child would take longer.
SMALL = 64 * 1024
#: Exit code of a judgement that needs more memory than it may have.
OUT_OF_MEMORY = 77


def judge(
    function: str, *arguments: Any, what: str, seconds: float | None = None, memory: int | None = None
) -> Any:
    """Call a function of this package in a child that is killed at its limits.

    :param function: ``module:name``; its errors are raised here again when they are of this package.
    :param arguments: JSON values.
    :param what: what is judged, for the message.
    :param seconds: of a processor, until it is killed; ``SECONDS`` unless said.
    :param memory: bytes of address space; ``MEMORY`` unless said.
    :return: what it returns, a JSON value.
    :raises ContractError: it takes more time or memory, or comes to no end of its own.
    """
    seconds, memory = seconds or SECONDS, memory or MEMORY
    asked = json.dumps(
        {"function": function, "arguments": arguments, "seconds": seconds, "memory": memory}, allow_nan=True
    )
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__],
            input=asked.encode("utf-8", "surrogatepass"),
            capture_output=True,
            timeout=seconds * PATIENCE,
            check=False,
            env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    except subprocess.TimeoutExpired as error:
        raise ContractError(f"{what}: cannot be judged within {seconds * PATIENCE:g} s. {_CURE}") from error
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise ContractError(f"{what}: cannot be judged within {seconds:g} s of a processor. {_CURE}")
    if done.returncode == OUT_OF_MEMORY:
        raise ContractError(f"{what}: cannot be judged within {memory // 1024**2} MiB of memory. {_CURE}")
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:
        said = done.stderr.decode(errors="replace").strip()[-500:]
        raise ContractError(
            f"{what}: judging it ended with exit code {done.returncode}. {said} {_CURE}"
        ) from error
    if "error" in answer:
        kind, text = answer["error"]
        raise getattr(exceptions, kind, ContractError)(text)
    return answer["found"]


def judge_file(function: str, path: Path, what: str, *arguments: Any, limit: int) -> Any:
    """Call a function that reads a file in time and memory in proportion to its length: here when it is small.

    :param function: as for :func:`judge`; it takes the path, as a text, and ``arguments``.
    :param limit: bytes that are read at most.
    :raises ContractError: the file is longer, or as :func:`judge` says.
    """
    size = path.stat().st_size
    if size > limit:
        raise ContractError(f"{what} has {size} bytes; at most {limit} are read. {_CURE}")
    if size > SMALL:
        return judge(function, str(path), *arguments, what=what)
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)(str(path), *arguments)


_CURE = "Cure: let the model code write it smaller and simpler."


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    module, _, name = asked["function"].partition(":")
    function = getattr(importlib.import_module(module), name)
    try:
        return {"found": function(*asked["arguments"])}
    except MLOpsError as error:
        return {"error": [type(error).__name__, str(error)[:MESSAGE_LIMIT]]}
    except (RecursionError, ArithmeticError, ValueError, TypeError, LookupError, AttributeError) as error:
        said = f"cannot be understood: {type(error).__name__}: {error}"[:500]
        return {"error": ["ContractError", f"{asked['arguments'][0]!s:.60}: {said}. {_CURE}"]}


def main() -> int:
    """The child: its limits come first, its answer goes to where nothing else is printed."""
    answer_to = os.dup(1)
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.buffer.read().decode("utf-8", "surrogatepass"))
    seconds = max(1, int(asked["seconds"]))
    resource.setrlimit(resource.RLIMIT_AS, (asked["memory"], asked["memory"]))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        text = json.dumps(_answer(asked), allow_nan=True).encode()
    except Exception as error:
        if (
            isinstance(error, MemoryError)
            or "OutOfMemory" in type(error).__name__
            or "memory" in str(error).lower()
        ):
            return OUT_OF_MEMORY
        raise
    if len(text) > ANSWER_LIMIT:
        return OUT_OF_MEMORY
    with os.fdopen(answer_to, "wb") as file:
        file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
