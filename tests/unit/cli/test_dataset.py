"""``airflow-mlops dataset`` over a store in a folder."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.cli import main
from airflow_mlops.hooks.store.open import open_store
from airflow_mlops.primitives.datasets.digest import logical_digest
from airflow_mlops.primitives.datasets.manifest import Chunk, Column, Manifest
from airflow_mlops.stores.datasets.versions import DatasetStore
from tests.unit.spec.samples import MINIMAL

START = datetime(2024, 1, 1, tzinfo=UTC)
COLUMNS = (
    Column("id", "int64", "key"),
    Column("at", "timestamp[us, tz=UTC]", "timestamp"),
    Column("temp", "double", "feature", "weather:temp"),
    Column("late", "bool", "target"),
)


def rows(first: int, last: int, shift: float = 0.0) -> pa.Table:
    numbers = range(first, last)
    return pa.table(
        {
            "id": pa.array(numbers, pa.int64()),
            "at": pa.array([START + timedelta(days=n) for n in numbers], pa.timestamp("us", "UTC")),
            "temp": [n + shift for n in numbers],
            "late": [n % 2 == 0 for n in numbers],
        }
    )


class World:
    """A store with versions, and the command line."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.store = folder / "store"
        self.datasets = DatasetStore(open_store(self.store), "app")
        self.capsys = capsys
        self.folder = folder

    def publish(self, ref: str = "latest", days: int = 0, **splits: pa.Table) -> str:
        files, chunks = {}, []
        for split, table in splits.items():
            digest = logical_digest(table)
            files[digest] = self.folder / f"{digest}.parquet"
            pq.write_table(table, files[digest])
            moments = [moment.isoformat() for moment in table.column("at").to_pylist()]
            chunks.append(Chunk(digest, split, table.num_rows, moments[0], moments[-1]))
        manifest = Manifest(
            application="app",
            purpose="training",
            columns=COLUMNS,
            chunks=tuple(chunks),
            window=("2023-12-31T00:00:00+00:00", chunks[-1].end),
            as_of=chunks[-1].end,
            split={"by": "time", "shares": {"train": 0.5, "test": 0.5}, "gap_seconds": 0.0, "bounds": {}},
            features={
                "service": "app_v1",
                "semantics": "asof-1",
                "views": [
                    {
                        "name": "weather",
                        "keys": {"city": "city"},
                        "ttl_seconds": 7200.0,
                        "features": {"temp": "temp"},
                    }
                ],
            },
            examples={
                "sql": "SELECT *\nFROM 'examples.parquet'",
                "keys": ["id"],
                "timestamp": "at",
                "tables": {"flights": {"delta": "lake/flights"}},
            },
            sources=(
                {
                    "of": "examples",
                    "pattern": "examples.parquet",
                    "file": "examples.parquet",
                    "bytes": 2_500_000,
                    "sha256": "ab" * 32,
                },
                {"of": "table:flights", "pattern": "lake/flights", "table_id": "x", "delta_version": 3},
            ),
            assumptions=(
                {
                    "rule": "min_rows",
                    "column": None,
                    "severity": "warn",
                    "expected": "rows ≥ 99",
                    "observed": "4 rows",
                    "passed": False,
                },
            ),
        )
        time = datetime.now(UTC) - timedelta(days=days)
        commit = {
            "time": time.isoformat(),
            "dag_id": "app__training",
            "run_id": "manual__1",
            "libraries": {"duckdb": "1.5.6"},
        }
        self.datasets.publish(manifest, files, commit, ref)
        return manifest.id

    def run(self, *words: str) -> tuple[int, str, str]:
        self.capsys.readouterr()
        code = main(["dataset", *words, "--store", str(self.store), "--application", "app"])
        return (code, *self.capsys.readouterr())

    def ask(self, *words: str) -> tuple[int, object]:
        code, out, _ = self.run(*words, "--json")
        return code, json.loads(out)


