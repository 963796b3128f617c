"""Data in and out of a container through an object store, by addresses that a runner signed; see ADR 15.

``MLOPS_TRANSFER`` is the address of a JSON document::

    {"version": 1, "job": "…", "grace": 30,
     "folders": ["input", "output", …],
     "inputs": [{"path": "input/data/train/00000.parquet", "url": "…", "size": 123, "sha256": "…"}],
     "piece": 1073741824,
     "outputs": {"checkpoints": ["…", "…"], "output": […], "model": […]},
     "done": "…"}

Inputs are fetched below the root by GET. Each output folder goes up as one tar, cut into pieces of ``piece`` bytes,
the first piece by PUT to the first address, and so on. Last, a document is put to ``done``: it says that all of this
is there, and what it should be::

    {"version": 1, "exit_code": 0, "problem": "", "outputs": {"output": [{"size": 123, "sha256": "…"}]}}
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from airflow_mlops.contract.container.tarball import CHUNK, Tarball
from airflow_mlops.contract.protocol.documents import json_text
from airflow_mlops.contract.protocol.failures import JobError, TryAgainError
from airflow_mlops.contract.protocol.paths import TRANSFER_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

VERSION = 1
#: Files on their way at the same time.
STREAMS = 4
TRIES = 7
#: Seconds until a server must say something.
TIMEOUT = 60.0
LONGEST_PAUSE = 20.0
#: Bytes of the document that are read at most.
_DOCUMENT_LIMIT = 64 * 1024**2


class Transfer:
    """One job's data, by its document.

    :param document: the parsed document.
    :param root: the job's ``/opt/ml``.
    """

    def __init__(self, document: Mapping[str, Any], root: Path) -> None:
        self.document = document
        self.root = root

    @classmethod
    def at(cls, url: str, root: Path) -> Transfer:
        """Read the document.

        :raises TryAgainError: the store does not answer.
        :raises JobError: the address is refused, or gives something else.
        """
        try:
            document = json.loads(_ask(url, _whole, "its document"))
        except ValueError as error:
            raise JobError(f"{TRANSFER_VARIABLE} leads to something that is not JSON: {error}.") from error
        version = document.get("version") if isinstance(document, dict) else None
        if version != VERSION:
            raise JobError(
                f"{TRANSFER_VARIABLE} speaks version {version!r} of the transfer, this image speaks {VERSION}. Cure: rebuild "
                "the image with the airflow_mlops release that runs it."
            )
        return cls(document, root)

    @property
    def grace(self) -> float:
        """Seconds between SIGTERM and SIGKILL where this runs."""
        return float(self.document.get("grace") or 30)

    def fetch(self) -> None:
        """Bring the inputs to where the contract says.

        :raises TryAgainError: the store does not answer, or gives other bytes than were put there.
        :raises JobError: the folder cannot be written, or an address is refused.
        """
        try:
            for folder in ("", *self.document["folders"]):
                self._below(folder).mkdir(parents=True, exist_ok=True)
            self._fetch_all(ThreadPoolExecutor(STREAMS))
        except OSError as error:
            raise JobError(
                f"The inputs cannot be written below {self.root} by user {os.getuid()}: {error}. Cure: give the folder "
                f"to the image's user (RUN mkdir -p {self.root} && chown 1000 {self.root}), or a disk with room for them."
            ) from error

    def _fetch_all(self, pool: ThreadPoolExecutor) -> None:
        try:
            list(pool.map(self._fetch_one, self.document["inputs"]))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _fetch_one(self, given: Mapping[str, Any]) -> None:
        target = self._below(given["path"])
        half = target.with_name(f".{target.name}.part")
        target.parent.mkdir(parents=True, exist_ok=True)

        def save(answer: http.client.HTTPResponse) -> None:
            digest = hashlib.sha256()
            with half.open("wb") as file:
                while chunk := answer.read(CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
            if half.stat().st_size != given["size"] or digest.hexdigest() != given["sha256"]:
                raise _BrokenOffError(f"{half.stat().st_size} bytes of {given['size']}, or other ones")

        _ask(given["url"], save, given["path"])
        half.replace(target)

    def deliver(self, exit_code: int, problem: str = "") -> None:
        """Send what the job wrote: checkpoints first, the model only after a success.

        :param exit_code: how the command ended.
        :param problem: why it was not even started; empty when it was.
        :raises TryAgainError: the store does not answer.
        :raises JobError: it is too much, or an address is refused.
        """
        sent, refused = {}, None
        for name, urls in self.document["outputs"].items():
            folder = self._below(name)
            if (name == "model" and exit_code) or _is_empty(folder):
                continue
            try:
                sent[name] = self._send(name, folder, urls)
            except TryAgainError:
                raise
            except JobError as error:
                refused = error
        done = {
            "version": VERSION,
            "exit_code": exit_code,
            "problem": problem or str(refused or ""),
            "outputs": sent,
        }
        content = json_text(done).encode()
        self._put(self.document["done"], lambda: iter([content]), len(content), "the last word")
        if refused is not None:
            raise refused

    def _send(self, name: str, folder: Path, urls: list[str]) -> list[dict[str, Any]]:
        step = int(self.document["piece"])
        try:
            tar = Tarball(folder)
            if tar.size > step * len(urls):
                raise JobError(
                    f"{name}/ has {tar.size} bytes, and at most {step * len(urls)} are taken over. Cure: write less, or "
                    "raise the runner's limit_bytes."
                )
            return [
                self._put(url, partial(tar.read, start, end), end - start, f"{name}/")
                for url, start in zip(urls, range(0, tar.size, step), strict=False)
                for end in (min(start + step, tar.size),)
            ]
        except OSError as error:
            raise JobError(f"{name}/ cannot be read: {error}.") from error

    def _put(self, url: str, read: Callable[[], Iterator[bytes]], size: int, what: str) -> dict[str, Any]:
        """Send a stream of bytes, as often as it takes."""
        digests = []

        def body() -> Iterator[bytes]:
            digests.append(hashlib.sha256())
            for chunk in read():
                digests[-1].update(chunk)
                yield chunk

        def request() -> urllib.request.Request:
            headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
            return urllib.request.Request(url, body(), headers, method="PUT")  # noqa: S310  signed by the runner

        _ask(request, lambda answer: answer.read(CHUNK), what)
        return {"size": size, "sha256": digests[-1].hexdigest()}

    def _below(self, path: str) -> Path:
        parts = PurePosixPath(path).parts
        if path.startswith("/") or ".." in parts:
            raise JobError(f"{TRANSFER_VARIABLE}: {path!r} leads out of {self.root}.")
        return self.root.joinpath(*parts)


class _BrokenOffError(Exception):
    """An answer that is not whole."""


def _ask(
    request: str | Callable[[], urllib.request.Request],
    take: Callable[[http.client.HTTPResponse], Any],
    what: str,
) -> Any:
    """Ask until there is an answer; addresses are not repeated in any message, they are as good as a password."""
    problem = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(min(0.5 * 2 ** (attempt - 1), LONGEST_PAUSE))
        try:
            asked = request if isinstance(request, str) else request()
            with urllib.request.urlopen(asked, timeout=TIMEOUT) as answer:  # noqa: S310  signed by the runner
                return take(answer)
        except urllib.error.HTTPError as error:
            with error:
                problem = f"the store answered {error.code} ({_code(error)})"
            if error.code < 500 and error.code not in (408, 409, 425, 429):
                raise JobError(
                    f"Transfer of {what}: {problem}. Cure: 403 says that the address is no longer valid (its time is "
                    "over, its login was temporary, or a clock is wrong) or that the job may not reach the bucket."
                ) from None
        except (_BrokenOffError, http.client.HTTPException) as error:
            problem = f"the answer broke off: {error or type(error).__name__}"
        except OSError as error:
            reason = getattr(error, "reason", None)
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise JobError(
                    f"Transfer of {what}: the store's certificate is not trusted: {reason.verify_message}. Cure: put the "
                    "certificates of its authority into the image (ca-certificates), or name them as SSL_CERT_FILE."
                ) from None
            if isinstance(error, (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)):
                raise
            if error.errno is not None and not isinstance(
                error, (urllib.error.URLError, ConnectionError, TimeoutError)
            ):
                raise  # the disk's, not the network's
            problem = f"the store does not answer: {reason or error}"
        print(f"Transfer of {what}: {problem}; try {attempt + 1} of {TRIES}.", file=sys.stderr, flush=True)
    raise TryAgainError(
        f"Transfer of {what}: {problem}, {TRIES} times. Cure: look at the store, and at the network of the job."
    )


def _is_empty(folder: Path) -> bool:
    if not os.path.lexists(folder):
        return True
    return folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())


def _whole(answer: http.client.HTTPResponse) -> bytes:
    content = answer.read(_DOCUMENT_LIMIT)
    if len(content) < int(answer.headers.get("Content-Length") or 0):
        raise _BrokenOffError(f"{len(content)} bytes came")
    return content


def _code(error: urllib.error.HTTPError) -> str:
    """The store's own word for it, as NoSuchKey."""
    text = error.read(4096).decode(errors="replace")
    begin, end = text.find("<Code>"), text.find("</Code>")
    return text[begin + 6 : end] if 0 <= begin < end else str(error.reason)
