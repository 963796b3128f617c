"""YAML file → :class:`ApplicationSpec` or :class:`FeaturesSpec`, or every problem of the file at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from os.path import normpath
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from airflow_mlops.spec.application import ApplicationSpec
from airflow_mlops.spec.features.pipeline import FeaturesSpec
from airflow_mlops.spec.reading.defaults import (
    DEFAULTS_FILE,
    DEFAULTS_FILES,
    defaults_files,
    merge,
    read_defaults,
)
from airflow_mlops.spec.reading.problems import Place, Problem, SpecFileError
from airflow_mlops.spec.reading.syntax import Node, parse, read_text

__all__ = [
    "LoadedFile",
    "Spec",
    "application_files",
    "load_application",
    "load_features",
    "load_files",
    "load_folder",
    "load_spec",
    "name_problems",
    "stated_names",
]

Spec = ApplicationSpec | FeaturesSpec

_MODELS: dict[str, type[Spec]] = {"application": ApplicationSpec, "features": FeaturesSpec}
_PATHS = {
    "application": (("store",), ("code", "process", "directory"), ("provisioning", "examples", "folder")),
    "features": (("store",), ("folder",), ("prepare", "process", "directory")),
}
_ENDINGS = (".yaml", ".yml")
#: Stems, in lower case, of files that were meant to be defaults.
_ALMOST = {"default", "defaults", ".defaults", "_defaults"}


@dataclass(frozen=True)
class LoadedFile:
    """An application or a feature pipeline, and where it comes from.

    :param spec: what the file says.
    :param path: the file.
    :param text: the file's content.
    """

    spec: Spec
    path: Path
    text: str

    @property
    def kind(self) -> str:
        """``application`` or ``features``: the key that stands for the name."""
        return "features" if isinstance(self.spec, FeaturesSpec) else "application"

    @property
    def name(self) -> str:
        """The name that the file gives."""
        return str(getattr(self.spec, self.kind))

    def place(self, *keys: str | int) -> Place:
        """Where a key stands in the file, or the deepest part of its path that is written there."""
        node, _ = parse(self.text, self.path)
        found = Place(self.path, 1, 1)
        for key in keys:
            if node is None or not _has(node.value, key):
                break
            node = node.value[key]
            found = node.key or node.place
        return found


def _has(value: Any, key: str | int) -> bool:
    return key in value if isinstance(value, dict) else isinstance(value, list) and key in range(len(value))


def load_application(path: Path | str) -> ApplicationSpec:
    """Load one application's YAML, with the ``defaults.yaml`` of its folder and the folders above it.

    Relative paths (``store``, ``code.process.directory``, ``provisioning.examples.folder``) become absolute,
    seen from the file that names them.

    :param path: the YAML file.
    :raises SpecFileError: with all problems of the file and of its defaults.
    """
    spec = _load(path, "application")
    assert isinstance(spec, ApplicationSpec)  # noqa: S101 - for the type checker
    return spec


def load_features(path: Path | str) -> FeaturesSpec:
    """Load one feature pipeline's YAML, with the ``defaults.yaml`` of its folder and the folders above it.

    Relative paths (``store``, ``folder``, ``prepare.process.directory``) become absolute, seen from the file
    that names them; those in ``extract.files`` and ``transform.tables`` are seen from ``folder``.

    :param path: the YAML file.
    :raises SpecFileError: with all problems of the file and of its defaults.
    """
    spec = _load(path, "features")
    assert isinstance(spec, FeaturesSpec)  # noqa: S101 - for the type checker
    return spec


def load_spec(path: Path | str) -> Spec:
    """Load a YAML of either kind: its key ``application`` or ``features`` says which it is.

    :param path: the YAML file.
    :raises SpecFileError: with all problems of the file and of its defaults.
    """
    return _load(path)


def stated_names(path: Path | str) -> set[tuple[str, str]]:
    """The names that must be of one file alone, as its YAML states them, without a look at the rest of it.

    :return: ``("application", name)`` and ``("model", name)`` of the registered model, or ``("features", name)``; empty
        for a file that cannot be read.
    """
    path = Path(normpath(Path(path).absolute()))
    text, problems = read_text(path)
    root = None if problems else parse(text, path)[0]
    if root is None or not isinstance(root.value, dict):
        return set()
    kind, _ = _kind(root, None)
    for file in reversed(defaults_files(path)):
        node, _ = read_defaults(file)
        if node is not None and isinstance(node.value, dict):
            root = merge(_for_kind(node, kind), root)
    plain = root.plain()
    registration = plain.get("registration")
    model = registration.get("model") if isinstance(registration, dict) else None
    name = str(plain.get(kind) or "")
    models = {("model", str(model or name))} if kind == "application" else set()
    return {found for found in {(kind, name)} | models if found[1]}


def _load(path: Path | str, wanted: str | None = None) -> Spec:
    path = Path(normpath(Path(path).absolute()))
    text, problems = read_text(path)
    root: Node | None = None
    if not problems:
        root, problems = parse(text, path)
    problems += name_problems(path)
    kind = wanted or "application"
    if root is not None and path.stem.lower() in _ALMOST and not root.value.keys() & _MODELS.keys():
        what = "names neither an application nor a feature pipeline, and is no file of defaults by its name"
        raise SpecFileError(
            path, [*problems, Problem(Place(path), "", what, cure=f"rename it {DEFAULTS_FILE}")]
        )
    if root is not None:
        kind, more = _kind(root, wanted)
        problems += more
    for file in reversed(defaults_files(path)):
        node, more = read_defaults(file)
        problems += more
        if root is not None and node is not None:
            root = merge(_for_kind(node, kind), root)
    spec: Spec | None = None
    if root is not None:
        spec, more = _build(root, path, kind)
        problems += more
    if problems or spec is None:
        raise SpecFileError(path, problems)
    spec._source_path, spec._source_text = path, text  # noqa: SLF001
    return spec


def _kind(root: Node, wanted: str | None) -> tuple[str, list[Problem]]:
    """What a file describes, by the key that holds its name; without one, by the company of the others."""
    keys = root.value
    named = [kind for kind in _MODELS if kind in keys]
    if wanted is not None:
        other = next((kind for kind in named if kind != wanted), None)
        if other is None or wanted in named:
            return wanted, []
        place = keys[other].key or root.place
        cure = f"name a file that begins with {wanted}:"
        return other, [Problem(place, other, f"is not what was asked for: a file of {wanted}:", cure=cure)]
    if len(named) == 1:
        return named[0], []
    alone = {kind: len(_alone(kind) & keys.keys()) for kind in _MODELS}
    return max(alone, key=lambda kind: (alone[kind], kind == "application")), []


def name_problems(path: Path) -> list[Problem]:
    """What is wrong with a file's name: the Python file beside it has to find it again, and it alone."""
    found = []
    if path.suffix not in _ENDINGS:
        what = f"ends in {path.suffix}, under which no DAG would look for it"
        found.append(Problem(Place(path), "", what, cure=f"rename it {path.with_suffix('.yaml').name}"))
    for twin in (path.with_suffix(ending) for ending in _ENDINGS if ending != path.suffix):
        if twin.is_file():
            what = f"stands beside {twin.name}: both would become {path.with_suffix('.py').name}, and one be lost"
            found.append(Problem(Place(path), "", what, cure="rename or remove one of them"))
    return found


