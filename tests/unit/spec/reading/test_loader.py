from __future__ import annotations

import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_mlops.spec import (
    ApplicationSpec,
    AssetSchedule,
    Problem,
    SpecFileError,
    json_schema,
    load_application,
    load_folder,
)
from airflow_mlops.spec.reading.syntax import parse
from tests.unit.spec.samples import FULL, MINIMAL

ROOT = Path(__file__).parents[4]
TINY = MINIMAL + "store: /s\n"


@pytest.fixture
def load(tmp_path):
    def load_text(text: str) -> ApplicationSpec:
        file = tmp_path / "app.yaml"
        file.write_text(text)
        return load_application(file)

    return load_text


class TestLoadApplication:
    def test_ten_lines_are_enough(self, load, tmp_path):
        assert len(TINY.splitlines()) == 10
        spec = load(TINY)
        assert (spec.tracking.experiment, spec.registration.model) == ("tiny", "tiny")
        assert (spec.training.run_on, spec.monitoring.performance.loss) == ("docker", "brier")
        assert spec.provisioning.schedule is None
        assert spec.provisioning.examples.folder == str(tmp_path)
        assert spec.retraining.on == ("drift", "performance")
        assert spec.delivery == ()

    def test_every_key_arrives(self, load, tmp_path):
        spec = load(FULL)
        assert spec.code.process.directory == str(tmp_path.parent.parent / "examples" / "flight_delay")
        assert spec.provisioning.window == timedelta(days=365)
        assert spec.provisioning.examples.folder == str(tmp_path / "data")
        assert spec.provisioning.examples.sql == "SELECT * FROM read_parquet('examples/*.parquet')"
        assert spec.provisioning.schedule == AssetSchedule(assets=("flights_landed",))
        assert spec.training.resources.memory == 4 * 1024**3
        assert spec.training.parameters == {"learning_rate": 0.1, "layers": [64, 32], "early_stopping": True}
        assert spec.evaluation.require[1].no_worse_by == 0.01
        assert spec.delivery[0].batch.schedule.assets == ("flights_scheduled",)
        assert spec.retraining.schedule == "0 3 * * 1"
        assert spec.provisioning.assumptions[3].between == (0, None)

    def test_it_remembers_its_file_word_by_word(self, load, tmp_path):
        spec = load(TINY + "# ü\n")
        assert spec.source_path == tmp_path / "app.yaml"
        assert spec.source_text == TINY + "# ü\n"

    def test_it_cannot_be_changed(self, load):
        with pytest.raises(ValueError, match="frozen"):
            load(TINY).owner = "me"

    def test_its_json_form_loads_again_as_the_same(self, load):
        spec = load(FULL)
        assert load(yaml.safe_dump(spec.to_json())).model_dump() == spec.model_dump()

    def test_code_decides_where_it_runs_and_paradigm_the_loss(self, load):
        process = "code: {process: {directory: x, command: [python, m.py]}}"
        spec = load(TINY.replace('code: {image: "tiny:1"}', process) + "paradigm: regression\n")
        assert (spec.training.run_on, spec.monitoring.performance.loss) == ("process", "absolute_error")

    @pytest.mark.parametrize(
        ("paradigm", "targets", "performance", "loss"),
        [
            ("classification", True, "", "brier"),
            ("regression", True, "", "absolute_error"),
            ("ranking", True, "", None),
            ("clustering", False, "", None),
            ("anomaly", True, "", None),
            ("anomaly", False, "", None),
            ("reinforcement", False, "", None),
            ("other", True, "", None),
            ("other", True, "monitoring: {performance: {loss: error}}", "error"),
            ("classification", True, "monitoring: {performance: null}", None),
        ],
    )
    def test_a_paradigm_says_whether_targets_are_needed_and_predictions_compared(
        self, load, paradigm, targets, performance, loss
    ):
        text = TINY if targets else TINY.replace("    targets: [y]\n", "")
        spec = load(f"{text}paradigm: {paradigm}\n{performance}\n")
        measured = spec.monitoring.performance
        assert (measured.loss if measured else None) == loss
        if "null" not in performance:  # the JSON form has no null
            assert load(yaml.safe_dump(spec.to_json())).model_dump() == spec.model_dump()

    def test_bounds_of_latency_and_size_are_seconds_and_bytes_and_a_column_may_stand_alone(self, load):
        rules = "[{latency: p95, at_most: 50ms}, {size: model, at_most: 200m}, {metric: auc, per_slice: origin, at_least: 0.6}]"
        spec = load(TINY + f"evaluation: {{mode: dry_run, require: {rules}}}\n")
        latency, size, slices = spec.evaluation.require
        assert (latency.at_most, size.at_most) == (0.05, 200 * 1024**2)
        assert slices.per_slice == ("origin",)
        assert load(yaml.safe_dump(spec.to_json())).model_dump() == spec.model_dump()

    def test_against_the_champion_means_no_worse_at_all_by_default(self, load):
        spec = load(TINY + "evaluation: {require: [{metric: auc, against: champion}]}\n")
        assert spec.evaluation.require[0].no_worse_by == 0

    @pytest.mark.parametrize(
        ("written", "store"),
        [("file:///a/b%20c", "/a/b c"), ("/a/../b", "/b"), ("./x", "{here}/x"), ("../x", "{above}/x")],
    )
    def test_stores(self, load, tmp_path, written, store):
        spec = load(MINIMAL + f"store: {written}\n")
        assert spec.store == store.format(here=tmp_path, above=tmp_path.parent)

    @pytest.mark.parametrize(
        "written",
        [
            "/data/${ENV}/s",
            "$HOME/s",
            "'{{ var.value.store }}'",
            "s3://bucket/{{ds}}",
            "s3://${B}/x",
            "'/a/{% x %}'",
        ],
    )
    def test_a_store_that_somebody_would_have_to_fill_in(self, load, written):
        with pytest.raises(SpecFileError, match=r"which nobody fills in(.|\n)*write the address"):
            load(MINIMAL + f"store: {written}\n")

    def test_a_relative_path_to_the_file_is_as_good(self, load, tmp_path, monkeypatch):
        load(MINIMAL + "store: x\n")
        monkeypatch.chdir(tmp_path)
        assert load_application("app.yaml").store == str(tmp_path / "x")
        assert load_application("../" + tmp_path.name + "/app.yaml").store == str(tmp_path / "x")

    def test_the_shipped_example_loads(self):
        assert load_application(ROOT / "dags/applications/flight_delay.yaml").application == "flight_delay"


