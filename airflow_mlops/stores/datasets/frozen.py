"""The test of an earlier version that a split keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_mlops.exceptions import DataError, SpecError, StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_mlops.primitives.datasets.manifest import Manifest
    from airflow_mlops.primitives.datasets.splits.rule import SplitRule
    from airflow_mlops.stores.datasets.versions import DatasetStore

__all__ = ["FrozenTest", "frozen_files", "frozen_test"]


@dataclass(frozen=True)
class FrozenTest:
    """The test that a split freezes.

    :param dataset_id: the version that it is taken from; ``None`` when nothing is frozen.
    :param files: files with its examples.
    """

    dataset_id: str | None = None
    files: tuple[Path, ...] = ()

    @property
    def record(self) -> dict[str, str]:
        """What the record of the run says of it, so that retention keeps that version."""
        return {"frozen": self.dataset_id} if self.dataset_id else {}


def frozen_test(datasets: DatasetStore, rule: SplitRule | None, scratch: Path) -> FrozenTest:
    """The test examples of the version that a split freezes, if it does.

    :raises SpecError: that version has no test.
    :raises StoreError: there is no such version.
    """
    if rule is None or not rule.freeze:
        return FrozenTest()
    dataset_id = datasets.find(rule.freeze)
    manifest = datasets.manifest(dataset_id)
    if "test" not in manifest.splits:
        raise SpecError(
            f"split: freeze: dataset version {dataset_id} has no test; it has {', '.join(manifest.splits)}. "
            "Freeze a version that has one"
        )
    return FrozenTest(dataset_id, tuple(datasets.paths(dataset_id, "test", scratch)))


def frozen_files(datasets: DatasetStore, manifest: Manifest, scratch: Path) -> list[Path]:
    """Files with the test examples that a version froze: its own test, or that of a version that holds more of them.

    :param scratch: where they are copied to if the store is no folder.
    :return: none if nothing was frozen.
    :raises DataError: no version holds all of them any more.
    """
    frozen = manifest.split.get("frozen")
    if not frozen:
        return []
    if not frozen.get("missing"):
        return datasets.paths(manifest.id, "test", scratch)
    for dataset_id in datasets.ids():
        if (files := _same_test(datasets, dataset_id, manifest, scratch)) is not None:
            return files
    raise DataError(
        f"the split froze {frozen['rows']} test examples of a version that is not there any more; fetch the "
        "version instead of making it again"
    )


def _same_test(
    datasets: DatasetStore, dataset_id: str, manifest: Manifest, scratch: Path
) -> list[Path] | None:
    """The test of another version, if it is the one that was frozen: as many rows may be other ones."""
    from airflow_mlops.primitives.datasets.making.finish import open_frozen
    from airflow_mlops.primitives.sources.session import connect

    other, frozen = datasets.manifest(dataset_id), manifest.split["frozen"]
    keys, times = (tuple(c.name for c in manifest.columns if c.role == role) for role in ("key", "timestamp"))
    there = {(column.name, column.role) for column in other.columns}
    wanted = {*((name, "key") for name in keys), *((name, "timestamp") for name in times)}
    if other.splits.get("test") != frozen["rows"] or not wanted <= there:
        return None
    try:
        files = datasets.paths(dataset_id, "test", scratch)
    except StoreError as error:
        if error.retriable:
            raise
        return None  # it lost a chunk; another version may hold the same test
    with connect(scratch / "spill", "1GB") as connection:
        found = open_frozen(connection, tuple(files), keys, times[0])
    return files if found.digest == frozen["digest"] else None
