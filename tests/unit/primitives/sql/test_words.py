"""Words of DuckDB's SQL: whatever a name or a value is, it stays one."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.exceptions import SpecError
from airflow_mlops.primitives.sql.words import identifier, literal, one_query, parquet

text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(name=text, value=text)
def test_any_text_is_a_name_and_a_value(name, value):
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT {literal(value)} AS {identifier(name)}")
        assert found.description[0][0] == name
        assert found.fetchone() == (value,)


@given(value=st.one_of(st.booleans(), st.none(), st.floats(allow_nan=False), st.integers(-(2**100), 2**100)))
def test_json_values_come_back(value):
    with duckdb.connect() as connection:
        assert connection.execute(f"SELECT {literal(value)}").fetchone() == (value,)


@pytest.mark.parametrize("word", [identifier, literal])
def test_a_zero_byte_is_refused_instead_of_ending_the_statement(word):
    with pytest.raises(SpecError, match="zero byte"):
        word("a\0b")


@pytest.mark.parametrize("name", ["a[1].parquet", "a*.parquet", "a?.parquet", "it's.parquet"])
def test_a_file_is_read_whatever_its_name_and_no_other(tmp_path, name):
    for file in ("a1.parquet", "ab.parquet", name):
        with duckdb.connect() as connection:
            connection.sql(f"SELECT {literal(file)} AS file").write_parquet(str(tmp_path / file))
    with duckdb.connect() as connection:
        assert connection.execute(f"FROM {parquet((str(tmp_path / name),))}").fetchall() == [(name,)]


@pytest.mark.parametrize(
    "sql",
    ["SELECT 1", "FROM range(1)", "WITH a AS (SELECT 1) FROM a; ;", "VALUES (1) -- one", "SELECT 1 /* ) */"],
)
def test_a_query_stands_in_brackets(sql):
    with duckdb.connect() as connection:
        assert len(connection.execute(f"SELECT * FROM {one_query(sql, 'here')}").fetchall()) == 1


@pytest.mark.parametrize(
    ("sql", "got"),
    [
        ("SELECT 1; SELECT 2", "SELECT, SELECT"),
        ("COPY (SELECT 1) TO '/nowhere/x.csv'", "COPY"),
        ("ATTACH 'x.db'", "ATTACH"),
        ("INSTALL httpfs", "LOAD"),
        ("SELECT 1; DROP VIEW x", "SELECT, DROP"),
        ("-- nothing", "nothing"),
    ],
)
def test_what_is_no_single_query_is_refused(sql, got):
    with pytest.raises(SpecError, match=f"here: expected one SELECT statement, got {got}"):
        one_query(sql, "here")


@pytest.mark.parametrize(
    "sql", ["SELECT 1); DROP VIEW x; SELECT (1", "SELECT 1 /*", "SELECT 'a", "SELECT $$a"]
)
def test_a_query_cannot_leave_its_brackets(sql):
    with pytest.raises(duckdb.ParserException):
        one_query(sql, "here")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM enable_logging(storage = 'file', storage_path = '/tmp/log')",
        "SELECT * FROM duckdb_secrets()",
        "SELECT a, (SELECT getenv('HOME')) FROM t",
        "FROM query('SELECT 1')",
        'WITH x AS (FROM "Duckdb_Settings"()) FROM x',
        "PIVOT (FROM t, which_secret('s3://a', 's3')) ON a IN (1, 2) USING sum(b)",
        "FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    ],
)
def test_a_query_neither_looks_into_its_session_nor_changes_it(sql):
    with pytest.raises(SpecError, match=r"^examples: calls \w+\(\), which is about the session.*Cure: "):
        one_query(sql, "examples")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT query, checkpoint FROM t WHERE query LIKE '%getenv(%'",
        "WITH query(a) AS (SELECT 1) SELECT a FROM query -- getenv()",
        "PIVOT t ON a IN (1, 2) USING sum(b) /* getenv() */",
    ],
)
def test_words_alone_are_no_calls(sql):
    assert one_query(sql, "examples").startswith("(")
