"""Dataset versions: published whole, found, fetched, checked and removed."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airflow_mlops.exceptions import StoreConflictError, StoreError
from airflow_mlops.hooks.store.files import FileStore
from airflow_mlops.primitives.datasets.manifest import Chunk, Column, Manifest
from airflow_mlops.primitives.datasets.retention import Keep, RetentionRule
from airflow_mlops.stores.datasets.damage import find_damage
from airflow_mlops.stores.datasets.joins import JoinStore
from airflow_mlops.stores.datasets.retention import Pruning, open_windows
from airflow_mlops.stores.datasets.versions import DatasetStore
from airflow_mlops.stores.predictions import TestPredictions
from tests.fixtures.versions import Version, complete

NOTHING = RetentionRule(Keep(0, timedelta(0)), Keep(0, timedelta(0)))


def manifest(*chunks: Chunk) -> Manifest:
    return Manifest(
        application="app",
        purpose="training",
        columns=(Column("id", "int64", "key"),),
        chunks=chunks,
        window=("2024-01-01T00:00:00+00:00", "2024-02-01T00:00:00+00:00"),
    )


def chunk(digest: str, split: str = "train") -> Chunk:
    return Chunk(digest, split, 1, "2024-01-01T00:00:00+00:00", "2024-01-01T00:00:00+00:00")


COMMIT = {"time": "2024-02-01T00:00:00+00:00", "run_id": "manual"}


def test_a_version_is_published_once_and_its_reference_moves(tmp_path):
    datasets = DatasetStore(FileStore(tmp_path / "store"), "app")
    file = tmp_path / "chunk"
    file.write_bytes(b"rows")
    one, two = manifest(chunk("aa11")), manifest(chunk("aa11"), chunk("bb22", "test"))
    assert datasets.resolve("latest") is None
    assert datasets.publish(one, {"aa11": file}, COMMIT)
    assert not datasets.publish(one, {}, {**COMMIT, "run_id": "again"})
    assert datasets.resolve("latest") == one.id
    assert datasets.publish(two, {"bb22": file}, COMMIT)
    assert datasets.resolve("latest") == two.id
    assert datasets.manifest(one.id) == one
    assert [path.name for path in datasets.paths(two.id, "test", Path("unused"))] == ["bb22.parquet"]
    assert len(datasets.store.list("app/datasets/chunks")) == 2
    commits = [datasets.store.read_json(key) for key in datasets.store.list("app/datasets/commits")]
    assert sorted((commit["run_id"], commit["created"]) for commit in commits) == [
        ("again", False),
        ("manual", True),
        ("manual", True),
    ]


def test_a_version_without_its_chunks_is_not_published(tmp_path):
    datasets = DatasetStore(FileStore(tmp_path), "app")
    with pytest.raises(StoreConflictError, match="chunk aa11 is neither stored nor given"):
        datasets.publish(manifest(chunk("aa11")), {}, COMMIT)
    assert datasets.store.list() == []  # not even a note of the attempt


def test_damage_is_noticed(tmp_path):
    datasets = DatasetStore(FileStore(tmp_path), "app")
    file = tmp_path / "chunk"
    file.write_bytes(b"rows")
    version = manifest(chunk("aa11"))
    datasets.publish(version, {"aa11": file}, COMMIT)
    with pytest.raises(StoreError, match="has no split 'test'; it has train"):
        datasets.paths(version.id, "test", Path("unused"))
    datasets.store.path(datasets.chunk_key("aa11")).unlink()
    with pytest.raises(StoreError, match=r"1 chunk\(s\) are gone"):
        datasets.paths(version.id, "train", Path("unused"))
    path = datasets.store.path(f"app/datasets/manifests/{version.id}.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "application": "other"}))
    with pytest.raises(StoreError, match="was changed"):
        datasets.manifest(version.id)
    with pytest.raises(StoreError, match="no dataset version 0000"):
        datasets.manifest("0000")


@pytest.fixture
def datasets(tmp_path):
    return DatasetStore(FileStore(tmp_path / "store"), "app")


@pytest.fixture
def version(tmp_path):
    return Version(tmp_path / "files", [1, 2, 3], tests=[3])


class TestFinding:
    def test_by_prefix_and_by_reference(self, datasets, tmp_path):
        versions = [Version(tmp_path / "files", [month]) for month in range(1, 9)]
        for version in versions:
            version.publish(datasets, "latest" if version is versions[0] else "other")
        for version in versions:
            assert datasets.find(version.id) == version.id
            assert datasets.find(version.id[:20]) == version.id
        assert datasets.find("latest") == versions[0].id
        assert datasets.refs() == {"latest": versions[0].id, "other": versions[-1].id}
        with pytest.raises(StoreError, match="8 dataset versions of 'app' begin with ''"):
            datasets.find("")
        with pytest.raises(StoreError, match=r"no reference has this name \(there are: latest, other\)"):
            datasets.find("nobody")

    def test_versions_are_listed_newest_first_with_who_made_them(self, datasets, tmp_path):
        one, two = Version(tmp_path / "files", [1]), Version(tmp_path / "files", [2])
        two.publish(datasets, time="2026-03-01T00:00:00+00:00", run_id="second")
        one.publish(datasets, "try", time="2026-02-01T00:00:00+00:00", run_id="first")
        one.publish(datasets, "try", time="2026-04-01T00:00:00+02:00", run_id="third")
        found = datasets.versions()
        assert [(info.id, info.time, info.refs) for info in found] == [
            (one.id, "2026-04-01T00:00:00+02:00", ("try",)),
            (two.id, "2026-03-01T00:00:00+00:00", ("latest",)),
        ]
        assert [commit["run_id"] for commit in datasets.commits(one.id)] == ["third", "first"]
        assert [commit["created"] for commit in datasets.commits(one.id)] == [False, True]

    def test_a_version_whose_writer_died_before_its_commit_is_listed(self, datasets, version):
        version.publish(datasets)
        for key in datasets.store.list("app/datasets/commits/"):
            datasets.store.delete(key)
        [info] = datasets.versions()
        age = datetime.now(UTC) - datetime.fromisoformat(info.time)
        assert (info.id, info.commits, info.refs) == (version.id, (), ("latest",))
        assert age < timedelta(minutes=1)


class TestFetching:
    def test_a_version_is_copied_with_its_splits(self, datasets, version, tmp_path):
        version.publish(datasets)
        for _ in range(2):
            copied = datasets.fetch(version.id, tmp_path / "copy")
            assert {split: [path.name for path in paths] for split, paths in copied.items()} == {
                "train": ["00000.parquet", "00001.parquet"],
                "test": ["00000.parquet"],
            }
            digests = [chunk.digest for chunk in version.manifest.chunks]
            for path, digest in zip([*copied["train"], *copied["test"]], digests, strict=True):
                assert path.read_bytes() == version.files[digest].read_bytes()
            kept = sorted(
                path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*")
            )
            assert kept == [
                "manifest.json",
                "test",
                "test/00000.parquet",
                *("train", "train/00000.parquet"),
                "train/00001.parquet",
            ]
        assert Manifest.from_json((tmp_path / "copy/manifest.json").read_bytes()) == version.manifest

    def test_a_copy_is_no_link(self, datasets, version, tmp_path):
        version.publish(datasets)
        copied = datasets.fetch(version.id, tmp_path / "copy", ["test"])
        assert list(copied) == ["test"]
        copied["test"][0].write_bytes(b"mine")
        assert find_damage(datasets, version.id) == []

    def test_a_split_that_is_not_there_is_named(self, datasets, version, tmp_path):
        version.publish(datasets)
        with pytest.raises(StoreError, match="has no split 'validation'; it has train, test"):
            datasets.fetch(version.id, tmp_path / "copy", ["validation"])

    def test_a_folder_that_cannot_be_written_is_named(self, datasets, version, tmp_path):
        version.publish(datasets)
        (tmp_path / "copy").write_text("a file")
        with pytest.raises(StoreError, match=r"cannot write to .*copy"):
            datasets.fetch(version.id, tmp_path / "copy")


class TestVerifying:
    def damaged(self, datasets, version, change) -> list[tuple[str, str]]:
        version.publish(datasets)
        digest = version.manifest.chunks[1].digest
        path = datasets.store.path(datasets.chunk_key(digest))
        change(path)
        found = [(damage.part == digest, damage.problem) for damage in find_damage(datasets, version.id)]
        assert all(damage.address == str(path) for damage in find_damage(datasets, version.id))
        return found

    def test_a_whole_version_has_no_damage(self, datasets, version):
        version.publish(datasets)
        assert find_damage(datasets, version.id) == []

    def test_any_flipped_byte_is_found(self, datasets, version):
        version.publish(datasets)
        path = datasets.store.path(datasets.chunk_key(version.manifest.chunks[1].digest))
        whole = path.read_bytes()
        for place in range(0, len(whole), 37):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
            [damage] = find_damage(datasets, version.id)
            assert damage.part == version.manifest.chunks[1].digest
            assert damage.problem in ("unreadable", "changed", "rewritten")
        path.write_bytes(whole)
        assert find_damage(datasets, version.id) == []

    def test_a_flipped_value_is_found_without_the_record_of_the_bytes(self, datasets, version, tmp_path):
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        def change(path: Path) -> None:
            table = pq.read_table(path)
            values = pc.add(table["value"], pc.equal(table["id"], 7).cast("double"))
            pq.write_table(table.set_column(1, "value", values), path)
            for key in datasets.store.list("app/datasets/commits/"):
                datasets.store.delete(key)

        assert self.damaged(datasets, version, change) == [(True, "changed")]

    def test_rows_that_were_written_anew_are_told_from_other_rows(self, datasets, version):
        import pyarrow.parquet as pq

        def change(path: Path) -> None:
            pq.write_table(pq.read_table(path), path, compression="zstd")

        assert self.damaged(datasets, version, change) == [(True, "rewritten")]

    def test_a_truncated_chunk_is_found(self, datasets, version):
        change = lambda path: path.write_bytes(path.read_bytes()[:-100])  # noqa: E731
        assert self.damaged(datasets, version, change) == [(True, "unreadable")]

    def test_an_empty_chunk_is_found(self, datasets, version):
        assert self.damaged(datasets, version, lambda path: path.write_bytes(b"")) == [(True, "unreadable")]

    def test_a_missing_chunk_is_found(self, datasets, version):
        assert self.damaged(datasets, version, Path.unlink) == [(True, "missing")]

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            (lambda text: text.replace(b'"app"', b'"apq"'), "changed"),
            (lambda text: text.replace(b",", b", ", 1), "changed"),
            (lambda text: text[:-10], "unreadable"),
            (lambda _: b"", "unreadable"),
        ],
    )
    def test_a_changed_manifest_is_found(self, datasets, version, change, problem):
        version.publish(datasets)
        path = datasets.store.path(datasets.manifest_key(version.id))
        path.write_bytes(change(path.read_bytes()))
        [damage] = find_damage(datasets, version.id)
        assert (damage.part, damage.problem, damage.address) == ("manifest", problem, str(path))

    def test_a_version_that_never_was_is_an_error(self, datasets):
        with pytest.raises(StoreError, match="no dataset version 00"):
            find_damage(datasets, "00")


class TestPruning:
    @pytest.fixture
    def old(self, datasets, tmp_path):
        """Three versions that share a chunk; the last one is the latest. All is months old by now."""
        versions = [Version(tmp_path / "files", [1, month]) for month in (2, 3, 4)]
        for number, version in enumerate(versions):
            version.publish(datasets, time=f"2026-0{number + 1}-01T00:00:00+00:00")
        return versions

    def prune(self, datasets, rule=NOTHING, uses=None, *, dry_run=False):
        later = datetime.now(UTC) + timedelta(days=400)
        return Pruning(datasets, now=later).prune(rule, uses or {}, dry_run=dry_run)

    def test_a_dry_run_says_what_and_why_and_removes_nothing(self, datasets, old):
        before = datasets.store.list()
        found = self.prune(datasets, uses={old[0].id: ["version 3 of model m"]}, dry_run=True)
        assert datasets.store.list() == before
        assert found.dry_run
        assert found.versions == (old[1].id,)
        assert len(found.chunks) == 1
        reasons = {verdict["id"]: verdict["reasons"] for verdict in found.to_dict()["versions"]}
        assert reasons[old[0].id] == ["used by version 3 of model m"]
        assert reasons[old[2].id] == ["reference latest"]
        assert "number 2 of latest" in reasons[old[1].id][0]
        json.dumps(found.to_dict())

    def test_what_was_announced_goes_and_nothing_else(self, datasets, old):
        expected = self.prune(datasets, dry_run=True)
        found = self.prune(datasets)
        assert (found.versions, set(found.chunks)) == (expected.versions, set(expected.chunks))
        assert complete(datasets) == {old[2].id}
        assert len(datasets.store.list("app/datasets/chunks/")) == 2
        assert [commit["dataset_id"] for commit in datasets.commits()] == [old[2].id]
        assert self.prune(datasets).versions == ()

    def test_notes_of_joined_rows_go_with_their_version(self, datasets, old):
        joins = JoinStore(datasets)
        joins.remember("gone", old[0].manifest)
        joins.remember("kept", old[2].manifest)
        self.prune(datasets)
        assert datasets.store.list("app/datasets/joins/") == ["app/datasets/joins/kept.json"]

    def test_predictions_of_its_test_split_go_with_their_version(self, datasets, old):
        for version in (old[0], old[2]):
            datasets.store.put_if_absent(TestPredictions(datasets).key(version.id, "job"), b"scores")
        self.prune(datasets)
        assert datasets.store.list("app/datasets/predictions/") == [
            f"app/datasets/predictions/{old[2].id}/job.parquet"
        ]

    def test_its_reports_go_with_a_version(self, datasets, old):
        for version in (old[0], old[2]):
            key = datasets.key("assumptions", f"dataset-{version.id[:12]}-0123.json")
            datasets.store.put_json_if_absent(key, {})
        self.prune(datasets)
        (kept,) = datasets.store.list("app/datasets/assumptions/")
        assert old[2].id[:12] in kept

    def test_a_frozen_test_holds_its_version_as_long_as_one_that_stays_keeps_it(self, datasets, old):
        old[1].publish(datasets, "latest", frozen=old[0].id)
        old[2].publish(datasets, "latest", frozen=old[1].id)
        found = self.prune(datasets)
        assert found.versions == (old[0].id,), "not in chains, or nothing would ever go"
        reasons = {verdict.id: verdict.reasons for verdict in found.verdicts}
        assert reasons[old[1].id] == (f"its test is frozen by version {old[2].id[:12]}",)
        with pytest.raises(StoreError, match=f"version {old[2].id} keeps its test"):
            Pruning(datasets).remove([old[1].id])

    @pytest.mark.parametrize("finished", [False, True])
    def test_one_that_is_being_frozen_stays(self, datasets, old, tmp_path, monkeypatch, finished):
        """Whether its writer is at work, or is done since it was decided what goes."""
        coming, pruning = Version(tmp_path / "files", [1, 9]), Pruning(datasets)
        pruning.now += timedelta(hours=20)
        known = set(datasets.ids())
        with contextlib.ExitStack() as stack:
            if finished:
                coming.publish(datasets, "latest", frozen=old[0].id)
            else:
                stack.enter_context(datasets._announced(coming.manifest, old[0].id))
            gone, _ = pruning._remove({old[0].id, old[1].id}, {}, known)
        assert gone == {old[1].id}

    def test_one_that_was_removed_meanwhile_cannot_be_frozen(self, datasets, old, tmp_path):
        Pruning(datasets).remove([old[0].id])
        coming = Version(tmp_path / "files", [1, 9])
        with pytest.raises(StoreConflictError, match="whose test it keeps, was removed"):
            coming.publish(datasets, frozen=old[0].id)
        assert coming.id not in datasets.ids()

    def test_a_chunk_without_a_version_waits_a_day(self, datasets, old):
        datasets.store.put_if_absent(datasets.chunk_key("ff00"), b"of a publish in flight")
        assert Pruning(datasets).prune(NOTHING, {}).chunks == ()
        assert self.prune(datasets).chunks[-1].endswith("/ff00.parquet")

    def test_what_is_being_published_stays(self, datasets, old, tmp_path):
        coming = Version(tmp_path / "files", [1, 2, 9])
        with datasets._announced(old[0].manifest), datasets._announced(coming.manifest):
            now = datetime.now(UTC) + timedelta(hours=20)
            found = Pruning(datasets, now=now, grace=timedelta(0)).prune(NOTHING, {}, dry_run=False)
        assert found.versions == (old[1].id,)
        assert [v.reasons for v in found.verdicts if v.id == old[0].id] == [
            ("provisioned again in this moment",)
        ]
        assert complete(datasets) == {old[0].id, old[2].id}

    def test_an_unreadable_manifest_stops_it(self, datasets, old):
        path = datasets.store.path(datasets.manifest_key(old[2].id))
        path.write_bytes(path.read_bytes().replace(b'"app"', b'"apq"'))
        before = datasets.store.list()
        with pytest.raises(StoreError, match="was changed"):
            self.prune(datasets)
        assert datasets.store.list() == before

    def test_by_name_only_what_no_reference_holds(self, datasets, old):
        with pytest.raises(StoreError, match="the reference 'latest' points to it"):
            Pruning(datasets).remove([old[0].id, old[2].id])
        with pytest.raises(StoreError, match="no dataset version 00"):
            Pruning(datasets).remove(["00"])
        assert Pruning(datasets).remove([old[0].id]).versions == (old[0].id,)
        assert complete(datasets) == {old[1].id, old[2].id}

    def test_a_window_that_monitoring_has_not_read_holds_its_versions(self, datasets):
        now = datetime(2026, 5, 1, tzinfo=UTC)

        def batch(window: str, when: str, dataset: str) -> None:
            meta = {
                "window_id": window,
                "window": ["2026-03-01T00:00:00+00:00", when],
                "rows": 1,
                "application": "app",
                "predicted_at": when,
                "dataset_id": dataset,
                "model": "m",
                "model_version": "1",
                "reference_dataset_id": "ref",
                "run_id": "r",
            }
            datasets.store.put_json_if_absent(f"app/predictions/{window}/meta.json", meta)

        batch("w1", "2026-04-30T00:00:00+00:00", "profiled")
        datasets.store.put_json_if_absent("app/monitoring/windows/w1/inputs.json", {})
        batch("w2", "2026-04-30T00:00:00+00:00", "waiting")
        batch("w3", "2026-03-01T00:00:00+00:00", "forgotten")
        found = open_windows(datasets, now)
        assert found == {
            name: ["window w2, whose inputs are not profiled yet"] for name in ("waiting", "ref")
        }
