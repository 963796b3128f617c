"""What is wrong with a stored dataset version, found by reading all of it again."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airflow_mlops.exceptions import DataError, StoreError
from airflow_mlops.hooks.scratch import scratch_folder
from airflow_mlops.hooks.store.base import in_parallel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_mlops.primitives.datasets.manifest import Chunk
    from airflow_mlops.stores.datasets.versions import DatasetStore

__all__ = ["Damage", "find_damage", "sound"]


@dataclass(frozen=True)
class Damage:
    """One object that is not what it was.

    :param part: ``manifest``, or the digest of a chunk.
    :param problem: ``missing``, ``unreadable``, ``changed`` (other content) or ``rewritten`` (the same rows in
        other bytes: no loss, but nobody of this project does that).
    :param address: where it is.
    :param detail: what was expected and what was found.
    """

    part: str
    problem: Literal["missing", "unreadable", "changed", "rewritten"]
    address: str
    detail: str

    def to_dict(self) -> dict[str, Any]:
        """The damage as JSON values."""
        return asdict(self)


def find_damage(datasets: DatasetStore, dataset_id: str) -> list[Damage]:
    """Compare a version with its names: the manifest with its id, every chunk with its digest.

    The digest of a chunk is one of its rows. The bytes are compared, too, where the commit of the version that
    brought the chunk is still there.

    :raises StoreError: there is no such version, or the store does not answer.
    """
    from airflow_mlops.primitives.datasets.manifest import Manifest

    address = datasets.manifest_address(dataset_id)
    data = datasets.store.read(datasets.manifest_key(dataset_id))
    if data is None:
        raise StoreError(f"no dataset version {dataset_id} of {datasets.application!r} (expected {address})")
    try:
        manifest = Manifest.from_json(data)
    except DataError as error:
        return [Damage("manifest", "unreadable", address, str(error))]
    if manifest.id != dataset_id or manifest.to_json().encode() != data:
        return [Damage("manifest", "changed", address, f"its content has the id {manifest.id}")]
    sums = _sums(datasets)
    chunks = list({chunk.digest: chunk for chunk in manifest.chunks}.values())
    found = in_parallel(lambda chunk: _look(datasets, chunk, sums.get(chunk.digest)), chunks)
    return [damage for damage in found if damage is not None]


def sound(datasets: DatasetStore, files: Mapping[Chunk, Path]) -> bool:
    """Whether files are the chunks that they should be: by their bytes, or else by their rows.

    :param files: the file of each chunk on this machine.
    """
    sums = _sums(datasets)
    return all(in_parallel(lambda chunk: _is_sound(chunk, files[chunk], sums.get(chunk.digest)), list(files)))


def _is_sound(chunk: Chunk, path: Path, expected: str | None) -> bool:
    with path.open("rb") as file:
        if expected is not None and hashlib.file_digest(file, "sha256").hexdigest() == expected:
            return True
    try:
        return _digest(path) == (chunk.rows, chunk.digest)
    except Exception:  # noqa: BLE001 - damaged Parquet raises whatever the damage leads to
        return False


def _sums(datasets: DatasetStore) -> dict[str, str]:
    """SHA-256 of the chunk files, as those who wrote them said."""
    found: dict[str, str] = {}
    for record in datasets.commits():
        found |= {digest: file["sha256"] for digest, file in (record.get("files") or {}).items()}
    return found


def _look(datasets: DatasetStore, chunk: Chunk, expected: str | None) -> Damage | None:
    key = datasets.chunk_key(chunk.digest)
    address = datasets.store.address(key)
    if not datasets.store.exists(key):
        return Damage(chunk.digest, "missing", address, f"{chunk.rows} rows of {chunk.split}")
    with scratch_folder() as scratch:
        path = datasets.store.local(key, Path(scratch))
        with path.open("rb") as file:
            bytes_digest = hashlib.file_digest(file, "sha256").hexdigest()
        try:
            rows, digest = _digest(path)
        except Exception as error:  # noqa: BLE001 - damaged Parquet raises whatever the damage leads to
            return Damage(chunk.digest, "unreadable", address, f"{type(error).__name__}: {error}"[:300])
    if digest != chunk.digest or rows != chunk.rows:
        detail = f"expected {chunk.rows} rows, found {rows} rows with the digest {digest}"
        return Damage(chunk.digest, "changed", address, detail)
    if expected is not None and bytes_digest != expected:
        detail = f"the same rows, but its SHA-256 was {expected} and is {bytes_digest}"
        return Damage(chunk.digest, "rewritten", address, detail)
    return None


def _digest(path: Path) -> tuple[int, str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from airflow_mlops.primitives.datasets.digest import LogicalDigest

    digest = LogicalDigest()
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for batch in file.iter_batches(1 << 16):
            digest.update(pa.Table.from_batches([batch]))
    return digest.rows, digest.hexdigest()
