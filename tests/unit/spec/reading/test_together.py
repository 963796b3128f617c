"""What fits between the files of a folder, and what does not."""

from __future__ import annotations

import pytest

from airflow_mlops.spec import doubts, load_folder
from tests.unit.spec.features.test_pipeline import SMALLEST
from tests.unit.spec.samples import MINIMAL


@pytest.fixture
def load(tmp_path):
    """Load a folder of files given by name; errors as ``{file: [problem]}``."""

    def load(**files: str):
        for name, text in files.items():
            path = tmp_path / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        loaded, errors = load_folder(tmp_path)
        return loaded, {error.path.stem: list(error.problems) for error in errors}

    return load


PLANES = """\
features: planes
store: /s
extract: {files: planes/*.parquet}
publish: {timestamp: time}
views:
  - entities: {tailnum: string}
    features: {seats: int64}
"""


def application(**replaced: str) -> str:
    text = MINIMAL + "store: /s\n"
    for old, new in replaced.items():
        text = text.replace(old, new)
    return text


def test_an_application_and_the_pipelines_that_it_uses(load):
    loaded, errors = load(
        features__weather=SMALLEST,
        features__planes=PLANES,
        applications__tiny=application(tiny_v1="flight_delay_v1")
        + "monitoring: {schedule: {assets: [airport_weather.features]}}\n",
    )
    assert errors == {}
    assert [(one.kind, one.name) for one in loaded] == [
        ("application", "tiny"),
        ("features", "planes"),
        ("features", "airport_weather"),
    ]
    assert doubts(loaded) == []


def test_an_application_and_a_pipeline_may_have_one_name(load):
    loaded, errors = load(a=application(), b=PLANES.replace("features: planes", "features: tiny"))
    assert (len(loaded), errors) == (2, {})


def test_two_pipelines_of_one_name_in_different_folders(load):
    loaded, errors = load(one__planes=PLANES, two__planes2="# copied\n" + PLANES)
    assert loaded == []
    (problem,) = errors["planes2"]
    assert (problem.place.line, problem.key) == (2, "features")
    assert "another feature pipeline" in problem.what
    assert "one/planes.yaml" in problem.what


def test_a_view_that_two_pipelines_define(load):
    other = PLANES.replace("features: planes", "features: fleet").replace(
        "- entities", "- name: planes\n    entities"
    )
    loaded, errors = load(planes=PLANES, fleet=other)
    assert loaded == []
    (problem,) = errors["fleet"]
    assert (problem.place.line, problem.key) == (6, "views[0]")
    assert "defines the view planes otherwise than" in problem.what
    assert "planes.yaml" in problem.what
    assert errors["planes"][0].cure


def test_a_service_that_two_pipelines_define(load):
    _, errors = load(a=SMALLEST, b=PLANES + "services: {flight_delay_v1: [planes]}\n")
    assert {problem.key for problems in errors.values() for problem in problems} == {
        "services.flight_delay_v1"
    }
    assert set(errors) == {"a", "b"}


def test_an_entity_may_be_shared_as_long_as_it_is_the_same(load):
    gates = SMALLEST.replace("airport_weather", "gates").replace("flight_delay_v1", "gates_v1")
    assert load(a=SMALLEST, b=gates)[1] == {}
    _, errors = load(b=gates.replace("origin: string", "origin: int64"))
    assert [problem.key for problem in errors["b"]] == ["views[0].entities.origin"]


def test_one_bad_pair_does_not_keep_back_the_others(load):
    gates = SMALLEST.replace("airport_weather", "gates")
    loaded, errors = load(a=SMALLEST, b=gates, c=PLANES)
    assert [one.name for one in loaded] == ["planes"]
    assert set(errors) == {"a", "b"}


def test_a_view_that_nobody_defines_may_be_in_the_registry(load):
    loaded, errors = load(a=SMALLEST.replace("[airport_weather]", "[airport_weather, airport_wether]"))
    assert errors == {}
    (doubt,) = doubts(loaded)
    assert (doubt.place.line, doubt.key) == (8, "services.flight_delay_v1[1]")
    assert "airport_wether" in doubt.what
    assert "known here: airport_weather" in doubt.cure


def test_an_asset_that_no_pipeline_makes_may_be_kept_elsewhere(load):
    schedule = "monitoring: {schedule: {assets: [%s]}}\n"
    loaded, _ = load(a=SMALLEST, t=application() + schedule % "airport_wether.features")
    (doubt,) = doubts(loaded)
    assert (doubt.place.file.stem, doubt.place.line, doubt.key) == ("t", 11, "monitoring.schedule")
    loaded, _ = load(t=application() + schedule % "somebody_elses")
    assert doubts(loaded) == []


@pytest.mark.parametrize("one", ["", "registration: {model: two}\n", "registration: {model: shared}\n"])
def test_one_registered_model_of_two_applications_is_an_error_of_both(load, one):
    shared = "shared" if "shared" in one else "two" if one else "one"
    second = application(tiny="two") + f"registration: {{model: {shared}}}\n"
    _, errors = load(one=application(tiny="one") + one, two=second)
    assert set(errors) == {"one", "two"}
    for name, other in (("one", "two"), ("two", "one")):
        (problem,) = errors[name]
        assert problem.key == "registration.model"
        assert f"registered model of {other}" in str(problem)
        assert "Cure" in str(problem) or problem.cure
