"""Publishing features into a real store: all or nothing, each row once, and the past stays what it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from airflow_mlops.hooks.store.open import open_store
from tests.fixtures.deadlines import DEADLINE
from tests.fixtures.features import Pipeline, observed

WEATHER = "('a', timestamptz '2026-01-01 00:00:00+00', 1.5::DOUBLE), ('b', timestamptz '2026-01-01 06:00:00+00', 2.5)"


def row(station: str, seen: str, temp: float | str = 1.5) -> str:
    return f"('{station}', timestamptz '{seen}:00+00', {temp}::DOUBLE)"


def known(station: str, seen: str, temp: float, created: str) -> str:
    return f"('{station}', timestamptz '{seen}:00+00', {temp}::DOUBLE, timestamptz '{created}:00+00')"


KNOWN = "station, seen, temp, known"


@pytest.fixture
def weather(tmp_path) -> Pipeline:
    """Features whose source is a folder of files."""
    return Pipeline(
        str(tmp_path / "store"),
        {"files": str(tmp_path / "in" / "*.parquet"), "watermark": "seen", "late": "2d"},
    )


@pytest.fixture
def source(tmp_path) -> Path:
    return tmp_path / "in"


class TestPublish:
    def test_what_was_extracted_is_what_a_reader_sees(self, weather, source):
        observed(source / "1.parquet", WEATHER)
        done = weather.run()
        assert done["partitions"] == ["2026-01-01"]
        assert (done["rows"], done["new_rows"], done["files"]) == (2, 2, 1)
        assert done["watermark"]["value"] == "2026-01-01T06:00:00+00:00"
        assert weather.rows("station, epoch(seen)::BIGINT, temp") == [
            ("a", 1767225600, 1.5),
            ("b", 1767247200, 2.5),
        ]

    def test_only_new_rows_are_added_and_no_file_is_touched(self, weather, source):
        observed(source / "1.parquet", WEATHER)
        weather.run()
        keys = weather.table.store.list("features/weather/data/")
        before = {key: weather.table.store.read(key) for key in keys}
        observed(source / "2.parquet", row("a", "2026-01-02 00:00"))
        done = weather.run()
        assert (done["rows"], done["new_rows"], done["partitions"]) == (3, 1, ["2026-01-02"])
        assert {key: weather.table.store.read(key) for key in keys} == before

    def test_a_late_row_is_found_and_added_to_its_day(self, weather, source):
        observed(source / "1.parquet", row("a", "2026-01-03 00:00"))
        weather.run()
        observed(source / "2.parquet", row("a", "2026-01-02 00:00"))
        done = weather.run()
        assert (done["new_rows"], done["partitions"]) == (1, ["2026-01-02"])
        assert done["watermark"]["value"] == "2026-01-03T00:00:00+00:00"

    def test_the_same_rows_again_publish_nothing_and_give_the_same_snapshot(self, weather, source):
        observed(source / "1.parquet", WEATHER)
        first = weather.run()
        again = weather.run()
        assert (again["new_rows"], again["files"], again["rows"]) == (0, 0, 2)
        assert again["snapshot"] == first["snapshot"]

    def test_a_retry_after_success_reports_the_same_and_adds_nothing(self, weather, source):
        """The worker died between the publication and its end."""
        observed(source / "1.parquet", WEATHER)
        staged = weather.extract()
        assert weather.publish(staged) == weather.publish(staged)
        assert len(weather.rows()) == 2

    def test_a_row_that_comes_twice_in_one_batch_is_published_once(self, weather, source):
        observed(source / "1.parquet", f"{WEATHER}, {WEATHER}")
        assert weather.run()["rows"] == 2

    def test_the_same_rows_in_another_order_are_the_same_files(self, tmp_path):
        names = []
        for number, rows in enumerate((["a", "b", "c"], ["c", "a", "b"])):
            folder = tmp_path / str(number)
            pipeline = Pipeline(str(folder / "store"), {"files": str(folder / "in.parquet")})
            observed(folder / "in.parquet", ", ".join(row(name, "2026-01-01 00:00") for name in rows))
            pipeline.run()
            keys = pipeline.table.store.list("features/weather/data/")
            names.append({key: pipeline.table.store.read(key) for key in keys})
        assert names[0] == names[1]

    def test_staged_files_are_gone_afterwards(self, weather, source):
        observed(source / "1.parquet", WEATHER)
        weather.run()
        assert weather.table.store.list("features/weather/staging/") == []

    def test_an_asset_event_says_what_is_new(self, weather, source):
        from types import SimpleNamespace

        from airflow.sdk import Asset

        observed(source / "1.parquet", WEATHER)
        asset, events = Asset("features"), {Asset("features"): SimpleNamespace(extra=None)}
        done = weather.publish(weather.extract(), events=events, outlets=[asset])
        assert events[asset].extra == done

    def test_files_are_cut_at_the_day_in_utc_and_sorted_by_time(self, weather, source):
        rows = [row("a", "2026-01-02 00:30"), row("a", "2026-01-01 23:30"), row("b", "2026-01-02 00:10")]
        observed(source / "1.parquet", ", ".join(rows))
        assert weather.run()["partitions"] == ["2026-01-01", "2026-01-02"]
        (key,) = [key for key in weather.table.store.list("features/weather/data/") if "01-02" in key]
        found = duckdb.sql(f"SELECT station FROM '{weather.table.store.address(key)}'").fetchall()
        assert found == [("b",), ("a",)]

    def test_many_rows_in_seconds(self, tmp_path):
        path = tmp_path / "in.parquet"
        duckdb.sql(
            "COPY (SELECT i % 1000 AS station, timestamptz '2026-01-01 00:00:00+00' + to_seconds(i * 5) AS seen, "
            + ", ".join(f"random() AS f{n}" for n in range(8))
            + f" FROM range(1000000) t(i)) TO '{path}' (FORMAT parquet)"
        )
        pipeline = Pipeline(str(tmp_path / "store"), {"files": str(path), "watermark": "seen"})
        begin = time.process_time()
        done = pipeline.run()
        assert (done["rows"], len(done["partitions"])) == (1_000_000, 58)
        assert time.process_time() - begin < 200
        assert pipeline.run(start="2026-01-01")["new_rows"] == 0


class TestCorrections:
    def test_without_created_a_correction_is_refused_and_the_past_stays(self, weather, source):
        observed(source / "1.parquet", WEATHER)
        weather.run()
        observed(source / "1.parquet", WEATHER.replace("2.5", "9.5"))
        with pytest.raises(AirflowFailException, match=r"station=b.*created: updated_at.*published_at"):
            weather.run()
        assert [temp for (temp,) in weather.rows("temp")] == [1.5, 2.5]

    def test_a_later_created_adds_a_version_beside_the_first(self, tmp_path, source):
        pipeline = Pipeline(str(tmp_path / "store"), {"files": str(source / "*.parquet")}, created="known")
        first = known("a", "2026-01-01 00:00", 1.0, "2026-01-01 01:00")
        observed(source / "1.parquet", first, KNOWN)
        pipeline.run()
        observed(
            source / "2.parquet",
            first + ", " + known("a", "2026-01-01 00:00", 2.0, "2026-01-05 00:00"),
            KNOWN,
        )
        assert pipeline.run()["new_rows"] == 1
        assert pipeline.rows("temp, day(known)") == [(1.0, 1), (2.0, 5)]

    def test_two_values_of_one_time_of_creation_are_refused(self, tmp_path, source):
        pipeline = Pipeline(str(tmp_path / "store"), {"files": str(source / "*.parquet")}, created="known")
        observed(source / "1.parquet", known("a", "2026-01-01 00:00", 1.0, "2026-01-01 01:00"), KNOWN)
        pipeline.run()
        observed(source / "1.parquet", known("a", "2026-01-01 00:00", 2.0, "2026-01-01 01:00"), KNOWN)
        with pytest.raises(AirflowFailException, match="let the source set known anew at each change"):
            pipeline.run()

    def test_two_values_in_one_batch_are_refused_by_name(self, weather, source):
        observed(
            source / "1.parquet", f"{row('a', '2026-01-01 00:00', 1)}, {row('a', '2026-01-01 00:00', 2)}"
        )
        with pytest.raises(
            AirflowFailException, match=r"same station, seen come with different values.*station=a"
        ):
            weather.run()

    def test_the_publication_says_when_a_correction_came_to_be_known(self, tmp_path, source):
        """First values count as known at their own time, so that history can be trained on; corrections do not."""
        pipeline = Pipeline(
            str(tmp_path / "store"), {"files": str(source / "*.parquet")}, created="published_at"
        )
        for temp in (1.0, 2.0, 1.0, 1.0):  # corrected, corrected back, and read once more
            observed(source / "1.parquet", row("a", "2026-01-01 00:00", temp))
            pipeline.run()
        found = pipeline.rows("published_at, temp, published_at = seen")
        assert [(temp, first) for _, temp, first in found] == [(1.0, True), (2.0, False), (1.0, False)]

    def test_a_created_that_the_rows_lack_is_named_with_the_cure(self, tmp_path, source):
        pipeline = Pipeline(str(tmp_path / "store"), {"files": str(source / "*.parquet")}, created="knwon")
        observed(source / "1.parquet", WEATHER)
        with pytest.raises(AirflowFailException, match=r"lack the column.*knwon.*created: published_at"):
            pipeline.run()


class TestRefused:
    @pytest.mark.parametrize(
        ("rows", "columns", "message"),
        [
            (
                "(NULL, timestamptz '2026-01-01 00:00:00+00', 1.0)",
                "station, seen, temp",
                "1 of 1 rows have no .*station",
            ),
            ("('a', NULL::TIMESTAMPTZ, 1.0)", "station, seen, temp", "have no .*seen"),
            ("('a', 'infinity'::TIMESTAMPTZ, 1.0)", "station, seen, temp", "have no .*seen"),
            (
                "('a', '2026-01-01T00:00:00Z', 1.0), ('b', '2026-01-01 00:00:00', 1.0)",
                "station, seen, temp",
                "'seen' is VARCHAR.*1 values with a time zone and 1 without",
            ),
            (
                "('a', timestamptz '2026-01-01 00:00:00+00', 1.0)",
                "station, time, temp",
                "lack the column.*seen",
            ),
            (
                "('a', timestamptz '2026-01-01 00:00:00+00', {'x': 1})",
                "station, seen, temp",
                "'temp' is STRUCT.*no feature",
            ),
            (
                "('a', timestamptz '2026-01-01 00:00:00+00', 1)",
                "station, seen, event_day",
                "event_day is taken",
            ),
        ],
    )
    def test_rows_that_no_table_can_hold(self, tmp_path, source, rows, columns, message):
        pipeline = Pipeline(str(tmp_path / "store"), {"files": str(source / "*.parquet")})
        observed(source / "1.parquet", rows, columns)
        with pytest.raises(AirflowFailException, match=f"(?s){message}.*Cure"):
            pipeline.run()
        assert pipeline.table.snapshot() is None

    def test_a_time_without_zone_is_utc(self, weather, source):
        observed(source / "1.parquet", "('a', timestamp '2026-01-01 00:00:00', 1.0)")
        weather.run()
        assert weather.rows("epoch(seen)::BIGINT") == [(1767225600,)]

    def test_keys_that_changed_are_refused(self, weather, source):
        observed(source / "1.parquet", WEATHER)
        weather.run()
        weather.publishing["keys"] = ["station", "temp"]
        with pytest.raises(AirflowFailException, match=r"have keys \['station'\] since.*under another name"):
            weather.run()


class TestSchema:
    def test_a_new_column_is_added_and_old_rows_do_not_come_again(self, weather, source):
        observed(source / "1.parquet", WEATHER)
        weather.run()
        staged = weather.extract()
        made = weather.transform(staged, "SELECT *, 7 AS wind FROM extracted")
        assert weather.publish(made)["new_rows"] == 0
        observed(source / "2.parquet", row("a", "2026-01-01 12:00", 3.5))
        made = weather.transform(weather.extract(), "SELECT *, 7 AS wind FROM extracted")
        assert weather.publish(made)["new_rows"] == 1
        made = weather.transform(weather.extract(), "SELECT *, 7 AS wind FROM extracted")
        assert weather.publish(made)["new_rows"] == 0
        assert weather.rows("temp, wind") == [(1.5, None), (2.5, None), (3.5, 7)]

    def test_whole_numbers_go_into_a_column_of_floats(self, weather, source):
        observed(source / "1.parquet", WEATHER)
        weather.run()
        observed(source / "1.parquet", "('a', timestamptz '2026-01-02 00:00:00+00', 3)")
        weather.run()
        assert [temp for (temp,) in weather.rows("temp")] == [1.5, 2.5, 3.0]

    def test_floats_do_not_go_into_a_column_of_whole_numbers(self, weather, source):
        observed(source / "1.parquet", "('a', timestamptz '2026-01-01 00:00:00+00', 3)")
        weather.run()
        observed(source / "1.parquet", row("a", "2026-01-02 00:00", 3.5))
        with pytest.raises(
            AirflowFailException, match=r"'temp' is float64 and is published as int32.*3\.5.*Cure"
        ):
            weather.run()

    def test_another_type_is_refused_with_an_example(self, weather, source):
        observed(source / "1.parquet", WEATHER)
        weather.run()
        observed(source / "1.parquet", "('a', timestamptz '2026-01-02 00:00:00+00', 'warm')")
        with pytest.raises(
            AirflowFailException, match=r"'temp' is string and is published as float64.*'warm'"
        ):
            weather.run()

    def test_a_column_that_was_renamed_upstream_is_guessed(self, weather, source):
        observed(source / "1.parquet", WEATHER)
        weather.run()
        observed(source / "1.parquet", row("a", "2026-01-02 00:00"), "station, seen, temperature")
        with pytest.raises(AirflowFailException, match=r'temp; they have.*"temperature" AS temp'):
            weather.run()


class TestAssumptions:
    def test_a_broken_one_publishes_nothing_and_leaves_a_report(self, weather, source):
        observed(source / "1.parquet", WEATHER)
        rules = [{"column": "temp", "between": [0, 2]}, {"min_rows": 1}]
        with pytest.raises(AirflowFailException, match=r"(?s)AssumptionError.*temp.*Full report: ") as caught:
            weather.publish(weather.extract(), assumptions=rules)
        place = str(caught.value).split("Full report: ")[1].split(". Cure")[0]
        found = json.loads(Path(place).read_text())
        assert (found["passed"], found["checked"], found["failed"]) == (False, 2, 1)
        assert weather.table.snapshot() is None

    def test_the_next_run_after_a_failure_reads_the_same_again(self, weather, source):
        observed(source / "1.parquet", WEATHER)
        with pytest.raises(AirflowFailException):
            weather.publish(weather.extract(), assumptions=[{"min_rows": 3}])
        assert weather.run()["new_rows"] == 2

    def test_a_warning_publishes(self, weather, source):
        observed(source / "1.parquet", WEATHER)
        rules = [{"column": "temp", "between": [0, 2], "severity": "warn"}]
        assert weather.publish(weather.extract(), assumptions=rules)["new_rows"] == 2
        (key,) = weather.table.store.list("features/weather/assumptions/")
        assert weather.table.store.read_json(key)["warned"] == 1


class TestWatermark:
    def test_a_row_of_the_future_waits_and_does_not_move_it(self, weather, source):
        observed(source / "1.parquet", f"{WEATHER}, {row('a', '2999-01-01 00:00')}")
        done = weather.run()
        assert (done["rows"], done["watermark"]["value"][:10]) == (2, "2026-01-01")

    def test_rows_of_the_watermarks_own_moment_are_found(self, weather, source):
        weather.source["late"] = None
        observed(source / "1.parquet", WEATHER)
        weather.run()
        observed(source / "2.parquet", row("c", "2026-01-01 06:00"))
        assert weather.run()["new_rows"] == 1

    def test_a_backfill_leaves_no_gap_behind_it(self, weather, source):
        rows = [row("a", f"2026-01-{day:02d} 00:00") for day in (1, 5, 9)]
        observed(source / "1.parquet", rows[0])
        weather.run()
        observed(source / "1.parquet", ", ".join(rows))
        done = weather.run(start="2026-01-09", end="2026-01-10")
        assert (done["new_rows"], done["watermark"]["value"][:10]) == (1, "2026-01-01")
        assert weather.run()["new_rows"] == 1
        assert len(weather.rows()) == 3

    def test_a_backfill_of_the_past_does_not_move_it_back(self, weather, source):
        observed(source / "1.parquet", ", ".join(row("a", f"2026-01-{day:02d} 00:00") for day in (1, 9)))
        weather.run()
        done = weather.run(start="2026-01-01", end="2026-01-02")
        assert done["watermark"]["value"][:10] == "2026-01-09"

    def test_nothing_new_is_no_failure(self, weather, source):
        observed(source / "1.parquet", WEATHER)
        weather.run()
        with pytest.raises(AirflowSkipException, match="has no row where seen lies from"):
            weather.extract(start="2026-02-01")
        with pytest.raises(AirflowFailException, match="has no row"):
            weather.extract(start="2026-02-01", when_empty="fail")

    def test_a_clock_that_went_back_reads_nothing_and_says_so(self, weather, source, monkeypatch):
        from datetime import UTC, datetime

        import airflow_mlops.operators.features.extract as module

        observed(source / "1.parquet", WEATHER)
        weather.run()

        class Past(datetime):
            @classmethod
            def now(cls, tz=None):
                return datetime(2025, 1, 1, tzinfo=UTC)

        monkeypatch.setattr(module, "datetime", Past)
        with pytest.raises(AirflowSkipException, match=r"clock \(2025-01-01.* is behind the watermark"):
            weather.run()

    def test_a_retry_extracts_the_window_of_the_first_try(self, weather, source, monkeypatch):
        from airflow_mlops.hooks.sources.extraction import Source

        observed(source / "1.parquet", row("a", "2026-01-01 00:00"))
        real = Source.read
        windows = []

        def dies(self, window, scratch):
            windows.append(window)
            if len(windows) == 1:
                raise KeyboardInterrupt
            return real(self, window, scratch)

        monkeypatch.setattr(Source, "read", dies)
        with pytest.raises(KeyboardInterrupt):
            weather.extract("r")
        weather.extract("r")
        assert windows[0] == windows[1]


class TestConcurrent:
    def test_two_runs_of_one_window_publish_each_row_once(self, weather, source):
        observed(source / "1.parquet", WEATHER)
        staged = [weather.extract(f"r{n}") for n in range(4)]
        with ThreadPoolExecutor(4) as pool:
            done = list(pool.map(weather.publish, staged))
        assert sum(one["new_rows"] for one in done) == 2
        assert len(weather.rows()) == 2
        self.check_files(weather)

    def test_runs_of_overlapping_windows_lose_nothing(self, tmp_path):
        """Six publishers of ten days each, a day apart: fifteen days in all."""
        store, staged = str(tmp_path / "store"), []
        for first in range(6):
            folder = tmp_path / str(first)
            rows = ", ".join(
                row("a", f"2026-01-{day:02d} 00:00", day) for day in range(first + 1, first + 11)
            )
            observed(folder / "in.parquet", rows)
            pipeline = Pipeline(store, {"files": str(folder / "in.parquet")}, partition="month")
            staged.append((pipeline, pipeline.extract(f"r{first}")))
        with ThreadPoolExecutor(6) as pool:
            done = list(pool.map(lambda one: one[0].publish(one[1]), staged))
        assert sum(one["new_rows"] for one in done) == 15
        assert pipeline.rows("day(seen)") == [(day,) for day in range(1, 16)]
        self.check_files(pipeline)

    @staticmethod
    def check_files(pipeline):
        """Those who read the folder see what those see who read the snapshot."""
        there = {key.split("/data/")[1] for key in pipeline.table.store.list("features/weather/data/")}
        assert there == {part.file for part in pipeline.table.snapshot().parts}


class TestSigkill:
    @pytest.mark.parametrize("place", ["files", "s3"])
    def test_a_kill_at_any_step_leaves_the_old_or_the_new_and_a_retry_finishes(
        self, place, tmp_path, request
    ):
        source = tmp_path / "in"
        store = str(tmp_path) if place == "files" else f"s3://{request.getfixturevalue('s3_bucket')}"
        pipeline = Pipeline(f"{store}/base", {"files": str(source / "*.parquet"), "watermark": "seen"})
        observed(source / "1.parquet", WEATHER)
        pipeline.run()
        times = ("2026-01-01 12:00", "2026-01-02 00:00", "2026-01-03 00:00")
        observed(source / "2.parquet", ", ".join(row("c", seen) for seen in times))
        staged = json.dumps(pipeline.extract())
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        done = subprocess.run(
            [sys.executable, "-m", "tests.fixtures.publish_sweep", f"{store}/base", staged, f"{store}/work"],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "TMPDIR": str(scratch)},  # who is killed does not tidy up
            timeout=DEADLINE,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        steps = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        assert len(steps) > (20 if place == "files" else 12)
        assert [one["killed"] for one in steps] == [True] * (len(steps) - 1) + [False]
        assert [one["between"]["rows"] for one in steps] == sorted(one["between"]["rows"] for one in steps)
        assert {one["between"]["rows"] for one in steps} == {2, 5}
        # The rows and the watermark have moved together, and every retry came to the same end.
        assert len({json.dumps(one["between"]) for one in steps}) == 2
        assert {json.dumps(one["end"]) for one in steps} == {json.dumps(steps[-1]["end"])}


class TestOnS3:
    def test_publish_again_and_concurrently(self, s3_bucket, tmp_path):
        pipeline = Pipeline(
            f"s3://{s3_bucket}/mlops",
            {"files": str(tmp_path / "in" / "*.parquet"), "watermark": "seen", "late": "1d"},
        )
        observed(tmp_path / "in" / "1.parquet", WEATHER)
        assert pipeline.run()["new_rows"] == 2
        observed(tmp_path / "in" / "2.parquet", row("a", "2026-01-02 00:00"))
        staged = [pipeline.extract(f"c{n}") for n in range(3)]
        with ThreadPoolExecutor(3) as pool:
            done = list(pool.map(pipeline.publish, staged))
        assert sum(one["new_rows"] for one in done) == 1
        assert len(pipeline.rows(scratch=tmp_path / "scratch")) == 3
        assert open_store(pipeline.store).list("features/weather/staging/") == []

    def test_a_source_and_a_table_on_s3(self, s3_bucket, s3_server, tmp_path):
        client = s3_server.client()
        for name, rows in (("1", WEATHER), ("2", row("c", "2026-01-02 00:00"))):
            path = observed(tmp_path / f"{name}.parquet", rows)
            client.upload_file(str(path), s3_bucket, f"in/{name}.parquet")
        pipeline = Pipeline(
            str(tmp_path / "store"), {"files": f"s3://{s3_bucket}/in/*.parquet", "watermark": "seen"}
        )
        made = pipeline.transform(
            pipeline.extract(),
            "SELECT e.*, n.rows FROM extracted e, (SELECT count(*) AS rows FROM others) n",
            tables={"others": f"s3://{s3_bucket}/in/*.parquet"},
        )
        pipeline.publish(made)
        assert pipeline.rows("station, rows") == [("a", 3), ("b", 3), ("c", 3)]

    def test_a_bucket_that_refuses_is_named(self, s3_bucket, s3_server, tmp_path, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", s3_server.with_secret("wrong").connection_json)
        pipeline = Pipeline(str(tmp_path / "store"), {"files": f"s3://{s3_bucket}/in/*.parquet"})
        with pytest.raises(AirflowException, match=r"403.*") as caught:
            pipeline.extract()
        assert "wrong" not in str(caught.value)
