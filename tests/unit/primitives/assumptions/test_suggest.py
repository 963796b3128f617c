"""Proposed rules: they hold, they are YAML, and they are the same again."""

from __future__ import annotations

import json

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from airflow_mlops.cli import main
from airflow_mlops.cli.application.assumptions import as_yaml
from airflow_mlops.hooks.store.open import open_store
from airflow_mlops.primitives.assumptions.rules import CheckContext
from airflow_mlops.primitives.assumptions.suggest import suggest_rules
from airflow_mlops.primitives.datasets.manifest import Chunk, Column, Manifest
from airflow_mlops.spec import load_application
from airflow_mlops.stores.datasets.versions import DatasetStore
from tests.unit.spec.samples import MINIMAL

SQL = """
SELECT i AS id, TIMESTAMPTZ '2024-01-01 00:00:00+00' + to_minutes(i) AS asked, 'N' || lpad(i::VARCHAR, 5, '0') AS tail,
  ['no', 'on', '1e3'][i % 3 + 1] AS word, CASE WHEN i % 10 > 0 THEN sin(i) * 100 END AS temp, (i % 977)::INTEGER AS dist,
  (i % 4)::SMALLINT AS legs, repeat('x', i % 9 + 1) || i AS note, i % 2 = 0 AS flag, (i * 1.5)::DECIMAL(9, 2) AS price,
  NULL::DOUBLE AS nothing, CASE i % 50 WHEN 0 THEN 'nan'::DOUBLE ELSE i % 31 + 0.5 END AS wind, (i % 5 = 0)::BIGINT AS late
FROM range(2000) t(i)
"""
ROLES = {"id": "key", "asked": "timestamp", "late": "target"}


@pytest.fixture
def store(tmp_path):
    """A store with one version, half of it for training."""
    files, chunks = {}, []
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'")
        for number, split in enumerate(("train", "test")):
            digest = f"{number}" * 64
            files[digest] = tmp_path / f"{split}.parquet"
            connection.execute(
                f"COPY ({SQL} WHERE i // 1000 = {number}) TO '{files[digest]}' (FORMAT parquet)"
            )
            chunks.append(Chunk(digest, split, 1000, "2024-01-01", "2024-01-02"))
        schema = connection.read_parquet(str(files["0" * 64])).limit(0).to_arrow_table().schema
    manifest = Manifest(
        application="tiny",
        purpose="training",
        columns=tuple(Column(one.name, str(one.type), ROLES.get(one.name, "input")) for one in schema),
        chunks=tuple(chunks),
        window=("2024-01-01T00:00:00+00:00", "2024-01-03T00:00:00+00:00"),
    )
    datasets = DatasetStore(open_store(str(tmp_path / "store")), "tiny")
    datasets.publish(manifest, files, {"time": "2024-01-03T00:00:00+00:00"})
    return tmp_path / "store"


