"""YAML file → :class:`ApplicationSpec`, or every problem of the file at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from os.path import normpath
from pathlib import Path

from pydantic import ValidationError

from airflow_mlops.spec.application import ApplicationSpec
from airflow_mlops.spec.defaults import DEFAULTS_FILE, defaults_files, merge, read_defaults
from airflow_mlops.spec.problems import Place, Problem, SpecFileError
from airflow_mlops.spec.syntax import Node, parse, read_text

_PATHS = (("store",), ("code", "process", "directory"), ("provisioning", "examples", "folder"))
_ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True)
class LoadedApplication:
    """An application and where it comes from.

    :param spec: what the file says.
    :param path: the file.
    :param text: the file's content.
    """

    spec: ApplicationSpec
    path: Path
    text: str


def load_application(path: Path | str) -> ApplicationSpec:
    """Load one application's YAML, with the ``defaults.yaml`` of its folder and the folders above it.

    Relative paths (``store``, ``code.process.directory``, ``provisioning.examples.folder``) become absolute,
    seen from the file that names them.

    :param path: the YAML file.
    :raises SpecFileError: with all problems of the file and of its defaults.
    """
    path = Path(normpath(Path(path).absolute()))
    text, problems = read_text(path)
    root: Node | None = None
    if not problems:
        root, problems = parse(text, path)
    for file in reversed(defaults_files(path)):
        node, more = read_defaults(file)
        problems += more
        if root is not None and node is not None:
            root = merge(node, root)
    spec: ApplicationSpec | None = None
    if root is not None:
        spec, more = _build(root, path)
        problems += more
    if problems or spec is None:
        raise SpecFileError(path, problems)
    spec._source_path, spec._source_text = path, text  # noqa: SLF001
    return spec


def load_folder(path: Path | str) -> tuple[list[LoadedApplication], list[SpecFileError]]:
    """Load every application file below a folder; see :func:`application_files` and :func:`load_files`."""
    return load_files(application_files(path))


def load_files(files: Iterable[Path | str]) -> tuple[list[LoadedApplication], list[SpecFileError]]:
    """Load several applications; one broken file does not keep back the others.

    :return: the good applications and one error for each bad file, sorted by file. Two files of one
        application name are both bad.
    """
    errors: list[SpecFileError] = []
    by_name: dict[str, list[LoadedApplication]] = defaultdict(list)
    for file in files:
        try:
            spec = load_application(file)
        except SpecFileError as error:
            errors.append(error)
        else:
            path = spec.source_path or Path(file)
            by_name[spec.application].append(LoadedApplication(spec, path, spec.source_text))
    loaded = [group[0] for group in by_name.values() if len(group) == 1]
    errors += [_twice(name, one, group) for name, group in by_name.items() if len(group) > 1 for one in group]
    return sorted(loaded, key=lambda one: one.path), sorted(errors, key=lambda error: error.path)


def application_files(path: Path | str) -> list[Path]:
    """The application files below a folder, sorted.

    Files and folders that begin with a dot are left out, and so is ``defaults.yaml``.

    :raises SpecFileError: there is no such folder.
    """
    root = Path(normpath(Path(path).absolute()))
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise SpecFileError(
            root, [Problem(Place(root), "", what, "a folder of YAML files", cure="check the path")]
        )
    return sorted(
        file
        for file in root.rglob("*")
        if file.suffix in _ENDINGS
        and file.name != DEFAULTS_FILE
        and not any(part.startswith(".") for part in file.relative_to(root).parts)
        and file.is_file()
    )


def _build(root: Node, path: Path) -> tuple[ApplicationSpec | None, list[Problem]]:
    for keys in _PATHS:
        root = _absolute(root, keys)
    plain = root.plain()
    provisioning = plain.get("provisioning")
    examples = provisioning.get("examples") if isinstance(provisioning, dict) else None
    if isinstance(examples, dict):
        examples.setdefault("folder", str(path.parent))
    try:
        return ApplicationSpec.model_validate(plain), []
    except ValidationError as error:
        from airflow_mlops.spec.explain import explain

        return None, list(
            explain(error.errors(include_url=False, include_input=False), root, ApplicationSpec)
        )


def _absolute(node: Node, keys: tuple[str, ...]) -> Node:
    """The tree with the path at ``keys`` made absolute, seen from the file in which it is written."""
    if not keys:
        text = node.value
        if not isinstance(text, str) or not text.strip() or text.startswith("~") or "://" in text:
            return node
        return replace(node, value=normpath(node.place.file.parent / text))
    if not isinstance(node.value, dict) or keys[0] not in node.value:
        return node
    return replace(node, value={**node.value, keys[0]: _absolute(node.value[keys[0]], keys[1:])})


def _twice(name: str, one: LoadedApplication, group: list[LoadedApplication]) -> SpecFileError:
    root, _ = parse(one.text, one.path)
    node = root.value.get("application") if root is not None else None
    others = ", ".join(str(other.path) for other in group if other is not one)
    problem = Problem(
        node.key if node is not None and node.key else Place(one.path, 1, 1),
        "application",
        f"has the name of another application, in {others}",
        "a name of its own",
        name,
        cure="rename one of them",
    )
    return SpecFileError(one.path, [problem])
