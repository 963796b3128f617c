"""An end to every request to S3: a server that sends a byte now and then holds a task no longer than this module says."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_mlops.exceptions import MLOpsError

__all__ = ["BoundedClient", "BoundedFile", "bounded"]

#: Seconds for one request with all of its tries, and for the body of an answer beyond its size by :data:`SLOWEST`.
PATIENCE = 300.0
#: Bytes a second below which a transfer is given up.
SLOWEST = 256 * 1024
#: What asks no server.
_LOCAL = ("generate_presigned_url", "generate_presigned_post", "can_paginate", "close")

_Result = TypeVar("_Result")


class BoundedClient:
    """A boto3 client whose requests end in time.

    boto3 limits the time between two bytes, not that of a request: each byte that comes begins it anew. Here each
    request, and each body, is waited for in a thread, which is left to itself when its time is over.

    :param client: the client.
    :param kind: of the error: a retriable one.
    """

    def __init__(self, client: Any, kind: type[MLOpsError]) -> None:
        self._client = client
        self._kind = kind

    def __getattr__(self, name: str) -> Any:
        """An operation of the client, with an end."""
        found = getattr(self._client, name)
        if not callable(found) or name.startswith("_") or name in _LOCAL:
            return found
        if name == "get_paginator":
            return lambda operation: _Pages(found(operation), operation, self._kind)

        def request(*given: Any, **arguments: Any) -> Any:
            limit = _Limit(
                _words(name, arguments), PATIENCE + _size(arguments.get("Body")) / SLOWEST, self._kind
            )
            answer = limit.wait(lambda: found(*given, **arguments))
            if isinstance(answer, dict) and hasattr(answer.get("Body"), "iter_chunks"):
                size = int(answer.get("ContentLength") or 0)
                body = _Limit(_words(name, arguments), PATIENCE + size / SLOWEST, self._kind)
                answer["Body"] = _Body(answer["Body"], body)
            return answer

        return request


class BoundedFile:
    """A file of an object store, each of whose reads ends in time."""

    def __init__(self, file: Any, doing: str, kind: type[MLOpsError]) -> None:
        self._file, self._doing, self._kind = file, doing, kind

    def __getattr__(self, name: str) -> Any:
        """Whatever else it is asked for."""
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        """Bytes from where it is."""
        seconds = PATIENCE + max(0, size) / SLOWEST
        return _Limit(self._doing, seconds, self._kind).wait(lambda: bytes(self._file.read(size)))


def bounded(doing: str, kind: type[MLOpsError], call: Callable[[], _Result]) -> _Result:
    """What ``call`` gives, which is one request.

    :param doing: what is done, for the error.
    :param kind: of the error.
    :raises MLOpsError: it took too long.
    """
    return _Limit(doing, PATIENCE, kind).wait(call)


class _Limit:
    """Seconds that may be waited, in one go or in several."""

    def __init__(self, doing: str, seconds: float, kind: type[MLOpsError]) -> None:
        self._doing, self._seconds, self._kind = doing, seconds, kind
        self._left = seconds

    def wait(self, call: Callable[[], _Result]) -> _Result:
        """What ``call`` gives, which a thread of its own does."""
        future: Future[_Result] = Future()

        def work() -> None:
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                future.set_exception(error)

        began = time.monotonic()
        threading.Thread(target=work, name="s3-request", daemon=True).start()
        try:
            return future.result(max(0.0, self._left))
        except TimeoutError as error:
            if future.done():  # its own
                raise
            raise self._kind(
                f"{self._doing} was given up after {self._seconds:.0f} s: the server neither ended its answer nor "
                "refused. Try again later. If it stays so, look at the server and at what is between it and this machine"
            ) from error
        finally:
            self._left -= time.monotonic() - began


class _Body:
    """Body of an answer, all of whose reading has one limit; what the reader does in between does not count."""

    def __init__(self, body: Any, limit: _Limit) -> None:
        self._body, self._limit = body, limit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)

    def read(self, amount: int | None = None) -> bytes:
        """Bytes of the body, all by default."""
        return self._limit.wait(lambda: bytes(self._body.read(amount)))

    def iter_chunks(self, chunk_size: int = 1024) -> Iterator[bytes]:
        """The body in pieces."""
        while chunk := self.read(chunk_size):
            yield chunk


class _Pages:
    """A paginator, each of whose pages has a limit."""

    def __init__(self, pages: Any, operation: str, kind: type[MLOpsError]) -> None:
        self._pages, self._operation, self._kind = pages, operation, kind

    def paginate(self, **arguments: Any) -> Iterator[Any]:
        """The pages."""
        found = iter(self._pages.paginate(**arguments))
        while (page := self._limit(arguments).wait(lambda: next(found, None))) is not None:
            yield page

    def _limit(self, arguments: dict[str, Any]) -> _Limit:
        return _Limit(_words(self._operation, arguments), PATIENCE, self._kind)


def _words(operation: str, arguments: dict[str, Any]) -> str:
    place = "/".join(str(arguments[key]) for key in ("Bucket", "Key") if key in arguments)
    return f"{operation} of s3://{place}" if place else operation


def _size(body: Any) -> int:
    if isinstance(body, (bytes, bytearray, memoryview)):
        return len(body)
    try:
        return os.fstat(body.fileno()).st_size
    except (AttributeError, OSError, ValueError):
        return Path(body).stat().st_size if isinstance(body, Path) else 0
