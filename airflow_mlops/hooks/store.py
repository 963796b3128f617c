"""The artifact store: immutable objects, small references that move, and dataset versions made of both."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import uuid
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from airflow_mlops.exceptions import StoreConflictError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_mlops.primitives.provisioning.version import Manifest

__all__ = ["DatasetStore", "FileStore", "open_store"]

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_REF_ATTEMPTS = 20


def open_store(uri: str | Path) -> FileStore:
    """Open the store at a folder or a ``file://`` address. Nothing is created before the first write.

    :param uri: absolute folder, ``~`` allowed, or ``file:///folder``.
    :raises StoreError: for any other scheme, and for a relative folder.
    """
    text = str(uri)
    parts = urlsplit(text)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise StoreError(
                f"store {text!r}: a file address names no machine; write file:///{parts.netloc}…"
            )
        text = unquote(parts.path)
    elif "://" in text:
        raise StoreError(
            f"store {text!r}: {parts.scheme}:// stores come later; for now give a folder that all "
            "workers share, such as /var/lib/airflow-mlops"
        )
    root = Path(text).expanduser()
    if not root.is_absolute():
        raise StoreError(
            f"store {text!r} is relative, and every worker starts elsewhere: give an absolute folder"
        )
    return FileStore(root)


class FileStore:
    """Objects below one folder that all workers share.

    A reader sees an object whole or not at all. Writers of one machine are safe against each other;
    between machines :meth:`compare_and_set` is as good as the ``flock`` of the shared file system.

    :param root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def uri(self) -> str:
        """The address that :func:`open_store` understands."""
        return str(self.root)

    def path(self, key: str) -> Path:
        """Local path of an object, whether it exists or not.

        :raises StoreError: for a key that could leave the store, or meet its own files.
        """
        parts = PurePosixPath(key).parts
        if (
            not parts
            or key != "/".join(parts)
            or key.startswith("/")
            or "\\" in key
            or "\0" in key
            or any(part.startswith(".") for part in parts)
        ):
            raise StoreError(
                f"store key {key!r} is not allowed: give names joined by '/', none of them empty "
                "or beginning with a dot"
            )
        return self.root / key

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
            raise StoreError(f"cannot read {path}: {error.strerror or error}") from error

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
        with self._locked(key), self._staged(target, data) as staged:
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

    def list(self, prefix: str = "") -> list[str]:
        """Keys that begin with ``prefix``, sorted.

        :raises StoreError: a folder cannot be read; what is in it must not pass for absent.
        """

        def stop(error: OSError) -> None:
            if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
                raise StoreError(f"cannot list {error.filename}: {error.strerror or error}") from error

        folder, _, _ = prefix.rpartition("/")
        base = self.path(folder) if folder else self.root
        keys: list[str] = []
        for where, folders, files in os.walk(base, onerror=stop):
            folders[:] = [name for name in folders if not name.startswith(".")]
            inside = Path(where).relative_to(self.root).as_posix()
            start = "" if inside == "." else inside + "/"
            keys.extend(start + name for name in files if not name.startswith("."))
        return sorted(key for key in keys if key.startswith(prefix))

    def read_json(self, key: str) -> Any:
        """The object's content parsed as JSON; ``None`` when there is none."""
        data = self.read(key)
        if data is None:
            return None
        try:
            return json.loads(data)
        except ValueError as error:
            raise StoreError(f"{self.path(key)} is not JSON ({error}): restore it from a backup") from error

    def put_json_if_absent(self, key: str, value: Any) -> bool:
        """Write ``value`` as readable JSON unless there is an object of this name."""
        return self.put_if_absent(key, _json(value))

    @contextlib.contextmanager
    def _staged(self, target: Path, data: bytes | Path) -> Iterator[Path]:
        """A complete, synced copy of ``data`` on the file system of ``target``."""
        staging = self.root / ".staging"
        staged = staging / uuid.uuid4().hex
        try:
            staging.mkdir(parents=True, exist_ok=True)
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
            raise StoreError(f"cannot write {target}: {error.strerror or error}") from error
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
        import fcntl

        folder = self.root / ".locks"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder / _etag(name.encode()), os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise StoreError(f"cannot write below {self.root}: {error.strerror or error}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


class DatasetStore:
    """Dataset versions of one application: chunks and manifests never change, references move.

    :param store: where they are kept.
    :param application: name of the application, the first part of every key.
    """

    def __init__(self, store: FileStore, application: str) -> None:
        self.store = store
        self.application = application

    def key(self, *names: str) -> str:
        """Key of something below this application's datasets."""
        return "/".join((self.application, "datasets", *names))

    def chunk_key(self, digest: str) -> str:
        """Key of the chunk with this logical digest."""
        return self.key("chunks", digest[:2], f"{digest}.parquet")

    def publish(
        self, manifest: Manifest, files: Mapping[str, Path], commit: Mapping[str, Any], ref: str = "latest"
    ) -> bool:
        """Make a version visible, all or nothing: chunks first, then the manifest, then the reference.

        :param manifest: the version.
        :param files: chunk digest → local Parquet file, for chunks that the store has not yet.
        :param commit: who made it, when and with what; must hold ``time`` (ISO 8601).
        :param ref: the reference that will point to it.
        :return: ``False`` when the same version was there before.
        :raises StoreError: a chunk is neither in ``files`` nor in the store.
        """
        for chunk in manifest.chunks:
            key = self.chunk_key(chunk.digest)
            if self.store.exists(key):
                continue
            if chunk.digest not in files:
                raise StoreError(f"dataset {manifest.id}: chunk {chunk.digest} is neither stored nor given")
            self.store.put_if_absent(key, files[chunk.digest])
        created = self.store.put_if_absent(
            self.key("manifests", f"{manifest.id}.json"), manifest.to_json().encode()
        )
        stamp = "".join(c for c in str(commit["time"]) if c.isalnum())
        record = {"dataset_id": manifest.id, "ref": ref, "created": created, **commit}
        name = f"{stamp}-{_etag(_json(record))[:12]}"
        self.store.put_json_if_absent(self.key("commits", f"{name}.json"), record)
        self._point(ref, {"dataset_id": manifest.id, "commit": name})
        return created

    def manifest(self, dataset_id: str) -> Manifest:
        """The version with this id.

        :raises StoreError: there is none, or its content does not match its id.
        """
        from airflow_mlops.primitives.provisioning.version import Manifest

        path = self.store.path(self.key("manifests", f"{dataset_id}.json"))
        data = self.store.read(self.key("manifests", f"{dataset_id}.json"))
        if data is None:
            raise StoreError(f"no dataset version {dataset_id} of {self.application!r} (expected {path})")
        manifest = Manifest.from_json(data)
        if manifest.id != dataset_id:
            raise StoreError(f"{path} was changed: its content has the id {manifest.id}; restore it")
        return manifest

    def paths(self, dataset_id: str, split: str) -> list[Path]:
        """Parquet files of one split, in the order of their rows.

        :raises StoreError: the version has no such split, or lost a chunk.
        """
        manifest = self.manifest(dataset_id)
        if split not in manifest.splits:
            raise StoreError(
                f"dataset {dataset_id} has no split {split!r}; it has {', '.join(manifest.splits) or 'none'}"
            )
        paths = [self.store.path(self.chunk_key(c.digest)) for c in manifest.chunks if c.split == split]
        lost = [str(path) for path in paths if not path.is_file()]
        if lost:
            raise StoreError(f"dataset {dataset_id}: {len(lost)} chunk(s) are gone, first {lost[0]}")
        return paths

    def resolve(self, ref: str) -> str | None:
        """Id of the version that the reference points to; ``None`` when it was never set."""
        value = self.store.read_json(self.key("refs", f"{ref}.json"))
        return None if value is None else str(value["dataset_id"])

    def _point(self, ref: str, value: dict[str, str]) -> None:
        key = self.key("refs", f"{ref}.json")
        for attempt in range(_REF_ATTEMPTS):
            data, etag = self.store.read_versioned(key)
            if data is not None and json.loads(data)["dataset_id"] == value["dataset_id"]:
                return
            try:
                self.store.compare_and_set(key, _json(value), etag)
            except StoreConflictError:
                if attempt == _REF_ATTEMPTS - 1:
                    raise
            else:
                return


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def published_batches(store: FileStore, application: str) -> list[dict[str, Any]]:
    """Metadata of all published batches, oldest first."""
    keys = [key for key in store.list(f"{application}/predictions/") if key.endswith("/meta.json")]
    return [store.read_json(key) for key in keys]
