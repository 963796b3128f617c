from __future__ import annotations

from pathlib import Path

import pytest

from airflow_mlops.spec.reading.syntax import LARGEST_FILE, MOST_NODES, parse

FILE = Path("app.yaml")


def read(text: str):
    node, problems = parse(text, FILE)
    assert not problems
    return node.plain()


def test_booleans_are_those_of_yaml_1_2():
    words = "on: yes\noff: no\ny: Y\nt: true\nf: False"
    assert read(words) == {"on": "yes", "off": "no", "y": "Y", "t": True, "f": False}


def test_numbers_and_nothing():
    text = "a: 1\nb: -2.5e3\nc: 0x1F\nd: 0o17\ne: 017\nf: 1_000\ng:\nh: ~\ni: '1'\nj: 12:30:45\nk: 2024-01-01"
    assert read(text) == {
        "a": 1, "b": -2500.0, "c": 31, "d": 15, "e": 17, "f": "1_000", "g": None, "h": None, "i": "1",
        "j": "12:30:45", "k": "2024-01-01",
    }  # fmt: skip


def test_block_text_and_flow():
    assert read("sql: |\n  SELECT 1\n  FROM x\nlist: [a, {b: c}]") == {
        "sql": "SELECT 1\nFROM x\n",
        "list": ["a", {"b": "c"}],
    }


def test_values_know_where_they_and_their_keys_stand():
    node, _ = parse("a:\n  b: [1,\n      22]\n", FILE)
    inner = node.value["a"].value["b"]
    assert (inner.key.line, inner.key.column, inner.place.line, inner.place.column) == (2, 3, 2, 6)
    assert (inner.value[1].place.line, inner.value[1].place.column) == (3, 7)


def test_aliases_are_written_out():
    assert read("a: &x {k: [1]}\nb: *x") == {"a": {"k": [1]}, "b": {"k": [1]}}


def test_a_byte_order_mark_is_no_problem(problems):
    assert problems("\ufeffapplication: x\n")[0].key == "code"


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a: [1\nb: 2", 2, 2, "did not find expected ',' or ']'"),
        ("a: 'x", 1, 6, "unexpected end of stream"),
        ("a: b: c", 1, 5, "mapping values are not allowed"),
        ("a:\n\tb: 1", 2, 1, "a tab"),
        ("a: 1\nb: x\x07y", 2, 5, "control character"),
        ("a: 1\n---\nb: 2", 2, 1, "second document"),
        ("a: *x", 1, 4, "*x, which is not defined above"),
        ("a: &a [*a]", 1, 8, "*a, which is not defined above"),
        ("", 1, 1, "is empty"),
        ("# nothing\n", 1, 1, "is empty"),
        ("- a", 1, 1, "is not a mapping"),
        ("just words", 1, 1, "is not a mapping"),
        ("? [a]\n: b", 1, 3, "a key that is not a word"),
        ("a: {b: [" + "[" * 100_000, 1, None, "nested too deeply"),
        (b"a: b\nc: \xe4", 2, 4, "is not UTF-8 text"),
    ],
)  # fmt: skip
def test_unreadable_files_are_one_problem_with_its_place(problems, text, line, column, words):
    [problem] = problems(text)
    assert words in str(problem)
    assert problem.place.line == line
    assert column is None or problem.place.column == column


def test_a_tab_is_named(problems):
    [problem] = problems("a:\n\tb: 1")
    assert (problem.expected, problem.got, problem.cure) == ("spaces", "a tab", "indent with spaces")


def test_a_key_written_twice_names_both_lines(problems):
    [twice] = [
        one for one in problems("application: a\ncode: {image: a,\n  image: b}") if "twice" in one.what
    ]
    assert (twice.place.line, twice.place.column, twice.key) == (3, 3, "code.image")
    assert twice.what == "is written twice, first on line 2"


@pytest.mark.parametrize("key", ["1", "true", "null", "1.5"])
def test_keys_must_be_text(problems, key):
    found = [one for one in problems(f"a: 1\n{key}: x") if "key that is not text" in one.what]
    assert [one.place.line for one in found] == [2]
    assert f"'{key}':" in found[0].cure


@pytest.mark.parametrize(
    "value", ["!!python/object:os.system x", "!secret x", "!!int x", "!!set {x}", "!!binary eA=="]
)
def test_tags_are_refused(problems, value):
    [tag] = [one for one in problems(f"a: {value}") if one.key == "a" and "tag" in one.what]
    assert (tag.place.line, tag.cure) == (1, "remove the tag")


@pytest.mark.parametrize("value", [".inf", "-.INF", ".nan"])
def test_numbers_are_finite(problems, value):
    assert any(
        one.what == "is not a finite number" and one.place.line == 1 for one in problems(f"a: {value}")
    )


def test_a_file_that_explodes_by_aliases_is_refused(problems):
    lines = ["l0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 20)]
    [problem] = problems("\n".join(lines))
    assert problem.what == "is too large"
    assert problem.expected == f"at most {MOST_NODES:,} values"


def test_a_large_file_is_refused_unread(problems):
    [problem] = problems("a" * (LARGEST_FILE + 1))
    assert "is too large" in str(problem)


def test_a_missing_file_and_a_folder(tmp_path):
    from airflow_mlops.spec import SpecFileError, load_application

    with pytest.raises(SpecFileError, match=r"no\.yaml: the file cannot be read: No such file"):
        load_application(tmp_path / "no.yaml")
    with pytest.raises(SpecFileError, match="Is a directory"):
        load_application(tmp_path)
