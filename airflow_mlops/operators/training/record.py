"""What a training leaves behind so that it can be done again: the parts of its record."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.primitives.texts.documents import json_text

if TYPE_CHECKING:
    from airflow_mlops.primitives.datasets.manifest import Manifest
    from airflow_mlops.primitives.registration.lineage import Lineage
    from airflow_mlops.primitives.registration.record import TrainingRecord
    from airflow_mlops.runners.protocol import JobState
    from airflow_mlops.stores.datasets.versions import DatasetStore

log = logging.getLogger(__name__)

#: Bytes of the list of packages that a training ran with. JSON of this length takes some milliseconds and MiB to read,
#: whatever is in it, so no child is asked.
ENVIRONMENT_LIMIT = 1024**2
#: Labels by which an image names its commit and its base.
REVISION_LABEL = "org.opencontainers.image.revision"
BASE_LABEL = "org.opencontainers.image.base.digest"


def lineage_of(record: TrainingRecord) -> Lineage:
    """The record in short, as tags of runs and of model versions carry it."""
    from airflow_mlops.primitives.registration.lineage import Lineage, parameters_digest

    code, run = record.code, record.run
    return Lineage(
        application=record.application,
        dataset_id=str(record.data["dataset_id"]),
        image=str(code.get("image") or ""),
        image_digest=str(code.get("image_digest") or ""),
        code=f"{code.get('name', '')} {code.get('version', '')}".strip(),
        parameters_digest=parameters_digest(record.config.get("parameters") or {}),
        seed=record.config.get("seed"),
        reasons=record.reasons,
        reason_ids=record.reason_ids,
        dag_run=f"{run.get('dag_id', '')}/{run.get('dag_run', '')}",
        git_commit=str(code.get("git_commit") or ""),
        base_digest=str(code.get("base_digest") or ""),
    )


def code_record(
    code: Mapping[str, Any], described: Mapping[str, Any], image: str, state: JobState
) -> dict[str, Any]:
    """The model code as a training record has it.

    :param code: what was run: ``image``, or ``entrypoint`` and ``directory``.
    :param described: what ``describe`` printed.
    :param image: the image as the YAML names it.
    """
    record: dict[str, Any] = {"name": described.get("name", ""), "version": described.get("version", "")}
    labels = dict(state.image_labels)
    if image:
        record |= {
            "image": image,
            "image_digest": state.image_digest,
            "base_digest": labels.get(BASE_LABEL, ""),
            "git_commit": labels.get(REVISION_LABEL) or str(described.get("revision") or ""),
            "labels": labels,
        }
        return record
    from airflow_mlops.hooks.git.working_copy import commit_of
    from airflow_mlops.primitives.registration.files import code_files, digest_of

    directory = code.get("directory") or ""
    files = code_files(Path(directory)) if directory else {}
    return record | {
        "entrypoint": list(code.get("entrypoint") or ()),
        "directory": directory,
        "directory_digest": digest_of(files) if files else "",
        "directory_files": files,
        "git_commit": commit_of(directory) if directory else "",
    }


def data_record(datasets: DatasetStore, manifest: Manifest, store: str) -> dict[str, Any]:
    """The dataset version as a training record has it."""
    return {
        "store": store,
        "dataset_id": manifest.id,
        "manifest": datasets.manifest_address(manifest.id),
        "window": list(manifest.window),
        "as_of": manifest.as_of,
        "splits": manifest.splits,
        "split": dict(manifest.split),
        "features": (manifest.features or {}).get("service"),
    }


def environment_record(folder: Path) -> dict[str, Any]:
    """What the model code says that it ran with; empty when it says nothing that can be read."""
    from airflow_mlops.contract.protocol.storable import storable

    file = folder / "environment.json"
    if not file.is_file():
        return {}
    if (size := file.stat().st_size) > ENVIRONMENT_LIMIT:
        log.warning(
            "output/environment/environment.json has %d bytes; at most %d are read, so the record of this training does "
            "not say what it ran with.",
            size,
            ENVIRONMENT_LIMIT,
        )
        return {}
    try:
        found = storable(json.loads(file.read_bytes()), size=None)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    if not isinstance(found.get("packages", {}), dict):
        del found["packages"]  # those who read the record count them
    lock = folder / Path(str(found.get("lock_file") or "")).name
    if found.get("lock_file") and lock.is_file():
        with lock.open("rb") as content:
            found["lock_sha256"] = hashlib.file_digest(content, "sha256").hexdigest()
    return found


def example_rows(
    datasets: DatasetStore, manifest: Manifest, names: Sequence[str], count: int, scratch: Path
) -> list[dict[str, Any]]:
    """The first rows of train, as JSON values."""
    import pyarrow.parquet as pq

    first = next((chunk for chunk in manifest.chunks if chunk.split == "train"), None)
    if first is None or not count or not names:
        return []
    path = datasets.store.local(datasets.chunk_key(first.digest), scratch)
    with pq.ParquetFile(path) as file:
        batch = next(file.iter_batches(batch_size=count, columns=list(names)), None)
    rows = [] if batch is None else batch.to_pylist()
    return [json.loads(json_text(row, default=str)) for row in rows]