class TestLoadFolder:
    def test_a_broken_file_does_not_keep_back_the_others(self, tmp_path):
        (tmp_path / "b.yaml").write_text(TINY)
        (tmp_path / "a.yml").write_text(TINY.replace("tiny\n", "other\n"))
        (tmp_path / "bad.yaml").write_text("application: [")
        (tmp_path / "note.txt").write_text("x")
        (tmp_path / ".hidden.yaml").write_text("x")
        (tmp_path / "deep").mkdir()
        (tmp_path / "deep" / "c.yaml").write_text(TINY.replace("tiny\n", "third\n"))
        loaded, errors = load_folder(tmp_path)
        assert [(one.path.name, one.spec.application) for one in loaded] == [
            ("a.yml", "other"), ("b.yaml", "tiny"), ("c.yaml", "third"),
        ]  # fmt: skip
        assert loaded[1].text == TINY
        assert [error.path.name for error in errors] == ["bad.yaml"]

    def test_two_applications_of_one_name_are_both_refused_and_name_each_other(self, tmp_path):
        (tmp_path / "a.yaml").write_text(TINY)
        (tmp_path / "b.yaml").write_text("# copied\n" + TINY)
        loaded, errors = load_folder(tmp_path)
        assert loaded == []
        assert [error.path.name for error in errors] == ["a.yaml", "b.yaml"]
        [problem] = errors[1].problems
        assert (problem.place.line, problem.place.column, problem.key) == (2, 1, "application")
        assert str(tmp_path / "a.yaml") in problem.what

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(SpecFileError, match="does not exist"):
            load_folder(tmp_path / "no")


@pytest.fixture(scope="module")
def validator():
    import jsonschema

    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


class TestJsonSchema:
    @pytest.mark.parametrize("text", [FULL, TINY, MINIMAL])
    def test_it_accepts_what_the_loader_accepts(self, validator, text):
        validator.validate(plain(text))

    def test_its_defaults_are_values_that_it_accepts(self, validator):
        import jsonschema

        def check(node):
            if isinstance(node, dict):
                if "default" in node and node["default"] is not None:
                    schema = {"$defs": validator.schema["$defs"], **node}
                    jsonschema.Draft202012Validator(schema).validate(node["default"])
                for inner in node.values():
                    check(inner)
            elif isinstance(node, list):
                for inner in node:
                    check(inner)

        check(validator.schema)
        properties = validator.schema["$defs"]
        assert properties["Provisioning"]["properties"]["window"]["default"] == "365d"
        assert properties["TrainingResources"]["properties"]["memory"]["default"] == "4g"

    def test_it_accepts_the_shipped_example(self, validator):
        validator.validate(plain((ROOT / "dags/applications/flight_delay.yaml").read_text()))

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("owner:", "ower:"),
            ("memory:", "memry:"),
            ("window: 365d", "window: 365"),
            ("memory: 4g", "memory: 4"),
            ("paradigm: classification", "paradigm: alchemy"),
            ("{metric: auc, at_least: 0.6}", "{at_least: 0.6}"),
            ("seed: 7", "seed: x"),
            ("keys: [flight_id]", "keys: []"),
        ],
    )
    def test_it_refuses_mistakes(self, validator, old, new):
        assert not validator.is_valid(plain(FULL.replace(old, new)))