@pytest.fixture
def world(tmp_path, capsys):
    return World(tmp_path, capsys)


@pytest.fixture
def two(world):
    old = world.publish(train=rows(0, 4), test=rows(4, 8), days=1)
    new = world.publish(train=rows(0, 4), test=rows(4, 9, shift=10.0))
    return world, old, new


def test_versions_are_listed_newest_first(two):
    world, old, new = two
    code, out, _ = world.run("list")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["ID", "MADE", "(UTC)", "ROWS", "SPLITS", "WINDOW", "REFERENCE", "BY"]
    assert [line.split()[0] for line in lines[1:]] == [new[:12], old[:12]]
    assert "train 4, test 5" in lines[1]
    assert "latest" in lines[1]
    assert "app__training manual__1" in lines[1]
    assert "2023-12-31 … 2024-01-08" in lines[2]
    assert "… and 1 older" in world.run("list", "--limit", "1")[1]
    found = world.ask("list")[1]
    assert [version["id"] for version in found["versions"]] == [new, old]
    assert found["versions"][0]["splits"] == {"train": 4, "test": 5}


def test_an_application_without_versions_says_so(world):
    assert world.run("list")[:2] == (0, "app has no dataset version yet.\n")


@pytest.mark.parametrize("name", ["{id}", "{short}", "latest"])
def test_a_version_is_shown_by_id_beginning_or_reference(two, name):
    world, _, new = two
    code, out, _ = world.run("show", name.format(id=new, short=new[:6]))
    assert code == 0
    for words in (
        f"Dataset {new}",
        "9 (train 4, test 5)",
        "SELECT * FROM 'examples.parquet'",
        "app_v1 (join asof-1)",
        "temp  double                 feature    weather:temp",
        "weather  by city  valid 7200 s  1 features",
        "examples.parquet  2 MB  sha256 abababababababab",
        "delta version 3, table id x",
        "WARN  min_rows  expected rows ≥ 99, observed 4 rows",
        "app__training manual__1, line latest (duckdb 1.5.6)",
    ):
        assert words in out
    assert world.ask("show", new)[1]["manifest"]["columns"][0]["name"] == "id"


def test_a_name_that_means_nothing_or_too_much_is_an_error(two):
    world, _, _ = two
    code, out, err = world.run("show", "zzz")
    assert (code, out) == (1, "")
    assert "no dataset version of 'app' begins with 'zzz'" in err
    code, _, err = world.run("show", "")
    assert code == 1
    assert "2 dataset versions of 'app' begin with ''" in err


def test_a_difference_names_columns_rows_and_distributions(two):
    world, old, new = two
    code, out, _ = world.run("diff", old[:8], "latest")
    assert code == 0
    assert "1 of 2 and 2 chunks are shared" in out
    assert "+ 1 added\n      id=8, at=2024-01-09 00:00:00+00\n" in out
    assert "~ 4 changed (temp in 4)\n      id=4, at=2024-01-05 00:00:00+00: temp 4.0 → 14.0\n" in out
    assert "temp    0.0% → 0.0%" in out
    code, found = world.ask("diff", old, new)
    assert found["rows"]["changed"]["columns"] == {"temp": 4}
    assert {one["column"] for one in found["distributions"]} == {"temp", "late"}
    code, brief = world.ask("diff", old, new, "--brief")
    assert "rows" not in brief
    assert brief["splits"] == {"train": [4, 4], "test": [4, 5]}
    assert "They are the same version." in world.run("diff", new, "latest")[1]