def _alone(kind: str) -> set[str]:
    """Top-level keys that only this kind of file has."""
    (other,) = (model for name, model in _MODELS.items() if name != kind)
    return _MODELS[kind].model_fields.keys() - other.model_fields.keys() - _MODELS.keys()


def _for_kind(defaults: Node, kind: str) -> Node:
    """Defaults without the keys that only concern the other kind of file: one ``defaults.yaml`` serves both."""
    (other,) = (name for name in _MODELS if name != kind)
    theirs = _alone(other)
    return replace(defaults, value={key: node for key, node in defaults.value.items() if key not in theirs})


def load_folder(path: Path | str) -> tuple[list[LoadedFile], list[SpecFileError]]:
    """Load every YAML file below a folder; see :func:`application_files` and :func:`load_files`."""
    return load_files(application_files(path))


def load_files(files: Iterable[Path | str]) -> tuple[list[LoadedFile], list[SpecFileError]]:
    """Load several applications and feature pipelines; one broken file does not keep back the others.

    :return: what is good and one error for each bad file, sorted by file. Two files of one kind and name are
        both bad; so are two pipelines that define the same view, service or entity in different ways.
    """
    from airflow_mlops.spec.reading.together import clashes

    errors: list[SpecFileError] = []
    by_name: dict[tuple[str, str], list[LoadedFile]] = defaultdict(list)
    for file in files:
        try:
            spec = load_spec(file)
        except SpecFileError as error:
            errors.append(error)
        else:
            one = LoadedFile(spec, spec.source_path or Path(file), spec.source_text)
            by_name[one.kind, one.name].append(one)
    loaded = [group[0] for group in by_name.values() if len(group) == 1]
    errors += [_twice(one, group) for group in by_name.values() if len(group) > 1 for one in group]
    at_odds = clashes(loaded)
    errors += [SpecFileError(path, problems) for path, problems in at_odds.items()]
    loaded = [one for one in loaded if one.path not in at_odds]
    return sorted(loaded, key=lambda one: one.path), sorted(errors, key=lambda error: error.path)


