"""Folders for what a process needs for a while: all in one place, and none outlives its process for long."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import weakref
from pathlib import Path

from airflow_mlops.exceptions import StoreError, StoreUnavailableError

__all__ = ["ScratchFolder", "scratch_folder", "scratch_home", "sweep_scratch"]

#: How the names of scratch folders begin: nothing else is ever removed.
PREFIX = "mlops-scratch-"
#: Tries to make a folder that nobody took for an abandoned one before it was locked.
TRIES = 20
_FULL = (errno.ENOSPC, errno.EDQUOT)


class ScratchFolder(tempfile.TemporaryDirectory[str]):
    """A temporary folder with a lock that the kernel frees when its process ends, however it ends.

    Use :func:`scratch_folder`.
    """

    def __init__(self, home: Path) -> None:
        super().__init__(prefix=PREFIX, dir=home, ignore_cleanup_errors=True)
        self._lock = os.open(self.name, os.O_RDONLY | os.O_DIRECTORY)
        self._unlock = weakref.finalize(self, os.close, self._lock)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def is_there(self) -> bool:
        """Whether nobody removed the folder before it was locked."""
        with contextlib.suppress(FileNotFoundError):
            return os.stat(self.name).st_ino == os.fstat(self._lock).st_ino  # noqa: PTH116 - beside fstat
        return False

    def cleanup(self) -> None:
        """Remove the folder with its content."""
        super().cleanup()
        self._unlock()


def scratch_folder(parent: str | Path | None = None) -> ScratchFolder:
    """A new empty folder, for ``with``: removed at its end, and when its process was killed, by whoever comes next.

    Each call first removes what killed processes left in the same place, and so does the DAG ``mlops_maintenance``.

    :param parent: a local folder in place of :func:`scratch_home`.
    :raises StoreError: none can be made there.
    """
    home = scratch_home() if parent is None else Path(parent)
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if parent is None:
            _check_owner(home)
        sweep_scratch(home)
        for _ in range(TRIES):
            with contextlib.suppress(BlockingIOError, FileNotFoundError):
                folder = ScratchFolder(home)
                if folder.is_there():
                    return folder
    except OSError as error:
        kind = StoreUnavailableError if error.errno in _FULL else StoreError
        raise kind(
            f"no folder for temporary files can be made in {home}: {error.strerror or error}. Cure: give the user of "
            "this process a local folder with room, by AIRFLOW__MLOPS__SCRATCH_FOLDER or TMPDIR"
        ) from error
    raise StoreError(
        f"each folder that was made in {home} vanished at once. Cure: end what else removes folders there, or name "
        "another one by AIRFLOW__MLOPS__SCRATCH_FOLDER"
    )


def scratch_home() -> Path:
    """Where this installation's scratch folders of this machine and user are.

    By default below the system's folder for temporary files, in a folder named after the user and ``AIRFLOW_HOME``;
    otherwise as Airflow's option ``[mlops] scratch_folder`` says.
    """
    from airflow.sdk.configuration import conf

    if given := str(conf.get("mlops", "scratch_folder", fallback="") or ""):
        return Path(given).expanduser().absolute()
    home = str(Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser().absolute())
    name = hashlib.sha256(home.encode()).hexdigest()[:8]
    return Path(tempfile.gettempdir()) / f"airflow-mlops-{os.getuid()}-{name}"


def sweep_scratch(home: str | Path | None = None) -> int:
    """Remove the scratch folders of processes that are no more; one of a living process is never touched.

    :param home: the folder that they are in; :func:`scratch_home` by default.
    :return: how many there were.
    """
    removed = 0
    folder = scratch_home() if home is None else Path(home)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        for entry in folder.iterdir():
            if entry.name.startswith(PREFIX) and not entry.is_symlink():
                removed += _remove_abandoned(entry)
    return removed


def _remove_abandoned(folder: Path) -> bool:
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # gone, another user's, or no folder
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The lock is kept meanwhile: its maker may only just have made it, and then makes another one.
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # its process lives, or locks mean nothing there
        return False
    finally:
        os.close(lock)
    return True


def _check_owner(home: Path) -> None:
    """Refuse a folder that another user put in our place."""
    found = home.lstat()
    if not stat.S_ISDIR(found.st_mode) and not home.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "it is no folder", str(home))
    if home.parent == Path(tempfile.gettempdir()) and (
        stat.S_ISLNK(found.st_mode) or found.st_uid != os.getuid()
    ):
        raise PermissionError(errno.EACCES, "it belongs to another user", str(home))