def test_a_version_is_fetched_with_its_origin(two, tmp_path):
    world, old, _ = two
    code, out, _ = world.run("fetch", old[:10], str(tmp_path / "all"))
    assert code == 0
    assert "train/  4 rows in 1 file(s)" in out
    assert pq.read_table(tmp_path / "all" / "test" / "00000.parquet").equals(rows(4, 8))
    assert f"id: `{old}`" in (tmp_path / "all" / "README.md").read_text()
    assert Manifest.from_json((tmp_path / "all" / "manifest.json").read_text()).id == old
    code, found = world.ask("fetch", old, str(tmp_path / "one"), "--split", "test")
    assert found["rows"] == {"test": 4}
    assert not (tmp_path / "one" / "train").exists()
    code, _, err = world.run("fetch", old, str(tmp_path / "none"), "--split", "tset")
    assert code == 1
    assert "has no split 'tset'; it has train, test" in err


def test_a_flipped_byte_is_found_and_named(two):
    world, old, new = two
    assert world.run("verify")[0] == 0
    digest = world.datasets.manifest(new).chunks[1].digest
    path = Path(world.datasets.store.address(world.datasets.chunk_key(digest)))
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(data))
    code, out, _ = world.run("verify")
    assert code == 1
    assert f"OK       {old[:12]}: 8 rows in 2 chunk(s)" in out
    assert f"DAMAGED  {new[:12]}:" in out
    assert str(path) in out
    code, found = world.ask("verify", "latest")
    assert (code, list(found), found[new][0]["part"]) == (1, [new], digest)


def test_prune_says_what_it_would_do_before_it_does_it(world):
    old = world.publish(train=rows(0, 4), days=200)
    kept = world.publish(train=rows(0, 5), days=1)
    code, out, _ = world.run("prune", "--no-mlflow", "--keep-last", "1", "--keep-for", "30d")
    assert code == 0
    assert f"would go  {old[:12]}" in out
    assert "Would remove 1 of 2 version(s)" in out
    assert "Nothing was removed yet: say --yes." in out
    assert world.datasets.ids() == sorted([old, kept])
    code, found = world.ask("prune", "--no-mlflow", "--keep-last", "1", "--keep-for", "30d", "--yes")
    assert (code, found["dry_run"]) == (0, False)
    assert world.datasets.ids() == [kept]


def test_prune_needs_to_know_what_models_use(two):
    world, _, _ = two
    code, out, err = world.run("prune", "--yes", "--mlflow-conn", "nobody")
    assert (code, out) == (1, "")
    assert "nothing was removed, because nobody knows" in err
    assert "--no-mlflow" in err
    assert len(world.datasets.ids()) == 2


def test_a_rebuild_without_sources_says_what_is_gone(two):
    world, _, new = two
    code, out, _ = world.run("rebuild", new)
    assert code == 1
    assert "GONE     examples examples.parquet" in out
    assert "Not made again: examples examples.parquet: all pinned files are gone" in out
    code, _, err = world.run("rebuild", new, "--folder", "/nowhere/at/all")
    assert code == 1
    assert "/nowhere/at/all is no folder" in err


def test_the_yaml_says_whose_versions(two, tmp_path, capsys):
    world, _, new = two
    file = tmp_path / "app.yaml"
    file.write_text(MINIMAL + f"store: {world.store}\n")
    application = MINIMAL.split("application:")[1].split()[0]
    capsys.readouterr()
    assert main(["dataset", "list", "--file", str(file), "--application", "app", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["versions"][0]["id"] == new
    assert main(["dataset", "list", "--file", str(file)]) == 0
    assert capsys.readouterr().out == f"{application} has no dataset version yet.\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list"], "whose versions? Cure: say --file YAML"),
        (["list", "--file", "none.yaml"], "none.yaml does not exist"),
        (["prune", "--keep-for", "long", "--store", "/s", "--application", "a"], "no duration such as 90d"),
        ([], "usage: airflow-mlops dataset"),
    ],
)
def test_wrong_usage_is_2(words, message, capsys):
    assert main(["dataset", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_script_reads_json_and_nothing_else(two):
    world, old, _ = two
    words = ["dataset", "rebuild", old, "--json", "--store", str(world.store), "--application", "app"]
    done = subprocess.run(
        [sys.executable, "-m", "airflow_mlops.cli", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["dataset_id"] == old
