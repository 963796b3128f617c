"""The layout: small rooms, small files, tests that lie where the code lies, and pointers that lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.fixtures.markdown import ROOT

PACKAGE = ROOT / "airflow_mlops"
UNIT = ROOT / "tests/unit"
#: Entries of one folder that a reader takes in at a glance.
ENTRIES = 15
#: The rooms themselves, see CONTRIBUTING.md.
ROOMS = 20
LINES = 450


def folders() -> list[Path]:
    """Every folder of Python modules; the template of ``init`` is another project."""
    return sorted({file.parent for file in PACKAGE.rglob("*.py")})


def entries(folder: Path) -> list[str]:
    """Modules, packages and data of a folder."""
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.name not in ("__init__.py", "__pycache__", "py.typed")
    )


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: folder.relative_to(ROOT).as_posix())
def test_no_folder_has_more_entries_than_one_takes_in(folder):
    assert len(entries(folder)) <= (ROOMS if folder == PACKAGE else ENTRIES), entries(folder)


def test_no_module_is_too_long():
    long = {
        file.relative_to(ROOT).as_posix(): count
        for file in PACKAGE.rglob("*.py")
        if (count := len(file.read_text().splitlines())) >= LINES
    }
    assert not long


def test_every_package_says_what_it_is_for():
    silent = [
        folder.relative_to(ROOT).as_posix()
        for folder in folders()
        if not (folder / "__init__.py").read_text().lstrip().startswith('"""')
    ]
    assert not silent


def mirrored(test: Path) -> bool:
    """Whether a test lies where its module lies: ``a/test_b.py`` or ``a/test_b_<aspect>.py`` for ``a/b``."""
    room = PACKAGE / test.parent.relative_to(UNIT)
    name = test.stem.removeprefix("test_")
    return room.is_dir() and any(
        name == module or name.startswith(f"{module}_")
        for module in [entry.removesuffix(".py") for entry in entries(room)]
    )


@pytest.mark.parametrize(
    "test", sorted(UNIT.rglob("test_*.py")), ids=lambda test: test.relative_to(UNIT).as_posix()
)
def test_unit_tests_mirror_the_package(test):
    assert mirrored(test), (
        f"{test.relative_to(ROOT)} has no module that it belongs to. Cure: lay it beside its module's place and "
        "begin its name with the module's, such as tests/unit/hooks/docker/test_images_pull.py"
    )


def test_a_test_without_its_module_is_seen():
    assert mirrored(UNIT / "hooks/docker/test_images.py")
    assert mirrored(UNIT / "hooks/docker/test_images_pull.py")
    assert not mirrored(UNIT / "hooks/docker/test_imagespull.py")
    assert not mirrored(UNIT / "hooks/test_images.py")


def pointers() -> list[tuple[str, str]]:
    """Paths of modules that comments, docstrings and pages name: ``hooks/docker/hook.py``."""
    rooms = "|".join(entry.removesuffix(".py") for entry in entries(PACKAGE))
    files = [
        ROOT / "pyproject.toml",
        ROOT / "CONTRIBUTING.md",
        *PACKAGE.rglob("*.py"),
        *(ROOT / "docs").rglob("*.md"),
    ]
    return sorted(
        {
            (file.relative_to(ROOT).as_posix(), path)
            for file in files
            if "adr" not in file.parts and "template" not in file.parts
            for path in re.findall(
                rf"(?<![\w/.])(?:airflow_mlops/)?((?:{rooms})(?:/\w+)*\.py)\b", file.read_text()
            )
        }
    )


def test_a_module_that_is_named_is_there():
    lost = [
        (file, path)
        for file, path in pointers()
        if not (PACKAGE / path).is_file() and not (ROOT / path).is_file()
    ]
    assert not lost
    assert len(pointers()) > 10
