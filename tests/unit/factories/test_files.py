"""From a stub to the DAGs of the YAML beside it."""

from __future__ import annotations

import pytest

from airflow_mlops.exceptions import SpecError
from airflow_mlops.factories import application_dags
from tests.unit.factories.samples import write


def stub(folder, name="tiny"):
    return str(folder / f"{name}.py")


def test_the_dags_are_those_of_the_yaml_beside_it(tmp_path):
    write(tmp_path)
    assert set(application_dags(stub(tmp_path))) == {"tiny__provisioning", "tiny__training"}


def test_the_name_of_the_file_is_free(tmp_path):
    write(tmp_path, application="other")
    assert "other__training" in application_dags(stub(tmp_path))


def test_yml_is_yaml(tmp_path):
    write(tmp_path).rename(tmp_path / "tiny.yml")
    assert "tiny__training" in application_dags(stub(tmp_path))


def test_a_stub_without_a_yaml_says_how_to_get_rid_of_it(tmp_path):
    with pytest.raises(SpecError, match=rf"no YAML.*airflow-mlops generate {tmp_path}"):
        application_dags(stub(tmp_path))


def test_an_error_names_file_and_line(tmp_path):
    write(tmp_path, trainng={})
    with pytest.raises(SpecError, match=r"tiny\.yaml:\d+"):
        application_dags(stub(tmp_path))


@pytest.mark.parametrize(
    "twin",
    [
        "application: tiny\n",
        "application: 'tiny'   # a comment\n",
        '{"application": "tiny"}',
        "# first a comment\n\napplication: tiny\r\n",
    ],
)
def test_two_of_one_name_are_both_refused_each_naming_the_other(tmp_path, twin):
    write(tmp_path)
    (tmp_path / "twin.yml").write_text(twin)
    with pytest.raises(SpecError, match=r"tiny\.yaml.*twin\.yml.*Cure"):
        application_dags(stub(tmp_path))


@pytest.mark.parametrize(
    "other",
    ["application: tiny_2\n", "# application: tiny\n", "description: application tiny\n", "\x00\xff", ""],
)
def test_what_only_looks_alike_stops_nobody(tmp_path, other):
    write(tmp_path)
    (tmp_path / "other.yaml").write_text(other, encoding="latin-1")
    assert "tiny__training" in application_dags(stub(tmp_path))


def test_the_word_in_another_applications_text_stops_nobody(tmp_path):
    """A parameter or a line of SQL may well be called application."""
    write(tmp_path)
    (tmp_path / "other.yaml").write_text(
        "application: other\ntraining:\n  parameters:\n    application: tiny\n"
    )
    assert "tiny__training" in application_dags(stub(tmp_path))


def test_twins_in_different_folders_see_each_other(tmp_path):
    """As `airflow-mlops validate` does, which looks at all folders below."""
    for team in ("red", "blue"):
        (tmp_path / "applications" / team).mkdir(parents=True)
        write(tmp_path / "applications" / team)
    for team, other in (("red", "blue"), ("blue", "red")):
        with pytest.raises(SpecError, match=rf"{other}/tiny\.yaml\. Cure"):
            application_dags(stub(tmp_path / "applications" / team))


def test_a_twin_may_lie_in_the_folder_of_features(tmp_path):
    (tmp_path / "applications" / "deep").mkdir(parents=True)
    (tmp_path / "features").mkdir()
    write(tmp_path / "applications" / "deep")
    write(tmp_path / "features", "copy", application="tiny")
    with pytest.raises(SpecError, match=r"features/copy\.yaml"):
        application_dags(stub(tmp_path / "applications" / "deep"))


def test_a_feature_pipeline_of_the_same_name_is_no_twin(tmp_path):
    write(tmp_path)
    (tmp_path / "other.yaml").write_text("features: tiny\n")
    assert "tiny__training" in application_dags(stub(tmp_path))
