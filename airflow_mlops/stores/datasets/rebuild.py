"""Dataset versions made again from their sources, and what differs when that is not possible any more."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import DataError, MLOpsError, SourceError
from airflow_mlops.hooks.scratch import scratch_folder

if TYPE_CHECKING:
    from airflow_mlops.hooks.sources.examples import AirflowSources
    from airflow_mlops.primitives.datasets.making.make import FeatureJoin
    from airflow_mlops.primitives.datasets.manifest import Manifest
    from airflow_mlops.primitives.sources.pinned import PinnedFile
    from airflow_mlops.stores.datasets.versions import DatasetStore

__all__ = ["Reproduction", "Where", "reproduce"]


@dataclass(frozen=True)
class Where:
    """Where sources are looked for.

    :param folders: folders, or ``s3://`` addresses, to which the sources were copied back.
    :param folder: what relative paths of the examples were below when the version was made.
    :param feast_conn_id: Airflow connection of the feature store.
    :param aws_conn_id: Airflow connection of ``s3://`` addresses.
    """

    folders: tuple[str, ...] = ()
    folder: Path | None = None
    feast_conn_id: str = "feast_default"
    aws_conn_id: str = "aws_default"

    @classmethod
    def of(
        cls, commits: Sequence[Mapping[str, Any]], folders: Sequence[str] = (), **known: str | None
    ) -> Where:
        """What the commits of a version say, and what is known better.

        :param folders: see :class:`Where`.
        :param known: ``feast_conn_id`` or ``aws_conn_id``, ``None`` if not.
        """
        said = next((dict(commit["where"]) for commit in commits if commit.get("where")), {})
        said |= {key: value for key, value in known.items() if value}
        folder = said.get("folder")
        return cls(
            folders=tuple(folders),
            folder=Path(folder) if folder else None,
            feast_conn_id=said.get("feast_conn_id") or cls.feast_conn_id,
            aws_conn_id=said.get("aws_conn_id") or cls.aws_conn_id,
        )


@dataclass(frozen=True)
class Reproduction:
    """What came of making a version again.

    :param manifest: the version.
    :param sources: what became of its sources: ``of``, ``pattern``, ``file``, ``state`` and ``place``.
    :param rebuilt: the manifest that came out; ``None`` when nothing did.
    :param problem: why nothing came out.
    :param libraries: library → version then and now, where they differ.
    :param difference: how the two versions differ, see :mod:`airflow_mlops.primitives.datasets.comparison`.
    :param notes: what people should know besides.
    """

    manifest: Manifest
    sources: tuple[Mapping[str, Any], ...]
    rebuilt: Manifest | None = None
    problem: str | None = None
    libraries: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)
    difference: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()

    @property
    def identical(self) -> bool:
        """Whether the same version came out: the same rows, and the same id."""
        return self.rebuilt is not None and self.rebuilt.id == self.manifest.id

    @property
    def same_rows(self) -> bool:
        """Whether the same chunks came out, in the same splits and order."""
        return self.rebuilt is not None and self.rebuilt.chunks == self.manifest.chunks

    @property
    def chunks(self) -> dict[str, list[str]]:
        """Digests of the chunks: ``same`` came out again, ``lost`` did not, ``new`` came out instead."""
        before = [chunk.digest for chunk in self.manifest.chunks]
        after = [chunk.digest for chunk in self.rebuilt.chunks] if self.rebuilt else []
        return {
            "same": [digest for digest in before if digest in after],
            "lost": [digest for digest in before if digest not in after],
            "new": [digest for digest in after if digest not in before],
        }

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "dataset_id": self.manifest.id,
            "rebuilt_id": self.rebuilt.id if self.rebuilt else None,
            "identical": self.identical,
            "same_rows": self.same_rows,
            "problem": self.problem,
            "sources": [dict(source) for source in self.sources],
            "chunks": self.chunks,
            "libraries": {name: list(pair) for name, pair in self.libraries.items()},
            "difference": self.difference,
            "notes": list(self.notes),
        }


def reproduce(
    datasets: DatasetStore,
    dataset_id: str,
    where: Where,
    *,
    into: Path | None = None,
    memory: str = "2GB",
) -> Reproduction:
    """Make a version again from the sources that it pinned, and compare what comes out.

    Every pinned file is looked for by its content, where it was and in ``where.folders``; files that came
    later are ignored. What changed is read as it is now, and what is gone is left out, so that the difference
    can be told. Nothing is published.

    :param into: folder for the files that came out, ``<split>/00000.parquet`` and ``manifest.json``.
    :param memory: what DuckDB may hold in memory before it uses the disk.
    :raises StoreError: there is no such version.
    """
    from airflow.sdk.exceptions import AirflowNotFoundException

    from airflow_mlops.hooks.sources.examples import AirflowSources
    from airflow_mlops.primitives.sources.pinned import PinnedSources, find_pinned

    manifest = datasets.manifest(dataset_id)
    commits = datasets.commits(dataset_id)
    sources = AirflowSources(where.aws_conn_id)
    tables = [pin for pin in manifest.sources if "file" not in pin]
    with scratch_folder() as folder:
        scratch = Path(folder)
        looking = _Looking(where, sources, scratch / "kept")
        found = find_pinned(
            manifest.sources, looking.candidates, sources, looking.elsewhere(), looking.recover
        )
        pinned = PinnedSources(found, tables, sources)
        states, missing = _states(found, pinned, manifest, where)
        outcome = Reproduction(
            manifest, tuple(states), libraries=_libraries(commits), notes=looking.said(found)
        )
        try:
            if missing:
                raise SourceError(missing)
            rebuilt, files, notes = _rebuild(datasets, manifest, pinned, where, scratch, memory)
        except (MLOpsError, AirflowNotFoundException) as error:
            if getattr(error, "retriable", False):
                raise
            return _with(outcome, problem=str(error))
        if into is not None:
            _write(into, rebuilt, files)
        outcome = _with(outcome, rebuilt=rebuilt, notes=(*outcome.notes, *notes))
        return (
            outcome
            if outcome.identical
            else _with(outcome, difference=_difference(datasets, outcome, files, scratch))
        )


@dataclass
class _Looking:
    """Looks for pinned files: where they were, and where somebody put them back."""

    where: Where
    sources: AirflowSources
    kept: Path
    notes: list[str] = field(default_factory=list)
    not_found: dict[str, str] = field(default_factory=dict)
    without_repository: str | None = None

    def said(self, found: Sequence[PinnedFile]) -> tuple[str, ...]:
        """What people should know; why files were not found only if some were not."""
        doubtful = [
            f"{file.place} is taken for the pinned file by its size and its Parquet footer alone, which may stay the "
            "same while a value changes: there is no digest of its content to compare"
            for file in found
            if file.by_footer
        ]
        missing = {file.pin.get("pattern") for file in found if file.state != "same"}
        reasons = [reason for pattern, reason in self.not_found.items() if pattern in missing]
        reasons += [self.without_repository] if missing and self.without_repository else []
        return (*self.notes, *doubtful, *reasons)

    def candidates(self, of: str, pattern: str) -> tuple[str, ...]:
        """Files of a pattern where it was."""
        try:
            return self.sources.find(pattern, self._folder(of)) if pattern else ()
        except MLOpsError as error:
            if error.retriable:
                raise
            self.not_found[pattern] = str(error)
            return ()

    def elsewhere(self) -> list[str]:
        """All files of the folders to which sources were copied back."""
        return [file for folder in self.where.folders for file in self._below(folder)]

    def recover(self, place: str, pin: Mapping[str, Any]) -> str | None:
        """An earlier content of an object, from a bucket that keeps versions."""
        target = self.kept / place.partition("://")[2]
        found = self.sources.download(place, pin, target)
        if found is not None:
            self.notes.append(f"{place} was overwritten; its version {pin['version_id']} is read")
        return None if found is None else str(found)

    def _folder(self, of: str) -> Path | None:
        if not of.startswith("view:"):
            return self.where.folder
        from airflow_mlops.hooks.feast.hook import FeastHook

        try:
            return FeastHook(self.where.feast_conn_id).repo_path
        except Exception as error:  # noqa: BLE001 - without it, only relative paths of views are not found
            self.without_repository = f"Feature files are looked for in --folder only: {error}"
            return None

    def _below(self, folder: str) -> Sequence[str]:
        if folder.startswith("s3://"):
            return self.sources.find(f"{folder.rstrip('/')}/**")
        if not Path(folder).is_dir():
            raise DataError(f"{folder} is no folder: name the one that the sources were copied to")
        return [str(file) for file in sorted(Path(folder).resolve().rglob("*")) if file.is_file()]


def _states(
    found: Sequence[PinnedFile], pinned: Any, manifest: Manifest, where: Where
) -> tuple[list[dict[str, Any]], str | None]:
    """What became of each source, and why nothing can be made of them, if so."""
    states = [file.to_json() for file in found]
    problems = []
    groups: dict[tuple[str, str], set[str]] = {}
    for file in found:
        groups.setdefault((file.of, str(file.pin.get("pattern", ""))), set()).add(file.state)
    problems += [
        f"{of} {pattern}: all pinned files are gone"
        for (of, pattern), found_states in groups.items()
        if found_states == {"gone"}
    ]
    for pin in pinned.tables:
        problem = _table_problem(pin, pinned, manifest, where)
        states.append({"of": pin["of"], "pattern": pin["pattern"], "state": "gone" if problem else "same"})
        problems += [problem] if problem else []
    return states, "; ".join(problems) or None


def _table_problem(pin: Mapping[str, Any], pinned: Any, manifest: Manifest, where: Where) -> str | None:
    from airflow_mlops.database import connect

    name = str(pin["of"]).removeprefix("table:")
    table = manifest.examples.get("tables", {}).get(name, {})
    try:
        with connect() as connection:
            pinned.open_table(connection, name, table, where.folder)
    except MLOpsError as error:
        if error.retriable:
            raise
        return str(error)
    return None


def _rebuild(
    datasets: DatasetStore, manifest: Manifest, pinned: Any, where: Where, scratch: Path, memory: str
) -> tuple[Manifest, Mapping[str, Path], list[str]]:
    from airflow_mlops.primitives.datasets.making.rebuild import (
        PinnedJoin,
        divide_again,
        rebuild,
        request_of,
        why_not_pinned,
    )
    from airflow_mlops.stores.datasets.frozen import frozen_files

    notes: list[str] = []
    frozen = frozen_files(datasets, manifest, scratch / "frozen")
    parent = _parent(datasets, manifest)
    if parent is not None:
        # Its rows are those of another version, which may have left some out.
        inner = scratch / "parent"
        inner.mkdir()
        again, files, notes = _rebuild(datasets, parent, pinned, where, inner, memory)
        rebuilt, files = divide_again(manifest, again, files, scratch, frozen=frozen, memory=memory)
        return (
            rebuilt,
            files,
            [*notes, f"It was divided from version {parent.id}, which was made again first"],
        )
    join: FeatureJoin = PinnedJoin(manifest, pinned, scratch, memory)
    if why := why_not_pinned(manifest):
        from airflow_mlops.hooks.feast.hook import FeastHook

        join = FeastHook(where.feast_conn_id)
        notes.append(f"The features are joined by Feast, from what its sources hold now: {why}")
    request = request_of(manifest, where.folder, where.aws_conn_id)
    rebuilt, files = rebuild(manifest, request, join, pinned, scratch, frozen=frozen, memory=memory)
    return rebuilt, files, notes


def _parent(datasets: DatasetStore, manifest: Manifest) -> Manifest | None:
    """The version from whose rows this one was divided, if it was, and if that left out some."""
    commits = datasets.commits(manifest.id)
    if not commits or not all(commit.get("parents") for commit in commits):
        return None
    known = datasets.ids()
    parents = {str(parent) for commit in commits for parent in commit["parents"]} & set(known)
    found = [datasets.manifest(parent) for parent in sorted(parents - {manifest.id})]
    return next((parent for parent in found if parent.sources == manifest.sources), None)


def _libraries(commits: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str | None, str | None]]:
    then = dict(commits[-1].get("libraries") or {}) if commits else {}
    pairs = {name: (str(old), _version(name)) for name, old in then.items()}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _write(into: Path, manifest: Manifest, files: Mapping[str, Path]) -> None:
    numbers: dict[str, int] = {}
    for chunk in manifest.chunks:
        number = numbers[chunk.split] = numbers.get(chunk.split, -1) + 1
        (into / chunk.split).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files[chunk.digest], into / chunk.split / f"{number:05d}.parquet")
    (into / "manifest.json").write_text(manifest.to_json())


def _difference(
    datasets: DatasetStore, outcome: Reproduction, files: Mapping[str, Path], scratch: Path
) -> dict[str, Any]:
    from airflow_mlops.primitives.datasets.comparison import (
        Side,
        compare_manifests,
        compare_rows,
    )
    from airflow_mlops.primitives.sources.session import connect

    old, new = outcome.manifest, outcome.rebuilt or outcome.manifest
    found = compare_manifests(old, new)
    if outcome.same_rows:
        return found
    kept: dict[str, Path] = {}
    for chunk in old.chunks:
        key = datasets.chunk_key(chunk.digest)
        if not datasets.store.exists(key):
            return {**found, "rows_unknown": f"chunk {chunk.digest} of the version is gone from the store"}
        kept[chunk.digest] = datasets.store.local(key, scratch / "stored")
    with connect(scratch / "spill-difference", "1GB") as connection:
        return {**found, "rows": compare_rows(connection, Side(old, kept), Side(new, files))}


def _with(outcome: Reproduction, **values: Any) -> Reproduction:
    from dataclasses import replace

    return replace(outcome, **values)
