"""The YAML of a feature pipeline: what it may say, and what is told when it says it wrong."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_mlops.spec import (
    AssetSchedule,
    FeaturesSpec,
    SpecFileError,
    json_schema,
    load_application,
    load_features,
    load_folder,
    load_spec,
)
from airflow_mlops.spec.features.pipeline import _OF_DATASETS
from airflow_mlops.spec.reading.reference import keys, markdown
from tests.unit.spec.reading.test_loader import DUMPER, KEYS, VALUES, _paths, mutate, plain, problems_or_none
from tests.unit.spec.samples import MINIMAL

ROOT = Path(__file__).parents[4]
SMALLEST = """\
features: airport_weather
store: /s
extract: {files: weather/*.parquet}
publish: {timestamp: time}
views:
  - entities: {origin: string}
    features: {temp: float64, wind_speed: float64}
services: {flight_delay_v1: [airport_weather]}
"""
WHOLE = """\
features: airport_weather
description: Hourly weather at the airports.
owner: data-team
tags: [demo]
store: s3://lake@my-bucket/mlops
folder: data
feature_store: feast_default
schedule: "15 * * * *"
extract:
  connection: warehouse
  sql: SELECT * FROM weather WHERE updated_at >= :after
  watermark: updated_at
  late: 2d
  window: interval
  batch_rows: 1000
transform:
  sql: SELECT * FROM extracted JOIN airports USING (origin)
  tables: {airports: airports.parquet, zones: s3://bucket/zones.parquet}
assumptions:
  - {column: temp, between: [-60, 60]}
  - {unique: [origin, time]}
publish: {keys: [origin, station], timestamp: time, created: created, partition: day, table: lake.weather}
views:
  - name: weather
    description: What is measured.
    entities: {origin: string}
    ttl: 3h
    features: {temp: float64, codes: "list[string]"}
    online: true
  - name: stations
    entities: {place: {join_key: station, type: int64}}
    features: {height: float32}
services:
  flight_delay_v1: [weather, plane, {view: last_leg, features: [late], join_keys: {tailnum: plane}, alias: leg}]
materialize: false
retries: 5
retry_delay: 10s
"""


@pytest.fixture
def load(tmp_path):
    def load_text(text: str) -> FeaturesSpec:
        (tmp_path / "f.yaml").write_text(text)
        return load_features(tmp_path / "f.yaml")

    return load_text


@pytest.fixture
def wrong(tmp_path):
    """What is wrong with a file: ``[(line, key, what)]``, and the problems themselves."""

    def find(text: str):
        (tmp_path / "f.yaml").write_text(text)
        with pytest.raises(SpecFileError) as caught:
            load_spec(tmp_path / "f.yaml")
        assert all(problem.cure for problem in caught.value.problems)
        return list(caught.value.problems)

    return find


def changed(old: str, new: str, text: str = SMALLEST) -> str:
    assert old in text, old
    return text.replace(old, new)


class TestLoading:
    def test_eight_lines_are_enough(self, load, tmp_path):
        assert len(SMALLEST.splitlines()) == 8
        spec = load(SMALLEST)
        (view,) = spec.views
        assert view.name == "airport_weather"
        assert spec.publish.keys == ("origin",)
        assert (spec.publish.created, spec.publish.partition) == (None, "month")
        assert spec.extract.files == str(tmp_path / "weather/*.parquet")
        assert spec.transform.sql == "SELECT * FROM extracted"
        assert (spec.schedule, spec.prepare, spec.feature_store) == (None, None, "feast_default")
        (member,) = spec.services["flight_delay_v1"]
        assert (member.view, member.features, member.alias) == ("airport_weather", None, None)

    def test_every_key_arrives(self, load, tmp_path):
        spec = load(WHOLE)
        assert spec.store == "s3://lake@my-bucket/mlops"
        assert spec.schedule == "15 * * * *"
        assert (spec.extract.late, spec.extract.window) == (timedelta(days=2), "interval")
        assert spec.transform.tables == {
            "airports": str(tmp_path / "data/airports.parquet"),
            "zones": "s3://bucket/zones.parquet",
        }
        weather, stations = spec.views
        assert weather.features == {"temp": "float64", "codes": "list[string]"}
        assert (weather.ttl, weather.online) == (timedelta(hours=3), True)
        assert stations.join_keys == ("station",)
        assert stations.entities["place"].type == "int64"
        leg = spec.services["flight_delay_v1"][2]
        assert (leg.view, leg.features, leg.join_keys, leg.alias) == (
            "last_leg",
            ("late",),
            {"tailnum": "plane"},
            "leg",
        )
        assert (spec.materialize, spec.retries, spec.source_text) == (False, 5, WHOLE)

    def test_its_json_form_loads_again_as_the_same(self, load):
        spec = load(WHOLE)
        assert load(yaml.safe_dump(spec.to_json())).model_dump() == spec.model_dump()

    def test_an_image_in_place_of_sql(self, load, tmp_path):
        spec = load(SMALLEST + "prepare: {process: {directory: code, command: [python, m.py]}}\n")
        assert (spec.prepare.run_on, spec.prepare.process.directory) == ("process", str(tmp_path / "code"))
        assert load(SMALLEST + 'prepare: {image: "f:1"}\n').prepare.run_on == "docker"

    def test_files_below_a_bucket(self, load):
        assert load(SMALLEST + "folder: s3://b/in\n").extract.files == "s3://b/in/weather/*.parquet"

    def test_which_kind_a_file_is(self, tmp_path):
        (tmp_path / "a.yaml").write_text(MINIMAL + "store: /s\n")
        (tmp_path / "f.yaml").write_text(SMALLEST)
        assert load_spec(tmp_path / "a.yaml").application == "tiny"
        assert load_spec(tmp_path / "f.yaml").features == "airport_weather"
        with pytest.raises(SpecFileError, match="is not what was asked for: a file of features:"):
            load_features(tmp_path / "a.yaml")
        with pytest.raises(SpecFileError, match="is not what was asked for: a file of application:"):
            load_application(tmp_path / "f.yaml")

    def test_the_shipped_examples_load(self):
        for file in sorted((ROOT / "dags/features").glob("*.yaml")):
            if file.name != "defaults.yaml":
                assert load_features(file).features == file.stem


class TestDefaults:
    def test_one_file_serves_applications_and_features(self, tmp_path):
        """Each takes the keys of its kind; what neither knows is an error for both."""
        (tmp_path / "features").mkdir()
        (tmp_path / "applications").mkdir()
        (tmp_path / "defaults.yaml").write_text(
            "store: shared\nowner: us\nfeature_store: feast_eu\nfolder: in\n"
            "training: {seed: 5}\nprovisioning: {feature_store: feast_eu}\nretries: 7\n"
        )
        (tmp_path / "features" / "f.yaml").write_text(SMALLEST.replace("store: /s\n", ""))
        (tmp_path / "applications" / "a.yaml").write_text(MINIMAL)
        features = load_features(tmp_path / "features" / "f.yaml")
        application = load_application(tmp_path / "applications" / "a.yaml")
        assert features.store == application.store == str(tmp_path / "shared")
        assert (features.owner, features.feature_store, features.retries) == ("us", "feast_eu", 7)
        assert features.extract.files == str(tmp_path / "in/weather/*.parquet")
        assert (application.training.seed, application.provisioning.feature_store) == (5, "feast_eu")

        (tmp_path / "defaults.yaml").write_text("store: shared\nretires: 7\n")
        _, errors = load_folder(tmp_path)
        assert [(error.path.name, error.problems[0].key) for error in errors] == [
            ("a.yaml", "retires"),
            ("f.yaml", "retires"),
        ]

    def test_a_name_cannot_be_a_default(self, tmp_path):
        (tmp_path / "f.yaml").write_text(SMALLEST)
        (tmp_path / "defaults.yaml").write_text("features: x\n")
        with pytest.raises(SpecFileError, match=r"defaults\.yaml:1:1: features is the name of one file"):
            load_features(tmp_path / "f.yaml")


class TestMistakes:
    @pytest.mark.parametrize(
        ("old", "new", "line", "key", "what"),
        [
            ("publish:", "publsh:", 4, "publsh", "is not a known key"),
            ("timestamp: time", "timestmp: time", 4, "publish.timestmp", "is not a known key"),
            ("float64}", "float63}", 7, "views[0].features.wind_speed", "is none of the known words"),
            ("origin: string", "origin: text", 6, "views[0].entities.origin", "is none of the known words"),
            ("origin: string", "origin: {kind: string}", 6, "views[0].entities.origin.kind", "is not a known key"),
            ("origin: string", "'9 x': string", 6, "views[0].entities.9 x", "is not well-formed"),
            ("temp: float64", "origin: string", 7, "views[0].features.origin", "is also the join key"),
            ("timestamp: time", "timestamp: temp", 4, "publish.timestamp", "names temp, which the view"),
            ("timestamp: time", "timestamp: origin", 4, "publish.timestamp", "which the view airport_weather has as a join key"),
            ("time}", "time, created: time}", 4, "publish.created", "which is also the timestamp"),
            ("time}", "time, keys: [time, origin]}", 4, "publish.keys", "which is also the timestamp"),
            ("time}", "time, keys: [dest]}", 4, "publish.keys", "lacks origin"),
            ("[airport_weather]", "[]", 8, "services.flight_delay_v1", "is too short"),
            ("[airport_weather]", "[airport_weather, airport_weather]", 8, "services.flight_delay_v1[1]", "has airport_weather twice"),
            ("[airport_weather]", "[9]", 8, "services.flight_delay_v1[0]", "is of the wrong kind"),
            ("[airport_weather]", "['9 x']", 8, "services.flight_delay_v1[0]", "is not well-formed"),
            ("[airport_weather]", "[{vew: x}]", 8, "services.flight_delay_v1[0].vew", "is not a known key"),
            ("[airport_weather]", "[{view: airport_weather, features: [temp, tmp]}]", 8, "services.flight_delay_v1[0].features[1]", "is no feature of the view"),
            ("[airport_weather]", "[{view: airport_weather, join_keys: {dest: o}}]", 8, "services.flight_delay_v1[0].join_keys.dest", "is no join key of the view"),
            ("{files: weather/*.parquet}", "{}", 3, "extract", "names no source"),
            ("{files: weather/*.parquet}", "{files: a, http: {endpoint: b}}", 3, "extract", "names 2 sources"),
            ("{files: weather/*.parquet}", "{connection: a}", 3, "extract", "has connection without sql"),
            ("{files: weather/*.parquet}", "{sql: SELECT 1}", 3, "extract", "has sql without connection"),
            ("{files: weather/*.parquet}", "{connection: a, sql: 'SELECT :until'}", 3, "extract.sql", "has :until, and no watermark"),
            ("*.parquet}", "*.parquet, late: 2d}", 3, "extract.late", "needs a watermark"),
            ("*.parquet}", "*.parquet, watermark: at, late: 2}", 3, "extract.late", "is not a duration"),
            ("*.parquet}", "*.parquet, watermark: at, window: interval}", 3, "extract.window", "the schedule has no intervals"),
            ("*.parquet}", "*.parquet, window: interval}", 3, "extract.window", "nothing says which rows"),
            ("store: /s", "store: gs://b", 2, "store", "uses gs://"),
            ("store: /s", "store: s3://B_", 2, "store", "is not the address of a bucket"),
            ("store: /s", "store: /s\nprepare: {}", 3, "prepare", "names no code"),
            ("store: /s", "store: /s\ntransform: {tables: {Extracted: x}}", 3, "transform.tables", "names a table extracted"),
            ("store: /s", "store: /s\ntransform: {sql: SELECT 1}\nprepare: {image: 'a:1'}", 4, "prepare", "stands beside transform"),
            ("features: airport_weather", "features: Airport", 1, "features", "is not well-formed"),
            ("features: airport_weather", "features: a\napplication: b", 2, "application", "is not a known key"),
        ],
    )  # fmt: skip
    def test_each_is_told_at_its_place(self, wrong, old, new, line, key, what):
        problems = wrong(changed(old, new))
        assert [(one.place.line, one.key) for one in problems if what in one.what] == [(line, key)], problems

    def test_a_cast_is_no_bound_of_the_window(self, load):
        sql = "{connection: a, sql: 'SELECT x::until, y::after'}"
        assert load(changed("{files: weather/*.parquet}", sql)).extract.watermark is None

    def test_the_word_that_was_meant(self, wrong):
        (problem,) = wrong(changed("float64}", "flaot64}"))
        assert (problem.nearest, problem.got) == ("float64", "the text 'flaot64'")
        (problem,) = wrong(changed("origin: string", "origin: strin"))
        assert (problem.nearest, problem.cure) == ("string", "write string")

    def test_a_file_without_its_name_is_known_by_its_other_keys(self, wrong):
        (unknown,) = wrong(changed("features: airport", "featurs: airport"))
        assert (unknown.key, unknown.nearest) == ("featurs", "features")
        missing = wrong(changed("features: airport_weather\n", ""))[0]
        assert (missing.key, missing.what) == ("features", "is missing")
        assert "defaults.yaml" not in missing.cure

    @pytest.mark.parametrize("second", ["", "name: weather, "])
    def test_several_views_have_names_of_their_own(self, wrong, second):
        problems = wrong(
            changed("  - entities", f"  - {{name: weather, entities: {{a: string}}, features: {{b: bool}}}}\n  - {second and 'name: weather'}\n    entities")
        )  # fmt: skip
        assert any(one.key.startswith("views[1]") and "name" in one.what for one in problems)

    @pytest.mark.parametrize(
        "rule", ["no_duplicates_across_splits: true", "groups_stay_together: [a]", "max_target_leakage: 0.9"]
    )
    def test_rules_about_datasets_belong_to_applications(self, wrong, rule):
        (problem,) = wrong(SMALLEST + f"assumptions: [{{min_rows: 1}}, {{{rule}}}]\n")
        name = rule.partition(":")[0]
        assert name in _OF_DATASETS
        assert problem.key == f"assumptions[1].{name}"
        assert "provisioning.assumptions" in problem.cure


@pytest.fixture(scope="module")
def validator():
    import jsonschema

    schema = json_schema("features")
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


class TestJsonSchema:
    @pytest.mark.parametrize("text", [SMALLEST, WHOLE, SMALLEST.replace("store: /s\n", "")])
    def test_it_accepts_what_the_loader_accepts(self, validator, text):
        validator.validate(plain(text))

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("owner:", "ower:"),
            ("temp: float64", "temp: float63"),
            ("origin: string", "origin: text"),
            ("{join_key: station, type: int64}", "{join_key: station}"),
            ("{view: last_leg, ", "{"),
            ("ttl: 3h", "ttl: 3"),
            ("partition: day", "partition: hour"),
        ],
    )
    def test_it_refuses_mistakes(self, validator, old, new):
        assert not validator.is_valid(plain(changed(old, new, WHOLE)))

    def test_every_key_is_described_and_in_the_reference(self):
        described = keys("features")
        assert [key for key, meaning in described.items() if not meaning] == []
        assert {"features", "services.<name>[].view", "views[].entities.<name>.type"} <= set(described)
        text = markdown()
        assert all(f"`{key.rpartition('.')[2]}`" in text for key in described)


TREE = plain(WHOLE)


class TestAnyMutation:
    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        path=st.sampled_from(list(_paths(TREE))),
        change=st.sampled_from(["drop", "rename", "replace"]),
        value=VALUES,
        key=KEYS,
    )
    def test_of_a_good_file_loads_or_is_a_spec_error(self, tmp_path, path, change, value, key):
        file = tmp_path / "f.yaml"
        new = key if change == "rename" else value
        text = yaml.dump(mutate(TREE, list(path), change, new), Dumper=DUMPER)
        file.write_text(text, encoding="utf-8", errors="replace")
        for problem in problems_or_none(file, load_spec):
            assert 1 <= problem.place.line <= text.count("\n") + 1
            assert problem.what
            assert problem.cure


def test_a_schedule_of_assets(load):
    spec = load(SMALLEST + "schedule: {assets: [flights_scheduled]}\n")
    assert spec.schedule == AssetSchedule(assets=("flights_scheduled",))