def plain(text: str):
    node, problems = parse(text, Path("x"))
    assert not problems
    return node.plain()


def _paths(value, path=()):
    if path:
        yield path
    for key, inner in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from _paths(inner, (*path, key))


DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
WHOLE = plain(FULL)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(["x", "<cron>", "~", "a\0"])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | SCALARS, inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = st.sampled_from(["on", "columns", "sql", "<assets>", "0", "", "model"]) | st.text(max_size=6)


def mutate(value, path, change, new):
    """A copy with the entry at ``path`` dropped, renamed or replaced."""
    head, *rest = path
    if isinstance(value, list):
        if rest:
            return [
                mutate(item, rest, change, new) if index == head else item for index, item in enumerate(value)
            ]
        items = [] if change == "drop" else [new]
        return [*value[:head], *items, *value[head + 1 :]]
    if rest:
        return {key: mutate(item, rest, change, new) if key == head else item for key, item in value.items()}
    if change == "replace":
        return {**value, head: new}
    kept = {key: item for key, item in value.items() if key != head}
    return kept if change == "drop" else {**kept, str(new)[:20]: value[head]}


def problems_or_none(file: Path, load=load_application) -> tuple[Problem, ...]:
    """Load; any error but ours fails the test."""
    try:
        load(file)
    except SpecFileError as error:
        for problem in error.problems:
            assert problem.cure, problem
            assert not problem.expected or problem.cure.removeprefix("write ") != problem.expected, problem
        return error.problems or pytest.fail("an error without a problem")
    return ()


class TestAnyMutation:
    @settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        path=st.sampled_from(list(_paths(WHOLE))),
        change=st.sampled_from(["drop", "rename", "replace"]),
        value=VALUES,
        key=KEYS,
    )
    def test_of_a_good_file_loads_or_is_a_spec_error(self, tmp_path, path, change, value, key):
        file = tmp_path / "app.yaml"
        text = yaml.dump(
            mutate(WHOLE, list(path), change, key if change == "rename" else value), Dumper=DUMPER
        )
        file.write_text(text, encoding="utf-8", errors="replace")
        for problem in problems_or_none(file):
            assert 1 <= problem.place.line <= text.count("\n") + 1
            assert problem.what
            assert problem.cure

    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(start=st.integers(0, len(FULL)), length=st.integers(0, 40), insert=st.text(max_size=5))
    def test_of_its_text_loads_or_is_a_spec_error(self, tmp_path, start, length, insert):
        file = tmp_path / "app.yaml"
        file.write_bytes((FULL[:start] + insert + FULL[start + length :]).encode(errors="replace"))
        problems_or_none(file)


class TestSpeed:
    def test_the_import_is_light(self):
        code = (
            "import sys, yaml, pydantic\n"
            "from pydantic import BaseModel, AfterValidator, PlainSerializer\n"
            "class Warm(BaseModel):\n    x: int = 0\n"
            "before = set(sys.modules)\n"
            "import airflow_mlops.spec\n"
            "new = set(sys.modules) - before\n"
            "print(len(new), any(name.split('.')[0] == 'airflow' for name in sys.modules))\n"
        )
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        number, airflow = out.split()
        assert int(number) < 50
        assert airflow == "False"

    def test_loading_is_quick(self, load, tmp_path):
        load(FULL)
        times = []
        for _ in range(20):
            start = time.process_time()
            load_application(tmp_path / "app.yaml")
            times.append(time.process_time() - start)
        assert min(times) < 0.004  # 1 ms on a quiet core


def test_two_files_that_would_have_one_stub_are_errors_both(tmp_path):
    for name in ("a.yaml", "a.yml", "b.yml"):
        (tmp_path / name).write_text(
            MINIMAL.replace("tiny", f"tiny_{name.replace('.', '_')}") + "store: /s\n"
        )
    loaded, errors = load_folder(tmp_path)
    assert [one.path.name for one in loaded] == ["b.yml"]
    assert [(error.path.name, len(error.problems)) for error in errors] == [("a.yaml", 1), ("a.yml", 1)]
    assert "stands beside a.yml" in errors[0].problems[0].what
    assert "rename" in errors[0].problems[0].cure


def test_an_ending_that_no_stub_looks_for_is_an_error(tmp_path):
    (tmp_path / "a.YAML").write_text(MINIMAL + "store: /s\n")
    loaded, (error,) = load_folder(tmp_path)
    assert loaded == []
    assert error.problems[0].cure == "rename it a.yaml"
