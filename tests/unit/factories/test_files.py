"""From a stub to the DAGs of the YAML beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from airflow_mlops.exceptions import SpecError
from airflow_mlops.factories import application_dags
from airflow_mlops.factories.stubs import write_stubs
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


class TestTwins:
    def model(self, folder, name, application, model):
        return write(folder, name, application=application, registration={"model": model})

    @pytest.mark.parametrize("model", ["other", "shared"])
    def test_one_registered_model_of_two_applications_is_refused_for_both(self, tmp_path, model):
        write(tmp_path, "other", application="other") if model == "other" else self.model(
            tmp_path, "other", "other", model
        )
        self.model(tmp_path, "tiny", "tiny", model)
        write_stubs(tmp_path)
        for name, twin in (("tiny", "other"), ("other", "tiny")):
            words = rf"{name}\.yaml: registration\.model: {model} is also the registered model in {twin}\.yaml\. Cure"
            with pytest.raises(SpecError, match=words):
                application_dags(stub(tmp_path, name))

    @pytest.mark.parametrize(
        "said",
        [
            "model:\n    shared",
            "model: >-\n    shared",
            "model: &name shared",
            "model: !!str shared",
            'model: "sh\\x61red"',
            '"mod\\x65l": shared',
            "? model\n  : shared",
        ],
    )
    @pytest.mark.parametrize("file", ["tiny", "defaults"])
    def test_a_model_counts_however_yaml_says_it(self, tmp_path, said, file):
        path = write(tmp_path)
        path.write_text(yaml.safe_dump(json.loads(path.read_text())))
        with (tmp_path / f"{file}.yaml").open("a") as content:
            content.write(f"registration:\n  {said}\n")
        self.model(tmp_path, "other", "other", "shared")
        write_stubs(tmp_path)
        for name in ("tiny", "other"):
            with pytest.raises(SpecError, match="shared is also the registered model"):
                application_dags(stub(tmp_path, name))

    @pytest.mark.parametrize(
        "said", ["application:\n  tiny", "application: !!str tiny", "--- {application: tiny}"]
    )
    def test_an_application_counts_however_yaml_says_it(self, tmp_path, said):
        write(tmp_path)
        (tmp_path / "other.yaml").write_text(f"{said}\n")
        write_stubs(tmp_path)
        with pytest.raises(SpecError, match="tiny is also the name in other"):
            application_dags(stub(tmp_path))

    def test_the_model_of_the_defaults_counts(self, tmp_path):
        for name in ("one", "two"):
            write(tmp_path, name, application=name)
        (tmp_path / "defaults.yaml").write_text("registration: {model: shared}\n")
        write_stubs(tmp_path)
        with pytest.raises(SpecError, match="shared is also the registered model"):
            application_dags(stub(tmp_path, "one"))

    def test_one_that_was_mended_since_its_stub_was_written_is_let_through(self, tmp_path):
        self.model(tmp_path, "tiny", "tiny", "shared")
        self.model(tmp_path, "other", "other", "shared")
        write_stubs(tmp_path)
        self.model(tmp_path, "other", "other", "its_own")
        assert "tiny__training" in application_dags(stub(tmp_path))
        write_stubs(tmp_path)
        assert "shares" not in (tmp_path / "tiny.py").read_text()

    def test_a_name_deep_in_another_file_is_none(self, tmp_path):
        write(tmp_path)
        write(
            tmp_path,
            "other",
            application="other",
            training={"parameters": {"application": "tiny", "model": "tiny"}},
        )
        write_stubs(tmp_path)
        assert "tiny__training" in application_dags(stub(tmp_path))

    def test_a_parse_reads_no_file_but_its_own(self, tmp_path, monkeypatch):
        """Among a thousand it costs what it costs alone."""
        for number in range(20):
            write(tmp_path, f"a{number}", application=f"a{number}")
        write_stubs(tmp_path)
        read, scanned = [], []
        real = Path.open
        monkeypatch.setattr(
            Path, "open", lambda path, *a, **k: (read.append(path.name), real(path, *a, **k))[1]
        )
        monkeypatch.setattr(Path, "rglob", lambda path, *_: scanned.append(path) or [])
        application_dags(stub(tmp_path, "a7"))
        assert not scanned
        assert set(read) <= {"a7.yaml", "a7.py", "defaults.yaml"}
