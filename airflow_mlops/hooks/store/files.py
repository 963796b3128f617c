"""The artifact store on a file system."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_mlops.exceptions import StoreConflictError, StoreError, StoreUnavailableError
from airflow_mlops.hooks.store.base import Store, checked_key

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FileStore"]

#: A staged file that is older than this was left by a writer that died.
STAGED_FOR = timedelta(days=1)
#: Seconds that a lock is waited for, which its holder needs for some milliseconds, and between two looks.
LOCK_WAIT, LOCK_POLL = 15.0, 0.01

_PASSING = {
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EAGAIN,
    errno.EINTR,
    errno.EHOSTDOWN,
    errno.ENOLCK,
}
_CURES = {
    errno.ENOSPC: ". Make room, for instance by `airflow-mlops dataset prune`",
    errno.EDQUOT: ". Make room, for instance by `airflow-mlops dataset prune`",
    errno.EACCES: ". Let the user of the Airflow workers own the folder",
    errno.EROFS: ". Mount it for writing",
}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


class FileStore(Store):
    """Objects below one folder that all workers share.

    A reader sees an object whole or not at all. Writers of one machine are safe against each other;
    between machines :meth:`compare_and_set` is as good as the ``flock`` of the shared file system.

    :param root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._swept = False

    @property
    def uri(self) -> str:
        """The address that :func:`~airflow_mlops.hooks.store.open.open_store` understands."""
        return str(self.root)

    def path(self, key: str) -> Path:
        """Local path of an object, whether it exists or not.

        :raises StoreError: for a key that could leave the store, or meet its own files.
        """
        return self.root / checked_key(key)

    def address(self, key: str) -> str:
        """Path of an object."""
        return str(self.path(key))

    def local(self, key: str, scratch: Path) -> Path:  # noqa: ARG002 - nothing to copy
        """The object's own file."""
        path = self.path(key)
        if not path.is_file():
            raise StoreError(f"{path} is gone: restore it from a backup")
        return path

    def delete(self, key: str) -> bool:
        """Remove an object; ``False`` when there is none."""
        path = self.path(key)
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise _failure(f"cannot remove {path}", error) from error
        return True

    def exists(self, key: str) -> bool:
        """Whether the object is there."""
        return self.path(key).is_file()

    def read(self, key: str) -> bytes | None:
        """Content of the object; ``None`` when there is none."""
        path = self.path(key)
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _failure(f"cannot read {path}", error) from error

    def read_versioned(self, key: str) -> tuple[bytes | None, str | None]:
        """Content and etag of the object, the etag being the SHA-256 of the content."""
        data = self.read(key)
        return data, None if data is None else _etag(data)

    def put_if_absent(self, key: str, data: bytes | Path) -> bool:
        """Write the object unless there is one of this name.

        :param data: the content, or the local file that holds it.
        :return: ``True`` when this call wrote it.
        """
        target = self.path(key)
        if target.is_file():
            return False
        with self._staged(target, data) as staged:
            return self._link(staged, target)

    def compare_and_set(self, key: str, data: bytes, expected: str | None) -> str:
        """Replace the object if it is still the one that was read.

        :param expected: etag by :meth:`read_versioned`; ``None`` when there must be no object yet.
        :return: the new etag.
        :raises StoreConflictError: somebody else wrote first.
        """
        target = self.path(key)
        # Written before the lock is taken: it is held for a moment only.
        with self._staged(target, data) as staged, self._locked(key):
            _, found = self.read_versioned(key)
            if found != expected:
                raise StoreConflictError(
                    f"{target}: expected {expected or 'no object'}, found {found or 'no object'}; "
                    "read it again and decide again"
                )
            if expected is None:
                if not self._link(staged, target):
                    raise StoreConflictError(f"{target}: somebody wrote it in this moment; read it again")
            else:
                staged.replace(target)
                _sync_folder(target.parent)
        return _etag(data)

    def modified(self, prefix: str = "") -> dict[str, datetime]:
        """When each object below ``prefix`` was written."""
        times: dict[str, datetime] = {}
        for key in self.list(prefix):
            path = self.path(key)
            try:
                times[key] = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _failure(f"cannot look at {path}", error) from error
        return times

    def sweep(self, before: datetime) -> int:
        """Remove staged files that have not been written to since this time."""
        removed = 0
        with contextlib.suppress(FileNotFoundError), os.scandir(self.root / ".staging") as found:
            for entry in found:
                # Its writer may finish, and remove it, while this looks.
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat().st_mtime < before.timestamp():
                        Path(entry).unlink()
                        removed += 1
        return removed

    def list(self, prefix: str = "") -> list[str]:
        """Keys that begin with ``prefix``, sorted.

        :raises StoreError: a folder cannot be read; what is in it must not pass for absent.
        """

        def stop(error: OSError) -> None:
            if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
                raise _failure(f"cannot list {error.filename}", error) from error

        folder, _, _ = prefix.rpartition("/")
        base = self.path(folder) if folder else self.root
        keys: list[str] = []
        for where, folders, files in os.walk(base, onerror=stop):
            folders[:] = [name for name in folders if not name.startswith(".")]
            inside = Path(where).relative_to(self.root).as_posix()
            start = "" if inside == "." else inside + "/"
            keys.extend(start + name for name in files if not name.startswith("."))
        return sorted(key for key in keys if key.startswith(prefix))

    @contextlib.contextmanager
    def _staged(self, target: Path, data: bytes | Path) -> Iterator[Path]:
        """A complete, synced copy of ``data`` on the file system of ``target``."""
        staging = self.root / ".staging"
        staged = staging / uuid.uuid4().hex
        try:
            staging.mkdir(parents=True, exist_ok=True)
            if not self._swept:
                self._swept = True
                self.sweep(datetime.now(UTC) - STAGED_FOR)
            target.parent.mkdir(parents=True, exist_ok=True)
            with staged.open("xb") as sink:
                if isinstance(data, bytes):
                    sink.write(data)
                else:
                    with data.open("rb") as source:
                        while block := source.read(1 << 20):
                            sink.write(block)
                sink.flush()
                os.fsync(sink.fileno())
            yield staged
        except OSError as error:
            raise _failure(f"cannot write {target}", error) from error
        finally:
            with contextlib.suppress(OSError):
                staged.unlink(missing_ok=True)

    def _link(self, staged: Path, target: Path) -> bool:
        try:
            os.link(staged, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # A file system without hard links: the lock makes the test and the rename one step.
            with self._locked(f"link/{target.relative_to(self.root)}"):
                if target.exists():
                    return False
                staged.replace(target)
        _sync_folder(target.parent)
        return True

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        folder = self.root / ".locks"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder / _etag(name.encode()), os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise _failure(f"cannot write below {self.root}", error) from error
        try:
            self._lock(handle, name)
            yield
        finally:
            os.close(handle)

    def _lock(self, handle: int, name: str) -> None:
        """Wait for a lock, and not for ever: a writer may stand still that holds it."""
        import fcntl

        deadline = time.monotonic() + LOCK_WAIT
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise StoreUnavailableError(
                        f"cannot write {self.root / name}: another process has held its lock for {LOCK_WAIT:.0f} s, "
                        f"which takes a moment only. Cure: `fuser {self.root / '.locks'}/*` on each machine that "
                        "mounts the store says which process that is; let it go on, or end it"
                    ) from error
                time.sleep(LOCK_POLL * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
            except OSError as error:
                raise _failure(f"cannot lock {self.root / name}", error) from error
            else:
                return


def _failure(what: str, error: OSError) -> StoreError:
    """The error in the words of this package, with its cure; a share that hangs may come back."""
    kind = StoreUnavailableError if error.errno in _PASSING else StoreError
    cure = _CURES.get(error.errno or 0, "")
    return kind(f"{what}: {error.strerror or error}{cure}")


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
