from __future__ import annotations

import pytest

from airflow_mlops.spec import SpecFileError, load_application, load_folder
from tests.unit.spec.samples import DEFAULTS, MINIMAL


@pytest.fixture
def folder(tmp_path):
    """``apps/team/tiny.yaml`` with defaults in ``apps``; nothing above applies."""
    team = tmp_path / "apps" / "team"
    team.mkdir(parents=True)
    (team / "tiny.yaml").write_text(MINIMAL)
    (tmp_path / "apps" / "defaults.yaml").write_text(DEFAULTS)
    return team


def test_the_nearest_defaults_win_key_by_key_and_the_file_wins_over_all(folder):
    parent = (
        "store: /parent\nowner: parent\ntraining: {seed: 1, resources: {memory: 1g, pids: 9}}\ntags: [a, b]\n"
    )
    (folder.parent / "defaults.yaml").write_text(parent)
    (folder / "defaults.yaml").write_text("owner: own\ntraining: {resources: {memory: 2g}}\ntags: [c]\n")
    (folder / "tiny.yaml").write_text(MINIMAL + "training: {resources: {cpus: 3}}\n")
    spec = load_application(folder / "tiny.yaml")
    assert (spec.owner, spec.store, spec.tags) == ("own", "/parent", ("c",))
    assert spec.training.seed == 1
    resources = spec.training.resources
    assert (resources.cpus, resources.memory, resources.pids) == (3, 2 * 1024**3, 9)


def test_a_schedule_replaces_a_schedule_of_another_kind(folder):
    (folder / "defaults.yaml").write_text("store: /s\nmonitoring: {schedule: {assets: [x]}}\n")
    (folder / "tiny.yaml").write_text(MINIMAL + 'monitoring: {schedule: "@daily"}\n')
    assert load_application(folder / "tiny.yaml").monitoring.schedule == "@daily"


def test_paths_are_seen_from_the_file_that_names_them(folder):
    spec = load_application(folder / "tiny.yaml")
    assert spec.store == str(folder.parent.parent / "store")
    assert spec.provisioning.examples.folder == str(folder)
    (folder.parent / "defaults.yaml").write_text(DEFAULTS + "provisioning: {examples: {folder: data}}\n")
    assert load_application(folder / "tiny.yaml").provisioning.examples.folder == str(folder.parent / "data")


def test_a_folder_without_defaults_ends_the_search(folder):
    deep = folder / "deep"
    deep.mkdir()
    (deep / "tiny.yaml").write_text(MINIMAL)
    with pytest.raises(SpecFileError, match="store is missing"):
        load_application(deep / "tiny.yaml")
    (folder / "defaults.yaml").write_text("")
    assert load_application(deep / "tiny.yaml").tracking.connection == "mlflow_shared"


def test_problems_in_the_defaults_have_their_own_place(folder):
    defaults = folder.parent / "defaults.yaml"
    defaults.write_text(DEFAULTS + "training:\n  sed: 7\n  timeout: 5\n")
    with pytest.raises(SpecFileError) as caught:
        load_application(folder / "tiny.yaml")
    found = [(one.place.file, one.place.line, one.key, one.nearest) for one in caught.value.problems]
    assert found == [(defaults, 4, "training.sed", "seed"), (defaults, 5, "training.timeout", "")]


def test_broken_defaults_are_reported_beside_the_file_s_own_problems(folder):
    (folder.parent / "defaults.yaml").write_text("store: [")
    (folder / "tiny.yaml").write_text(MINIMAL.replace("keys: [id]", "kees: [id]") + "store: /s\n")
    with pytest.raises(SpecFileError) as caught:
        load_application(folder / "tiny.yaml")
    assert [one.place.file.name for one in caught.value.problems] == ["tiny.yaml", "defaults.yaml"]


@pytest.mark.parametrize("text", ["application: x\nstore: /s\n", "- a\n", "\ta: 1\n"])
def test_what_cannot_be_a_default(folder, text):
    (folder.parent / "defaults.yaml").write_text(text)
    with pytest.raises(SpecFileError) as caught:
        load_application(folder / "tiny.yaml")
    assert "defaults.yaml" in {one.place.file.name for one in caught.value.problems}


@pytest.mark.parametrize("text", ["", "# later\n"])
def test_empty_defaults_are_fine(folder, text):
    (folder / "defaults.yaml").write_text(text)
    assert load_application(folder / "tiny.yaml").tracking.connection == "mlflow_shared"


def test_defaults_are_read_by_either_ending(folder):
    (folder.parent / "defaults.yaml").rename(folder.parent / "defaults.yml")
    assert load_application(folder / "tiny.yaml").tracking.connection == "mlflow_shared"
    loaded, errors = load_folder(folder.parent)
    assert [one.name for one in loaded] == ["tiny"]
    assert errors == []


def test_two_files_of_defaults_in_one_folder_are_an_error(folder):
    (folder.parent / "defaults.yml").write_text("owner: another\n")
    with pytest.raises(SpecFileError) as caught:
        load_application(folder / "tiny.yaml")
    (problem,) = caught.value.problems
    assert problem.place.file == folder.parent / "defaults.yml"
    assert "defaults.yaml" in problem.what
    assert "remove" in problem.cure


def test_a_file_that_is_called_almost_so_says_the_right_name(folder):
    (folder / "Defaults.yaml").write_text("owner: another\n")
    _, (error,) = load_folder(folder)
    (problem,) = error.problems
    assert problem.cure == "rename it defaults.yaml"