def suggest(capsys, *words):
    assert main(["assumptions", "suggest", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_what_is_proposed(store, capsys):
    text = suggest(capsys, "--store", store, "--application", "tiny")
    rules = yaml.safe_load(text)["assumptions"]
    of = {rule["column"]: rule for rule in rules if "column" in rule}
    assert of["id"] == {"column": "id", "not_null": True, "type": "int64"}
    assert of["tail"]["matches"] == "[A-Z]+[0-9]+"
    assert of["word"]["one_of"] == ["1e3", "no", "on"]
    assert of["temp"] == {"column": "temp", "max_null_share": 0.16, "between": [-120, 120], "type": "double"}
    assert of["dist"]["between"] == [0, 1074]
    assert of["legs"] == {"column": "legs", "not_null": True, "between": [0, 4], "type": "int16"}
    assert of["wind"]["max_null_share"] == 0.04
    assert "between" not in of["wind"], "NaN is within no bounds"
    assert of["nothing"] == {"column": "nothing", "type": "double"}
    assert of["flag"] == {"column": "flag", "not_null": True, "type": "bool"}
    assert of["price"]["between"][0] == 0
    assert [rule for rule in rules if "column" not in rule] == [
        {"unique": ["id"]},
        {"min_rows": 1000},
        {"rows_vs_previous": [0.5, 2.0]},
        {"max_target_leakage": 0.95, "severity": "warn"},
    ]


def test_it_holds_for_that_version_and_is_valid_yaml(store, tmp_path, capsys):
    from airflow_mlops.operators.datasets.validate import ValidateDatasetOperator

    text = suggest(capsys, "--store", store, "--application", "tiny")
    file = tmp_path / "tiny.yaml"
    indented = "".join(f"  {line}\n" for line in text.splitlines())
    file.write_text(MINIMAL + indented + f"store: {store}\n")
    spec = load_application(file)
    rules = [rule.model_dump(mode="json", exclude_none=True) for rule in spec.provisioning.assumptions]
    result = ValidateDatasetOperator(
        task_id="validate", application="tiny", store=str(store), assumptions=rules
    ).execute({})
    assert (result["failed"], result["warned"]) == (0, 0)
    assert result["checked"] > 25
    capsys.readouterr()
    assert suggest(capsys, "--file", file) == text, "the file says where the store is"


def test_the_same_version_gives_the_same_rules(store, capsys):
    once, again = (
        suggest(capsys, "latest", "--store", store, "--application", "tiny", "--json") for _ in range(2)
    )
    assert once == again
    assert json.loads(once)["application"] == "tiny"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["suggest"], 2, "--store URI and --application NAME"),
        (["suggest", "--file", "nowhere.yaml"], 2, "does not exist"),
        (["suggest", "abc", "--store", "STORE", "--application", "tiny"], 1, "no dataset version of 'tiny'"),
        ([], 2, "required: TOOL"),
    ],
)
def test_what_is_not_there_is_said(store, capsys, words, code, said):
    words = [str(store) if word == "STORE" else word for word in words]
    assert main(["assumptions", *words]) == code
    assert said in capsys.readouterr().err


def test_texts_that_yaml_could_take_for_something_else_stay_texts():
    rules = [{"column": "null", "one_of": ["yes", "1", "2024-01-01", "a: b", "ß"]}]
    assert yaml.safe_load(as_yaml(rules))["assumptions"] == rules


def wide(folder, columns, make):
    table = pa.table(
        {"n": range(columns), "at": range(columns)} | {f"c{i}": make(columns) for i in range(columns)}
    )
    path = folder / f"{columns}.parquet"
    pq.write_table(table, path)
    return path, {field.name: str(field.type) for field in table.schema}


@pytest.mark.parametrize(
    "make",
    [lambda n: [float(i) for i in range(n)], lambda n: [f"v{i % 3}" for i in range(n)]],
    ids=["numbers", "texts"],
)
def test_a_wide_version_is_looked_at_by_a_few_columns_a_query(tmp_path, make):
    longest, queries = {}, {}
    for columns in (100, 400):
        path, types = wide(tmp_path, columns, make)
        with duckdb.connect() as connection:
            seen = Listening(connection)
            rules = suggest_rules(
                seen, f"read_parquet('{path}')", [path], types, order="n", context=CheckContext(keys=("n",))
            )
        assert len([rule for rule in rules if "column" in rule]) == columns + 2
        longest[columns], queries[columns] = max(sql.count('"c') for sql in seen.said), len(seen.said)
    assert longest[400] <= 1.05 * longest[100], "no query grows with the columns"
    assert queries[400] < 50


class Listening:
    """A connection, and what it was asked."""

    def __init__(self, connection):
        self.connection, self.said = connection, []

    def execute(self, sql, *parameters):
        self.said.append(sql)
        return self.connection.execute(sql, *parameters)

    def __getattr__(self, name):
        return getattr(self.connection, name)


def test_a_mostly_empty_column_gets_no_rule_that_every_column_keeps(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"n": range(100), "x": [1.5] * 20 + [None] * 80}), path)
    with duckdb.connect() as connection:
        rules = suggest_rules(
            connection,
            f"read_parquet('{path}')",
            [path],
            {"n": "int64", "x": "double"},
            order="n",
            context=CheckContext(),
        )
    assert next(rule for rule in rules if rule.get("column") == "x").keys() == {"column", "between", "type"}
