"""Removal of dataset versions, safe beside writers that publish at the same time."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import StoreError
from airflow_mlops.hooks.store.base import in_parallel
from airflow_mlops.stores.datasets.lock import PruneLock
from airflow_mlops.stores.predictions import PredictionStore, TestPredictions

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from airflow_mlops.primitives.datasets.retention import RetentionRule, Verdict, VersionFacts
    from airflow_mlops.stores.datasets.versions import DatasetStore, VersionInfo

__all__ = ["Pruned", "Pruning", "open_windows"]

#: A chunk that no version needs stays this long.
GRACE = timedelta(days=1)
#: A publish that was announced, or an upload that was begun, longer ago was killed.
ANNOUNCED_FOR = timedelta(days=1)
#: How long a prune may remove things after it has renewed its lock, and how long others believe that it does: the
#: difference is what clocks of different machines may differ by.
WORKING, LOCKED = timedelta(minutes=1), timedelta(minutes=2)
#: A window of predictions whose inputs have not been profiled by then will hardly ever be.
WINDOW_WAITS = timedelta(days=30)


@dataclass(frozen=True)
class Pruned:
    """What a prune removed, or would remove.

    :param verdicts: every version, newest first, with the reasons.
    :param chunks: keys of the chunk files that go.
    :param dry_run: whether nothing was removed.
    :param notes: what could not be done, in words.
    """

    verdicts: tuple[Verdict, ...]
    chunks: tuple[str, ...]
    dry_run: bool
    notes: tuple[str, ...] = ()

    @property
    def versions(self) -> tuple[str, ...]:
        """Ids of the versions that go."""
        return tuple(verdict.id for verdict in self.verdicts if not verdict.keep)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        verdicts = [{"id": v.id, "keep": v.keep, "reasons": list(v.reasons)} for v in self.verdicts]
        return {
            "dry_run": self.dry_run,
            "versions": verdicts,
            "chunks": list(self.chunks),
            "notes": list(self.notes),
        }


@dataclass
class Pruning:
    """One removal of versions and chunks of an application.

    :param now: the moment for which ages are taken.
    :param grace: how long what no version needs stays all the same.
    """

    datasets: DatasetStore
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    grace: timedelta = GRACE

    def prune(
        self, rule: RetentionRule, uses: Mapping[str, Iterable[str]], *, dry_run: bool = False
    ) -> Pruned:
        """Remove the versions that a rule lets go, and the chunks that no version needs.

        :param uses: dataset id → who uses it, in words; those stay. See
            :meth:`~airflow_mlops.hooks.mlflow.hook.MLflowHook.datasets_in_use`.
        :param dry_run: decide and say why, and remove nothing.
        :raises StoreError: a manifest cannot be read, and so nobody knows which chunks it needs; or another
            prune is at work.
        """
        from airflow_mlops.primitives.datasets.retention import decide

        infos = self.datasets.versions()
        verdicts = decide([_facts(info, uses.get(info.id, ())) for info in infos], rule, self.now)
        going = {verdict.id for verdict in verdicts if not verdict.keep}
        chunks = self._unneeded({info.id for info in infos} - going)
        if dry_run:
            return Pruned(tuple(verdicts), tuple(sorted(chunks.values())), dry_run=True)
        notes = self._sweep()
        gone, removed = self._remove(going, chunks, {info.id for info in infos})
        done = tuple(v if v.keep or v.id in gone else _stays(v) for v in verdicts)
        return Pruned(done, tuple(removed), dry_run=False, notes=notes)

    def remove(self, ids: Collection[str]) -> Pruned:
        """Remove versions, whatever their age, and the chunks that no other version needs.

        Chunks that were written within the last day go with the next :meth:`prune`.

        :raises StoreError: a reference points to one of them, or there is no such version.
        """
        from airflow_mlops.primitives.datasets.retention import Verdict

        known = set(self.datasets.ids())
        pointed = {dataset_id: name for name, dataset_id in self.datasets.refs().items()}
        for dataset_id in ids:
            if dataset_id not in known:
                raise StoreError(f"no dataset version {dataset_id} of {self.datasets.application!r}")
            if dataset_id in pointed:
                raise StoreError(
                    f"dataset {dataset_id}: the reference {pointed[dataset_id]!r} points to it. "
                    "Provision a newer version first"
                )
        self._refuse_frozen(set(ids), known - set(ids))
        needed = {chunk.digest for name in ids for chunk in self.datasets.manifest(name).chunks}
        unneeded = self._unneeded(known - set(ids))
        gone, removed = self._remove(set(ids), {d: key for d, key in unneeded.items() if d in needed}, known)
        verdicts = [Verdict(name, keep=False, reasons=("asked for",)) for name in ids]
        return Pruned(
            tuple(v if v.id in gone else _stays(v) for v in verdicts), tuple(removed), dry_run=False
        )

    # Deciding ----------------------------------------------------------------------------------

    def _refuse_frozen(self, ids: set[str], stay: set[str]) -> None:
        """Stop when a version that stays keeps the test of one of these."""
        for record in self.datasets.commits():
            name = record.get("frozen")
            if name in ids and record["dataset_id"] in stay:
                raise StoreError(
                    f"dataset {name}: version {record['dataset_id']} keeps its test (split: freeze), and so will the "
                    "next one. Cure: freeze another version, or remove both"
                )

    def _unneeded(self, stay: Collection[str]) -> dict[str, str]:
        """Digest and key of each chunk that is old enough and that no version of ``stay`` needs."""
        needed = self._needed(stay)
        start = self.datasets.key("chunks", "")
        found = {}
        for key, written in self.datasets.store.modified(start).items():
            digest = key.rpartition("/")[2].removesuffix(".parquet")
            if digest not in needed and self.now - written >= self.grace:
                found[digest] = key
        return found

    def _needed(self, ids: Collection[str]) -> set[str]:
        manifests = in_parallel(self.datasets.manifest, sorted(ids))
        return {chunk.digest for manifest in manifests for chunk in manifest.chunks}

    def _pending(self) -> list[dict[str, Any]]:
        """What writers have announced and not finished; what killed ones left is removed."""
        store, start = self.datasets.store, self.datasets.key("pending", "")
        found = []
        for key, written in store.modified(start).items():
            if self.now - written > ANNOUNCED_FOR:
                store.delete(key)
            elif note := store.read_json(key):
                found.append(note)
        return found

    # Removing ----------------------------------------------------------------------------------

    def _sweep(self) -> tuple[str, ...]:
        try:
            self.datasets.store.sweep(self.now - ANNOUNCED_FOR)
        except StoreError as error:
            return (f"Unfinished uploads stay: {error}",)
        return ()

    def _remove(
        self, versions: set[str], chunks: dict[str, str], known: set[str]
    ) -> tuple[set[str], list[str]]:
        """Remove versions, their commits and chunks, except what a writer has come to need since.

        :param known: all versions that there were when it was decided.
        """
        if not versions and not chunks:
            return set(), []
        store = self.datasets.store
        with self._locked(versions, chunks) as lock:
            before = set(self.datasets.ids())
            pending, refs = self._pending(), set(self.datasets.refs().values())
            versions = versions - refs - {note["dataset_id"] for note in pending}
            versions -= {note.get("frozen") for note in pending} | self._frozen(before - known)
            # Read again with the writers kept out: versions that came or came back since the decision.
            needed = self._needed(before - versions)
            needed |= {digest for note in pending for digest in note["chunks"]}
            going = [self.datasets.manifest_key(name) for name in sorted(versions)]
            going += self._notes("commits", versions) + self._notes("joins", versions)
            for name in sorted(versions):
                going += TestPredictions(self.datasets).keys(name)
                going += store.list(self.datasets.key("assumptions", f"dataset-{name[:12]}-"))
            files = sorted(key for digest, key in chunks.items() if digest not in needed)
            # Manifests first: a version is gone before it could lack a chunk.
            for key in (*going, *files):
                lock.check()
                store.delete(key)
        return versions, files

    def _frozen(self, ids: Collection[str]) -> set[str]:
        """Versions whose test these keep."""
        records = self.datasets.commits() if ids else ()
        return {record["frozen"] for record in records if record["dataset_id"] in ids and "frozen" in record}

    def _notes(self, kind: str, versions: set[str]) -> list[str]:
        """Keys of the notes about these versions."""
        store = self.datasets.store
        keys = store.list(self.datasets.key(kind, ""))
        records = zip(keys, in_parallel(store.read_json, keys), strict=True)
        return [key for key, record in records if record and record["dataset_id"] in versions]

    def _locked(self, versions: Collection[str], chunks: Collection[str]) -> PruneLock:
        plan = {"versions": sorted(versions), "chunks": sorted(chunks)}
        return PruneLock(self.datasets, plan, WORKING, LOCKED)


def open_windows(datasets: DatasetStore, now: datetime | None = None) -> dict[str, list[str]]:
    """Versions that monitoring has still to read: dataset id → which window of predictions waits for it."""
    now, found = now or datetime.now(UTC), dict[str, list[str]]()
    for batch in PredictionStore(datasets.store, datasets.application).batches():
        window, predicted = batch.window_id, datetime.fromisoformat(batch.predicted_at)
        done = f"{datasets.application}/monitoring/windows/{window}/inputs.json"
        if now - predicted > WINDOW_WAITS or datasets.store.exists(done):
            continue
        for dataset_id in {batch.dataset_id, batch.reference_dataset_id}:
            found.setdefault(dataset_id, []).append(f"window {window}, whose inputs are not profiled yet")
    return found


def _facts(info: VersionInfo, uses: Iterable[str]) -> VersionFacts:
    from airflow_mlops.primitives.datasets.retention import Made, VersionFacts
    from airflow_mlops.stores.datasets.versions import commit_time

    made = tuple(
        Made(
            commit_time(record["time"]),
            str(record.get("line") or record.get("ref") or "latest"),
            str(record.get("retention") or "production"),
        )
        for record in info.commits
    )
    frozen = dict.fromkeys(str(record["frozen"]) for record in info.commits if record.get("frozen"))
    made = made or (Made(commit_time(info.time)),)
    return VersionFacts(info.id, made, info.refs, tuple(uses), tuple(frozen))


def _stays(verdict: Verdict) -> Verdict:
    from airflow_mlops.primitives.datasets.retention import Verdict

    return Verdict(verdict.id, keep=True, reasons=("provisioned again in this moment",))
