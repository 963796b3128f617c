"""From staged rows to those that are published: by SQL, and by a command of the model code."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_mlops.operators.features.transform import PrepareFeaturesOperator
from tests.fixtures.features import Pipeline, observed, task_context

ROWS = "('a', timestamptz '2026-01-01 00:00:00+00', 1.5::DOUBLE), ('b', timestamptz '2026-01-02 00:00:00+00', 2.5)"


@pytest.fixture
def pipeline(tmp_path) -> Pipeline:
    observed(tmp_path / "in.parquet", ROWS)
    return Pipeline(str(tmp_path / "store"), {"files": str(tmp_path / "in.parquet"), "watermark": "seen"})


class TestTransform:
    def test_the_watermark_is_handed_on_even_without_its_column(self, pipeline):
        extracted = pipeline.extract()
        made = pipeline.transform(
            extracted, "SELECT station, seen AS at_time, temp FROM extracted WHERE temp > 2"
        )
        assert (made["rows"], made["watermark"]) == (1, extracted["watermark"])
        done = pipeline.publish(made, timestamp="at_time")
        assert (done["new_rows"], done["watermark"]["column"]) == (1, "seen")

    def test_a_table_beside_is_joined(self, pipeline, tmp_path):
        (tmp_path / "names.csv").write_text("station,name\na,Airport\n")
        made = pipeline.transform(
            pipeline.extract(),
            "SELECT e.*, n.name FROM extracted e LEFT JOIN names n USING (station)",
            tables={"names": str(tmp_path / "names.csv")},
        )
        pipeline.publish(made)
        assert pipeline.rows("station, name") == [("a", "Airport"), ("b", None)]

    def test_a_retry_hands_on_what_is_staged(self, pipeline):
        extracted = pipeline.extract()
        assert pipeline.transform(extracted, "FROM extracted") == pipeline.transform(
            extracted, "FROM extracted"
        )

    @pytest.mark.parametrize(
        ("sql", "message"),
        [
            ("SELECT wind FROM extracted", r"(?s)wind.*extracted has station, seen, temp"),
            ("SELECT * FROM elsewhere", r"elsewhere.*extracted has station"),
            ("SELECT * FROM extracted; DROP TABLE x", "one SELECT"),
            ("SELEKT 1", "transform: sql: Parser Error"),
            ("SELECT station::INT FROM extracted", "transform: sql: Conversion Error.*'a'"),
        ],
    )
    def test_a_wrong_query_names_what_there_is(self, pipeline, sql, message):
        with pytest.raises(AirflowFailException, match=message):
            pipeline.transform(pipeline.extract(), sql)

    def test_the_name_extracted_is_taken(self, pipeline):
        with pytest.raises(AirflowFailException, match="'Extracted' is taken"):
            pipeline.transform(pipeline.extract(), "SELECT 1", tables={"Extracted": "x.csv"})

    def test_too_little_memory_and_disk_is_said(self, pipeline, tmp_path):
        sql = "SELECT string_agg(random()::VARCHAR || station) AS x FROM extracted, range(3000000)"
        with pytest.raises(AirflowFailException, match=r"more memory or disk is needed.*Cure"):
            pipeline.transform(pipeline.extract(), sql, memory="20MB")

    def test_what_was_published_and_cleaned_is_said(self, pipeline):
        extracted = pipeline.extract()
        pipeline.publish(extracted)
        with pytest.raises(AirflowFailException, match="Cure: clear the extract task"):
            pipeline.transform(extracted, "FROM extracted")


class TestPrepare:
    @staticmethod
    def prepare(pipeline: Pipeline, tmp_path: Path, script: str, extracted: dict) -> dict:
        (tmp_path / "jobs").mkdir(exist_ok=True)
        operator = PrepareFeaturesOperator(
            task_id="prepare",
            features="weather",
            store=pipeline.store,
            extracted=extracted,
            code={"entrypoint": ["sh", "-c", script], "directory": str(tmp_path)},
            runner={"kind": "process", "root": str(tmp_path / "jobs")},
            parameters={"days": 7},
            deferrable=False,
        )
        return operator.execute(task_context(task_id="prepare"))

    def test_what_the_command_writes_is_published(self, pipeline, tmp_path):
        extracted = pipeline.extract()
        script = (
            'grep -q \'"days": 7\' "$MLOPS_ROOT/input/config/mlops.json" && mkdir -p "$MLOPS_ROOT/output/data" && '
            'cp "$MLOPS_ROOT"/input/data/extracted/*.parquet "$MLOPS_ROOT/output/data/"'
        )
        made = self.prepare(pipeline, tmp_path, script, extracted)
        assert (made["rows"], made["watermark"]) == (2, extracted["watermark"])
        assert pipeline.publish(made)["new_rows"] == 2
        assert list((tmp_path / "jobs").iterdir()) == []

    def test_an_assumption_of_the_code_is_final(self, pipeline, tmp_path):
        script = 'echo "stations are far apart" > "$MLOPS_ROOT/output/failure"; exit 12'
        with pytest.raises(AirflowFailException, match=r"(?s)assumption.*stations are far apart"):
            self.prepare(pipeline, tmp_path, script, pipeline.extract())

    def test_a_command_that_writes_nothing_is_told(self, pipeline, tmp_path):
        with pytest.raises(AirflowFailException, match=r"wrote no output/data/\*\.parquet\. Cure"):
            self.prepare(pipeline, tmp_path, "exit 0", pipeline.extract())

    def test_a_file_that_is_no_parquet_is_told(self, pipeline, tmp_path):
        script = 'mkdir -p "$MLOPS_ROOT/output/data" && echo no > "$MLOPS_ROOT/output/data/a.parquet"'
        with pytest.raises(AirflowFailException, match="cannot be read as Parquet"):
            self.prepare(pipeline, tmp_path, script, pipeline.extract())

    def test_an_empty_table_without_types_is_no_news(self, pipeline, tmp_path):
        """As pandas writes one: ``DataFrame(columns=[...]).to_parquet``."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        before = pipeline.publish(pipeline.extract())
        pq.write_table(pa.table({"station": pa.nulls(0), "seen": pa.nulls(0)}), tmp_path / "none.parquet")
        script = (
            f'mkdir -p "$MLOPS_ROOT/output/data" && cp {tmp_path}/none.parquet "$MLOPS_ROOT/output/data/"'
        )
        after = pipeline.publish(self.prepare(pipeline, tmp_path, script, pipeline.extract()))
        assert (after["snapshot"], after["new_rows"]) == (before["snapshot"], 0)

    @pytest.mark.parametrize(
        ("second", "found"),
        [
            (
                "SELECT 's' AS station, TIMESTAMPTZ '2026-01-01 00:00:00+00' AS seen, 1.5::DOUBLE AS v",
                [1.0, 1.5],
            ),
            ("SELECT 's' AS station, now() AS seen, 'two' AS v", "1.parquet has column 'v' as VARCHAR"),
            ("SELECT 's' AS station, now() AS seen, 2 AS v, 3 AS more", "0.parquet has no column 'more'"),
            ("SELECT NULL AS station, NULL AS seen, NULL AS v LIMIT 0", [1.0]),
        ],
    )
    def test_files_that_differ_lose_nothing_in_silence(self, pipeline, tmp_path, second, found):
        (tmp_path / "made").mkdir()
        first = "SELECT 'n' AS station, TIMESTAMPTZ '2026-01-01 00:00:00+00' AS seen, 1::BIGINT AS v"
        for number, query in enumerate((first, second)):
            duckdb.sql(query).write_parquet(str(tmp_path / f"made/{number}.parquet"))
        script = f'mkdir -p "$MLOPS_ROOT/output/data" && cp {tmp_path}/made/* "$MLOPS_ROOT/output/data/"'
        if isinstance(found, str):
            with pytest.raises(AirflowFailException, match=found):
                self.prepare(pipeline, tmp_path, script, pipeline.extract())
        else:
            pipeline.publish(self.prepare(pipeline, tmp_path, script, pipeline.extract()))
            assert pipeline.rows("v") == [(value,) for value in found]


def test_nothing_is_left_behind_by_runs_that_were_given_up(pipeline, tmp_path):
    import json
    from datetime import UTC, datetime, timedelta

    pipeline.extract("given up")
    (window,) = (tmp_path / "store").glob("features/weather/staging/*/window.json")
    old = json.loads(window.read_text())
    window.write_text(json.dumps({**old, "started": (datetime.now(UTC) - timedelta(days=8)).isoformat()}))
    extracted = pipeline.extract("next")
    left = {key.split("/")[3] for key in pipeline.table.store.list("features/weather/staging/")}
    assert left == {extracted["staged"].split("/")[3]}
    assert duckdb.sql(f"FROM '{tmp_path}/store/features/weather/staging/*/*/*/*.parquet'").fetchall()