def application_files(path: Path | str) -> list[Path]:
    """The YAML files of applications and feature pipelines below a folder, sorted.

    Files and folders that begin with a dot are left out, and so are files of defaults.

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
        if file.suffix.lower() in _ENDINGS
        and file.name not in DEFAULTS_FILES
        and not any(part.startswith(".") for part in file.relative_to(root).parts)
        and file.is_file()
    )


def _build(root: Node, path: Path, kind: str) -> tuple[Spec | None, list[Problem]]:
    for keys in _PATHS[kind]:
        root = _absolute(root, keys)
    plain, model = root.plain(), _MODELS[kind]
    if kind == "features":
        _below_folder(plain, path)
    else:
        provisioning = plain.get("provisioning")
        examples = provisioning.get("examples") if isinstance(provisioning, dict) else None
        if isinstance(examples, dict):
            examples.setdefault("folder", str(path.parent))
    try:
        return model.model_validate(plain), []
    except ValidationError as error:
        from airflow_mlops.spec.reading.explain import explain

        return None, list(explain(error.errors(include_url=False, include_input=False), root, model))


def _below_folder(plain: dict[str, Any], path: Path) -> None:
    """Make the relative paths of a feature pipeline absolute, seen from its ``folder``."""
    folder = plain.setdefault("folder", str(path.parent))
    extract, transform = plain.get("extract"), plain.get("transform")
    tables = transform.get("tables") if isinstance(transform, dict) else None
    owned = [(extract, ("files",)), (tables, tuple(tables) if isinstance(tables, dict) else ())]
    rules = plain.get("assumptions")
    owned += [
        (rule.get("found_in"), ("parquet", "csv"))
        for rule in (rules if isinstance(rules, list) else ())
        if isinstance(rule, dict)
    ]
    for owner, keys in owned:
        if isinstance(owner, dict) and isinstance(folder, str):
            owner.update({key: _seen_from(folder, owner[key]) for key in keys if key in owner})


def _seen_from(folder: str, text: Any) -> Any:
    if not isinstance(text, str) or not text.strip() or text.startswith(("/", "~")) or "://" in text:
        return text
    return f"{folder.rstrip('/')}/{text}" if "://" in folder else normpath(Path(folder) / text)


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


def _twice(one: LoadedFile, group: list[LoadedFile]) -> SpecFileError:
    others = ", ".join(str(other.path) for other in group if other is not one)
    whose = "another application" if one.kind == "application" else "another feature pipeline"
    problem = Problem(
        one.place(one.kind),
        one.kind,
        f"has the name of {whose}, in {others}",
        "a name of its own",
        one.name,
        cure="rename one of them",
    )
    return SpecFileError(one.path, [problem])
