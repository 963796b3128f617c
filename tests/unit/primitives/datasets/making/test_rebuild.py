"""A version made again from its manifest."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.exceptions import SourceError
from airflow_mlops.primitives.datasets.making.make import DatasetRequest, make_dataset
from airflow_mlops.primitives.datasets.making.rebuild import (
    PinnedJoin,
    rebuild,
    request_of,
    rule_of,
    why_not_pinned,
)
from airflow_mlops.primitives.datasets.manifest import Column, Manifest
from airflow_mlops.primitives.datasets.point_in_time import SEMANTICS
from airflow_mlops.primitives.datasets.splits.rule import parse_split
from airflow_mlops.primitives.sources.base import LocalSources, pin_files
from airflow_mlops.primitives.sources.pinned import PinnedSources, find_pinned, same_content

START = datetime(2024, 1, 1, tzinfo=UTC)
VIEW = {
    "name": "weather",
    "keys": {"city": "town"},
    "timestamp": "at",
    "created": "made",
    "ttl_seconds": 7200.0,
    "features": {"temp": "temp"},
}


def write(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def times(*hours):
    return pa.array([START + timedelta(hours=hour) for hour in hours], pa.timestamp("us", "UTC"))


@pytest.fixture
def sources(tmp_path):
    """Two files of examples and two of a view."""
    here = tmp_path / "here"
    write(here / "ex" / "1.parquet", id=[1, 2], at=times(1, 2), city=["A", "B"], late=[True, False])
    write(here / "ex" / "2.parquet", id=[3, 4], at=times(3, 4), city=["A", "B"], late=[True, True])
    for number, offset in ((1, 0.0), (2, 0.5)):
        hours = (0, 0, 2, 2)
        write(
            here / "weather" / f"{number}.parquet",
            town=["A", "B", "A", "B"],
            at=times(*hours),
            made=times(*(hour + offset for hour in hours)),
            temp=[hour + offset for hour in hours],
        )
    return here


@pytest.fixture
def manifest(sources, tmp_path):
    """A version of those files, with features."""

    class Join:
        def entity_columns(self, feature_service):
            return ("city",)

        def training_set(self, feature_service, entity_sql, destination):
            pins = [
                {"of": "view:weather", "pattern": "weather", **pin}
                for pin in pin_files(LocalSources().find("weather", sources))
            ]
            # The manifest below is all that the join of a rebuild needs, so it serves here, too.
            given = Manifest(
                "app",
                "training",
                (Column("temp", "double", "feature", "weather:temp"),),
                (),
                ("2024", "2025"),
                features={"service": "v1", "semantics": SEMANTICS, "views": [VIEW]},
                sources=tuple(pins),
            )
            (tmp_path / "join").mkdir(exist_ok=True)
            return PinnedJoin(given, pinned(given, sources), tmp_path / "join").training_set(
                feature_service, entity_sql, destination
            )

    request = DatasetRequest.parse(
        application="app",
        purpose="training",
        examples={
            "sql": "SELECT * FROM read_parquet('ex/*.parquet')",
            "keys": ["id"],
            "timestamp": "at",
            "targets": ["late"],
            "folder": str(sources),
        },
        features="v1",
        window=None,
        window_start=None,
        window_end=None,
        split={"by": "time", "train": 0.5, "test": 0.5},
        assumptions=[{"min_rows": 2}],
    )
    (tmp_path / "scratch").mkdir()
    return make_dataset(request, Join(), tmp_path / "scratch", lambda _: False).manifest


def pinned(manifest, *folders):
    def candidates(of, _pattern):
        return below(*(folder / ("ex" if of == "examples" else "weather") for folder in folders))

    found = find_pinned(manifest.sources, candidates, LocalSources(), below(*folders))
    return PinnedSources(found, (), LocalSources())


def below(*folders):
    return [str(file) for folder in folders for file in sorted(folder.rglob("*.*"))]


def again(manifest, tmp_path, *folders):
    scratch = tmp_path / "again"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    found = pinned(manifest, *folders)
    join = PinnedJoin(manifest, found, scratch)
    return rebuild(manifest, request_of(manifest, None), join, found, scratch)


def test_the_manifest_is_enough(manifest, sources, tmp_path):
    write(sources / "ex" / "0.parquet", id=[9], at=times(1), city=["A"], late=[True])
    rebuilt, files = again(manifest, tmp_path, sources)
    assert rebuilt.id == manifest.id
    rows = [row for chunk in rebuilt.chunks for row in pq.read_table(files[chunk.digest]).to_pylist()]
    assert [(row["id"], row["temp"]) for row in rows] == [(1, 0.5), (2, 2.0), (3, 2.5), (4, 2.5)]


def test_files_are_known_by_content_wherever_they_are(manifest, sources, tmp_path):
    moved = tmp_path / "elsewhere" / "deep"
    shutil.copytree(sources, moved)
    shutil.rmtree(sources)
    assert again(manifest, tmp_path, tmp_path / "elsewhere")[0].id == manifest.id


def test_what_changed_is_read_as_it_is_now_and_pinned_so(manifest, sources, tmp_path):
    write(sources / "ex" / "2.parquet", id=[3, 4], at=times(3, 4), city=["A", "A"], late=[True, True])
    rebuilt, _ = again(manifest, tmp_path, sources)
    assert rebuilt.id != manifest.id
    assert rebuilt.chunks[0] == manifest.chunks[0]
    assert rebuilt.chunks[1] != manifest.chunks[1]
    assert [new == old for new, old in zip(rebuilt.sources, manifest.sources, strict=True)] == [
        True,
        False,
        True,
        True,
    ]


def test_states_of_pinned_files(manifest, sources, tmp_path):
    write(sources / "ex" / "1.parquet", id=[0], at=times(1), city=["A"], late=[True])
    (sources / "weather" / "2.parquet").unlink()
    (sources / "ex" / "2.parquet").rename(sources / "ex" / "two.parquet")
    found = pinned(manifest, sources).found
    assert [(file.of, file.pin["file"], file.state) for file in found] == [
        ("examples", "1.parquet", "changed"),
        ("examples", "2.parquet", "gone"),
        ("view:weather", "1.parquet", "same"),
        ("view:weather", "2.parquet", "gone"),
    ]


def test_an_earlier_content_that_somebody_kept_counts(manifest, sources, tmp_path):
    kept = shutil.copy(sources / "ex" / "1.parquet", tmp_path / "kept.parquet")
    write(sources / "ex" / "1.parquet", id=[0], at=times(1), city=["A"], late=[True])

    def candidates(of, _pattern):
        return [str(file) for file in sorted((sources / ("ex" if of == "examples" else "weather")).iterdir())]

    def recover(place, pin):
        return str(kept) if place.endswith("ex/1.parquet") else None

    found = find_pinned(manifest.sources, candidates, LocalSources(), (), recover)
    assert [file.state for file in found] == ["same"] * 4
    assert found[0].place == str(kept)


def test_nothing_left_of_a_pattern_is_said(manifest, sources):
    shutil.rmtree(sources / "weather")
    with pytest.raises(SourceError, match=r"feature view weather: all 2 pinned file\(s\) are gone.*--folder"):
        pinned(manifest, sources).of_view("weather", ())
    with pytest.raises(SourceError, match=r"other: it is not among the pinned sources"):
        pinned(manifest, sources).find("other")


def test_older_versions_pinned_the_files_of_all_views_together(manifest, sources, tmp_path):
    old = [
        {key: value for key, value in pin.items() if key != "pattern"}
        | {"of": pin["of"].replace("view:weather", "features")}
        for pin in manifest.sources
    ]
    older = replace(manifest, sources=tuple(old))
    rebuilt, _ = again(older, tmp_path, sources)
    assert rebuilt.chunks == older.chunks


@pytest.mark.parametrize(
    ("pin", "same"),
    [
        ({"sha256": "right"}, "content"),
        ({"sha256": "wrong"}, None),
        ({"sha256": "wrong", "footer_sha256": "right"}, None),
        ({"footer_sha256": "right"}, "footer"),
        ({"footer_sha256": "wrong"}, None),
        ({"etag": "right"}, "content"),
        ({"etag": "wrong", "footer_sha256": "right"}, None),
        ({"etag": "ab-2", "footer_sha256": "right"}, "footer"),
        ({"etag": "ab-2", "footer_sha256": "wrong"}, None),
        ({"etag": "ab-2"}, None),
        ({"sha256": "right", "bytes": 1}, None),
    ],
)
def test_contents_are_compared_by_what_the_pin_can_tell(sources, pin, same):
    path = sources / "ex" / "1.parquet"
    data = path.read_bytes()
    footer = int.from_bytes(data[-8:-4], "little")
    right = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "etag": hashlib.md5(data).hexdigest(),
        "footer_sha256": hashlib.sha256(data[-8 - footer : -8]).hexdigest(),
    }
    given = {key: right[key] if value == "right" else value for key, value in pin.items()}
    assert same_content({"bytes": len(data), **given}, str(path), LocalSources()) == same


def test_what_only_feast_can_join_is_said(manifest):
    assert why_not_pinned(manifest) is None
    assert why_not_pinned(replace(manifest, features=None)) is None
    spark = replace(manifest, features={**manifest.features, "semantics": "feast:spark"})
    assert "by the rules 'feast:spark'" in why_not_pinned(spark)
    computed = replace(
        manifest, columns=(*manifest.columns, Column("ratio", "double", "feature", "demand:ratio"))
    )
    assert "ratio are computed by on-demand views" in why_not_pinned(computed)


@pytest.mark.parametrize(
    "rule",
    [
        {"by": "time", "train": 0.7, "validation": 0.15, "test": 0.15, "gap": "36h"},
        {"by": "hash", "key": "city", "train": 0.7, "test": 0.3, "seed": 5, "folds": 4},
        {"by": "group", "key": ["city", "id"], "train": 0.7, "test": 0.3},
        {"by": "hash", "key": "id", "train": 0.7, "test": 0.3, "stratify": "late"},
        {"by": "column", "column": "part", "values": {"train": "a", "test": "b"}},
    ],
)
def test_a_split_rule_is_read_back_as_it_was(rule):
    parsed = parse_split(rule)
    assert rule_of({**parsed.to_json(), "bounds": {}, "dropped": 3}) == parsed


def test_one_split_of_all_has_no_rule():
    assert rule_of({"by": None, "bounds": {"train": [None, None]}}) is None


def test_an_end_that_was_found_is_found_again(manifest):
    end = manifest.window[1]
    assert request_of(replace(manifest, as_of=end), None).end is not None
    assert request_of(replace(manifest, as_of="2024-01-09T00:00:00+00:00"), None).end is None
    assert request_of(replace(manifest, as_of=None, purpose="prediction"), None).end is not None
