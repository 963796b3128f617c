"""Content of containers is judged with limits, whatever it is."""

from __future__ import annotations

import functools
import json
import os
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.exceptions import ContractError, ParameterError
from airflow_mlops.hooks.mlflow.model import read_model
from airflow_mlops.operators.training.train import VALIDATE
from airflow_mlops.primitives.container_output import judging
from airflow_mlops.primitives.container_output.judging import judge, judge_file
from airflow_mlops.primitives.container_output.parquet_cells import CELL_LIMIT, judge_cells
from airflow_mlops.primitives.evaluation.cases import count_cases
from airflow_mlops.primitives.training.description import judge_description

BROKEN = "airflow_mlops.primitives.training.outcome:read_broken_assumptions"
HERE = "tests.unit.primitives.container_output.test_judging"


def waits(seconds):
    time.sleep(seconds)


def works(_):
    while True:
        pass


def takes(size):
    return len(bytearray(size))


def dies(code):
    os._exit(code)


def says(text):
    print("to nobody")  # noqa: T201  on purpose
    return [text, None, 1.5]


def answers(size):
    return "x" * size


def refuses(text):
    raise ParameterError(text)


def breaks(_):
    return {}["x"]


def test_what_it_returns_comes_back_whatever_it_prints():
    assert judge(f"{HERE}:says", "ä\ud800", what="it") == ["ä\ud800", None, 1.5]


@pytest.mark.parametrize(
    ("call", "limit"), [("waits", r"within 2 s\. Cure"), ("works", r"within 2 s of a processor\. Cure")]
)
def test_it_is_killed_at_its_deadline(call, limit, monkeypatch):
    monkeypatch.setattr(judging, "PATIENCE", 1 if call == "waits" else 300)
    began = time.monotonic()
    with pytest.raises(ContractError, match=rf"^it: cannot be judged {limit}"):
        judge(f"{HERE}:{call}", 600, what="it", seconds=2)
    assert time.monotonic() - began < 300


def test_it_has_no_more_memory_than_it_may():
    assert judge(f"{HERE}:takes", 10, what="it") == 10
    with pytest.raises(ContractError, match=r"^it: cannot be judged within 512 MiB of memory"):
        judge(f"{HERE}:takes", 1024**3, what="it", memory=512 * 1024**2)
    with pytest.raises(ContractError, match="cannot be judged within"):
        judge(f"{HERE}:answers", 100 * 1024**2, what="it")


def test_errors_of_ours_come_back_and_others_say_something():
    with pytest.raises(ParameterError, match=r"^no$"):
        judge(f"{HERE}:refuses", "no", what="it")
    with pytest.raises(ContractError, match="KeyError"):
        judge(f"{HERE}:breaks", "x", what="it")
    with pytest.raises(ContractError, match=r"^it: judging it ended with exit code 3"):
        judge(f"{HERE}:dies", 3, what="it")


def properties(**rules):
    return {"properties": rules}


LAYERS = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)}
SCHEMAS = {
    "a regular expression without end": properties(x={"pattern": "^(a+)+$", "default": "a" * 40 + "!"}),
    "references that double": {
        "$defs": {**LAYERS, "d30": {"type": "integer"}},
        "properties": {"x": {"$ref": "#/$defs/d0", "default": 1}},
    },
    "a reference to itself": {"properties": {"x": {"$ref": "#/properties/x", "default": 1}}},
    "properties that are a list": {"properties": [1, 2]},
    "no mapping": ["a"],
    "a huge message": properties(x={"anyOf": [{"const": "y" * 100_000}] * 20, "default": 1}),
    "a broken regular expression": properties(x={"pattern": "(", "default": "a"}),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_of_describe(name):
    with pytest.raises((ContractError, ParameterError)) as caught:
        judge(VALIDATE, SCHEMAS[name], {}, what="describe", seconds=2)
    assert len(str(caught.value)) < 10_000


@pytest.mark.parametrize(
    "rules", [{"type": "integer", "default": 3}, {"multipleOf": 0.1, "default": 10**400}]
)
def test_a_good_schema(rules):
    assert judge(VALIDATE, properties(x=rules), {}, what="describe") == {"x": rules["default"]}


def bomb():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        bomb(),
        "a: &a [*a]",
        "[" * 5_000,
        "? {[1]: 2}\n: 3",
        "x: !!python/object:os.system {}",
        "- 1",
        "x: 0x" + "f" * 6000,
    ],
)
def test_a_file_mlmodel(tmp_path, text, monkeypatch):
    monkeypatch.setattr("airflow_mlops.primitives.container_output.judging.SECONDS", 2)
    file = tmp_path / "MLmodel"
    file.write_text(text)
    with pytest.raises(ContractError, match="MLmodel"):
        read_model(file)


