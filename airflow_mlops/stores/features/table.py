"""Published features in the artifact store: immutable files, and the snapshot that names them."""

from __future__ import annotations

import contextlib
import logging
import random
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow_mlops.exceptions import StoreConflictError, StoreError
from airflow_mlops.primitives.features.snapshot import Batch, FeatureSnapshot
from airflow_mlops.primitives.features.watermark import advanced, time_read

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from duckdb import DuckDBPyConnection

    from airflow_mlops.hooks.store.base import Store
    from airflow_mlops.primitives.features.publication import Published, Rows
    from airflow_mlops.primitives.features.snapshot import Part, TableRule
    from airflow_mlops.primitives.features.watermark import ReadWindow, Watermark

__all__ = ["FeatureTable", "Publication"]

log = logging.getLogger(__name__)

_ATTEMPTS = 20

#: A file that no snapshot names is removed when it is older than this: whoever wrote it was killed.
ABANDONED = timedelta(days=1)
#: One that is older than this is not taken over: the other half is for those who are just publishing.
_TAKEN_OVER = ABANDONED / 2


class FeatureTable:
    """The published rows of one feature pipeline.

    ``features/<name>/data/`` holds immutable Parquet files, to which others are only added;
    ``features/<name>/snapshot.json`` says which of them are published and how far the source was read. It is
    the one thing that moves, and so the rows and the watermark always move together.

    :param store: where it is kept.
    :param name: name of the feature pipeline.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name

    def key(self, *names: str) -> str:
        """Key of something of this table."""
        return "/".join(("features", self.name, *names))

    def snapshot(self) -> FeatureSnapshot | None:
        """What is published; ``None`` before the first publication.

        :raises StoreError: the snapshot is damaged.
        """
        return self.versioned()[0]

    def watermark(self) -> Watermark | None:
        """How far the source was read."""
        snapshot = self.snapshot()
        return None if snapshot is None else snapshot.watermark

    def files(self, snapshot: FeatureSnapshot, scratch: Path) -> list[Path]:
        """Local files of a snapshot; they must not be changed."""
        return [self.store.local(self.key("data", part.file), scratch) for part in snapshot.parts]

    def versioned(self) -> tuple[FeatureSnapshot | None, str | None]:
        """The snapshot, and its etag for :meth:`replace`."""
        key = self.key("snapshot.json")
        data, etag = self.store.read_versioned(key)
        if data is None:
            return None, etag
        return FeatureSnapshot.from_bytes(data, self.store.address(key)), etag

    def replace(self, snapshot: FeatureSnapshot, etag: str | None) -> None:
        """Make a snapshot the published one.

        :param etag: of the snapshot that it was made from.
        :raises StoreConflictError: somebody else published meanwhile.
        """
        self.store.compare_and_set(self.key("snapshot.json"), snapshot.to_bytes(), etag)


class Publication:
    """One batch on its way into a feature table.

    :param table: the table.
    :param rule: what its columns mean.
    :param staged: name of the batch: the same for a retry.
    :param window: what was read from the source.
    :param reached: greatest watermark among the rows that were read.
    :param moment: when the source was read.
    """

    def __init__(
        self,
        table: FeatureTable,
        rule: TableRule,
        *,
        staged: str,
        window: ReadWindow,
        reached: Watermark | None,
        moment: datetime,
    ) -> None:
        self.table, self.rule, self.staged = table, rule, staged
        self.window, self.reached, self.moment = window, reached, moment

    def done(self) -> tuple[FeatureSnapshot, Batch] | None:
        """The snapshot and this batch in it, when an earlier try has published it."""
        snapshot = self.table.snapshot()
        batch = snapshot.batch(self.staged) if snapshot is not None else None
        return None if snapshot is None or batch is None else (snapshot, batch)

    def publish(
        self,
        connection: DuckDBPyConnection,
        files: Sequence[Path],
        scratch: Path,
        check: Callable[[Rows], None] = lambda _: None,
    ) -> tuple[FeatureSnapshot, Batch]:
        """Add the rows that are not published yet, and move the watermark, in one step.

        The files go first and the snapshot last. When somebody else published meanwhile, it begins again with
        what is there now.

        :param files: local Parquet files of the batch.
        :param check: called with the batch in the table's types and order; raises to stop the publication.
        :raises SpecError: the table was published under another rule.
        :raises DataError: rows do not fit the table.
        :raises StoreConflictError: others were quicker each time.
        """
        batch: Rows | None = None
        fitted: Mapping[str, str] = {}
        put: set[str] = set()
        for attempt in range(_ATTEMPTS):
            if (found := self.done()) is not None:
                return found
            before, etag = self.table.versioned()
            before = before or FeatureSnapshot(self.table.name, self.rule)
            if batch is None or before.columns != fitted:
                batch, fitted = self._fitted(connection, before, files, scratch), before.columns
                check(batch)
            after, record = self._prepare(connection, before, batch, scratch, put)
            try:
                self.table.replace(after, etag)
            except StoreConflictError:
                time.sleep(random.uniform(0, 0.05 * (attempt + 1)))  # noqa: S311 - spreads several writers
            else:
                with contextlib.suppress(StoreError):  # the rows are published: tidying up can wait
                    self._take_back(put, after)
                    self._sweep(after)
                return after, record
        raise StoreConflictError(
            f"{self.table.store.address(self.table.key('snapshot.json'))}: others published {_ATTEMPTS} times "
            "meanwhile; it is tried again"
        )

    def _fitted(
        self, connection: DuckDBPyConnection, before: FeatureSnapshot, files: Sequence[Path], scratch: Path
    ) -> Rows:
        from airflow_mlops.primitives.features.publication import normalise

        before.check_rule(self.rule)
        return normalise(connection, self.rule, files, before.columns, scratch / "batch.parquet")

    def _prepare(
        self,
        connection: DuckDBPyConnection,
        before: FeatureSnapshot,
        batch: Rows,
        scratch: Path,
        put: set[str],
    ) -> tuple[FeatureSnapshot, Batch]:
        """Put the files of the new rows, and make the snapshot that will name them."""
        from airflow_mlops.primitives.features.parts import write_parts
        from airflow_mlops.primitives.features.publication import find_new

        published = self._published(before, batch, scratch)
        fresh = find_new(
            connection,
            self.rule,
            batch,
            published,
            self.moment,
            scratch / "fresh.parquet",
            late_before=self._late_before(before),
        )
        parts: list[Part] = []
        for part, path in write_parts(connection, self.rule, fresh, scratch / "parts") if fresh.rows else ():
            parts.append(self._put(part, path, put))
            path.unlink()
        record = Batch(
            staged=self.staged,
            rows=batch.rows,
            new_rows=fresh.rows,
            partitions=tuple(dict.fromkeys(part.file.split("/")[0].partition("=")[2] for part in parts)),
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            files=len(parts),
            first=fresh.first,
        )
        watermark = advanced(before.watermark, self.window, self.reached)
        return before.with_batch({**before.columns, **fresh.columns}, parts, watermark, record), record

    def _late_before(self, before: FeatureSnapshot) -> datetime | None:
        """Time before which a first row came late, as far as the publication dates rows; ``None`` for never.

        Nobody can say so of the first load, of a backfill, and where everything is read each time.
        """
        if not self.rule.filled or self.window.backfill or self.window.after is None:
            return None
        if self.window.column == self.rule.timestamp and (reached := time_read(before.watermark)):
            return reached
        newest = max((part.last for part in before.parts), default=None)
        return None if newest is None else datetime.fromisoformat(newest)

    def _put(self, part: Part, path: Path, put: set[str]) -> Part:
        """Put a file, or take over the one that a killed run left; not when that may be removed at any moment."""
        store, key = self.table.store, self.table.key("data", part.file)
        if store.put_if_absent(key, path):
            put.add(part.file)
        elif part.file not in put:
            written = store.modified(key).get(key)
            if written is None or datetime.now(UTC) - written > _TAKEN_OVER:
                name = f"{part.file.removesuffix('.parquet')}-{uuid.uuid4().hex[:8]}.parquet"
                return self._put(replace(part, file=name), path, put)
        return part

    def _published(self, snapshot: FeatureSnapshot, batch: Rows, scratch: Path) -> Published:
        from airflow_mlops.primitives.features.publication import Published

        files: dict[int, list[Path]] = {}
        for part in snapshot.overlapping(batch.first, batch.last) if batch.rows else ():
            key = self.table.key("data", part.file)
            files.setdefault(part.columns, []).append(self.table.store.local(key, scratch / "published"))
        return Published(files, snapshot.columns)

    def _take_back(self, put: set[str], snapshot: FeatureSnapshot) -> None:
        """Remove files that lost against another publication, for those who read the folder and no snapshot.

        The rows of such a file are published in another one by now. So nobody can publish this file any more:
        whoever knows this snapshot leaves these rows out, and whoever does not is refused.
        """
        kept = {part.file for part in snapshot.parts}
        for file in put - kept:
            self.table.store.delete(self.table.key("data", file))

    def _sweep(self, snapshot: FeatureSnapshot) -> None:
        """Remove files that killed runs left, for those who read the folder and no snapshot.

        Files are published within :data:`_TAKEN_OVER` of their age. So one that was older than
        :data:`ABANDONED` before the snapshot was read, and is not in it, is in none that is still to come.
        """
        store, limit = self.table.store, datetime.now(UTC) - ABANDONED
        ours = self.table.key("data", f"{self.rule.folder_column}=")
        if set(store.list(ours)) <= self._named(snapshot):
            return
        old = {key for key, at in store.modified(ours).items() if at < limit and key.endswith(".parquet")}
        left = old - self._named(self.table.snapshot() or snapshot)
        for key in sorted(left):
            store.delete(key)
        if left:
            log.info("Removed %d file(s) below %s that killed runs had left", len(left), store.address(ours))

    def _named(self, snapshot: FeatureSnapshot) -> set[str]:
        return {self.table.key("data", part.file) for part in snapshot.parts}