def test_a_good_file_mlmodel(tmp_path):
    file = tmp_path / "MLmodel"
    file.write_text(
        "artifact_path: model\nutc_time_created: 2026-11-30 10:00:00.123456\nflavors: {python_function: {}}\n"
    )
    assert read_model(file) == {
        "artifact_path": "model",
        "utc_time_created": "2026-11-30 10:00:00.123456",
        "flavors": {"python_function": {}},
    }


def test_cells_of_parquet(tmp_path):
    file = tmp_path / "predictions.parquet"
    long = pa.DictionaryArray.from_arrays(
        pa.array([0] * 5_000, pa.int32()), pa.array(["x" * (CELL_LIMIT + 1)])
    )
    pq.write_table(pa.table({"id": range(5_000), "prediction": long}), file)
    assert file.stat().st_size < 4 * CELL_LIMIT
    with pytest.raises(
        ContractError, match=r"output/predictions.parquet.*(prediction has a value of|memory)"
    ):
        judge_cells([file], "output/predictions.parquet")
    pq.write_table(pa.table({"id": range(3), "p": ["a"] * 3, "v": [[1.0]] * 3, "s": [{"a": 1}] * 3}), file)
    assert judge_cells([file], "output/predictions.parquet") == 3
    file.write_bytes(b"PAR1 and no more")
    with pytest.raises(ContractError, match="cannot be read"):
        judge_cells([file], "output/predictions.parquet")


def test_a_report_of_cases(tmp_path):
    file = tmp_path / "tests.xml"
    file.write_text("<testsuite><testcase name='a'/></testsuite>")
    counted = judge(f"{count_cases.__module__}:count_cases", str(file), what="output/tests.xml")
    assert counted["total"] == 1


def test_a_file_is_read_in_place_when_it_is_small_and_in_a_child_when_it_is_not(tmp_path, monkeypatch):
    asked = []

    def counted(*arguments, **options):
        asked.append(arguments)
        return judge(*arguments, **options)

    monkeypatch.setattr(judging, "judge", counted)
    file = tmp_path / "assumptions.json"
    for entries, children in ((3, 0), (5_000, 1)):
        file.write_text(json.dumps([{"rule": "unique", "column": "id"}] * entries))
        found = judge_file(BROKEN, file, "output/assumptions.json", limit=10**6)
        assert (len(found), len(asked)) == (entries, children)
    with pytest.raises(ContractError, match=r"output/assumptions.json has \d+ bytes; at most 1000 are read"):
        judge_file(BROKEN, file, "output/assumptions.json", limit=1000)
    assert len(asked) == 1


DEEP = "\n".join(['"k": {' + '"a": [1, 2, 3], ' * 8] * 9_000)


def test_a_description_that_may_begin_in_any_of_many_lines(monkeypatch):
    monkeypatch.setattr(judging, "judge", functools.partial(judge, seconds=2))
    with pytest.raises(
        ContractError, match=r"^the image: what describe printed.*cannot be judged within 2 s"
    ):
        judge_description(DEEP, "the image", ["train"], {})


def test_a_good_description_and_its_parameters():
    said = {
        "contract": 1,
        "commands": ["describe", "train"],
        "parameters": properties(x={"type": "integer", "default": 3}, y={"type": "string"}),
    }
    found = judge_description(f"hello\n{json.dumps(said)}", "it", ["train"], {"y": "a"})
    assert found == (said, {"x": 3, "y": "a"})
    with pytest.raises(ContractError, match=r"it describes no command test.*Cure"):
        judge_description(json.dumps(said), "it", ["test"], {})
    with pytest.raises(ParameterError, match="y"):
        judge_description(json.dumps(said), "it", [], {"y": 1})
