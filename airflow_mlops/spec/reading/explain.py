"""pydantic's errors in the words of the YAML's author, each at its place in the file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic import BaseModel

from airflow_mlops.spec.reading.defaults import DEFAULTS_FILE
from airflow_mlops.spec.reading.problems import Place, Problem, describe, dotted
from airflow_mlops.spec.reading.syntax import Node
from airflow_mlops.spec.values import SCHEDULE_KINDS

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_Path = tuple[str | int, ...]

_KEY = "[key]"  # pydantic's last step to a key that is wrong itself
_NAMES = ("application", "features")
_NAME = "a name: a letter, then up to 62 letters, digits and underscores"
_EXPECTED = {
    "string_type": "text",
    "string_too_short": "text, not blank",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list: [a, b]",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "finite_number": "a finite number",
}
_PATTERNS = {
    "application": "a lower-case letter, then up to 62 lower-case letters, digits and underscores",
    "connection": "a connection id: letters, digits and _ . - /",
    "feature_store": "a connection id: letters, digits and _ . - /",
    "image": "an image reference such as registry/name:1.0.0, without spaces",
    "network": "the name of a Docker network",
    "name": _NAME,
    "view": _NAME,
    "alias": _NAME,
    _KEY: _NAME,
}
_ENTRIES = {"too_short": "at least", "too_long": "at most"}
_LIMITS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_CURES = {
    "tuple_type": "put brackets around it, or a dash in front of each item",
    "string_type": "write text; a number, true or null needs quotes to be text",
    "string_pattern_mismatch": "write a word, or remove the key",
    "string_too_short": "write a word, or remove the key",
    "string_too_long": "shorten it",
    "too_short": "add an item",
    "too_long": "remove items, or split the list",
    "model_type": "put keys below it, each on a line of its own",
    "dict_type": "put keys below it, each on a line of its own",
}
#: Limits that are allowed values themselves, and the other ones.
_BOUNDS = {"greater_than_equal": "more", "less_than_equal": "less"}


def explain(errors: list[ErrorDetails], root: Node, model: type[BaseModel]) -> Iterator[Problem]:
    """One problem for each error that pydantic found in ``root``.

    :param errors: the errors of one validation of ``root.plain()`` against ``model``.
    :param root: the tree, defaults included.
    :param model: the model of the whole file.
    """
    errors = list(errors)
    misspelled = _misspelled(errors, model)
    for error in errors:
        if error["type"] == "missing" and tuple(error["loc"]) in misspelled:
            continue  # the key is there, under a name that has a problem of its own
        context: dict[str, Any] = error.get("ctx", {})
        *above, last = error["loc"]
        path = [part for part in above if part not in SCHEDULE_KINDS]
        if last not in SCHEDULE_KINDS or error["type"] == "extra_forbidden":
            path.append(last)
        for part in context.get("at", ()):
            if part == "..":
                path.pop()
            else:
                path.append(part)
        if error["type"] == "too_short" and len(_value(tuple(path), root) or ()) >= context["min_length"]:
            continue  # pydantic counts only the good items; the bad ones have problems of their own
        asked = tuple(path)
        if _is_shorthand(path, root):
            path.pop()
        yield _problem(error, context, tuple(path), root, model, asked)


def _misspelled(errors: Sequence[ErrorDetails], model: type[BaseModel]) -> set[_Path]:
    """The keys that unknown keys beside them were meant to be."""
    unknown = [tuple(error["loc"]) for error in errors if error["type"] == "extra_forbidden"]
    return {(*path[:-1], _closest(str(path[-1]), _keys_at(path[:-1], model))) for path in unknown}


def _is_shorthand(path: list[str | int], root: Node) -> bool:
    """Whether the path ends inside a plain word that stands for a mapping of one key, such as a view's name."""
    node, taken = _find(tuple(path), root)
    return taken == len(path) - 1 and isinstance(node.value, str) and path[-1] != _KEY


def _problem(
    error: ErrorDetails,
    context: dict[str, Any],
    path: _Path,
    root: Node,
    model: type[BaseModel],
    asked: _Path,
) -> Problem:
    kind = error["type"]
    if path[-1] == _KEY:
        return _wrong_key(kind, context, path[:-1], root)
    key = dotted(path)
    if kind == "extra_forbidden":
        return _unknown_key(path, root, model)
    if kind == "missing":
        description = _description(path, model)
        cure = f"add {path[-1]}: ... here"
        if len(path) == 1 and path[0] not in _NAMES:
            cure += f", or to a {DEFAULTS_FILE} beside the file"
        return Problem(_place(path, root), key, "is missing", description, "nothing", cure=cure)
    place, got = _place(path, root), describe(_value(path, root))
    if kind == "complaint":
        shown = got if _exists(path, root) else ""
        return Problem(place, key, context["what"], context["expected"], shown, cure=context["cure"])
    if kind == "literal_error":
        return _wrong_word(context, path, root, place, got)
    expected = _expected(kind, context, asked)
    cure = _cure(kind, context, path, _value(path, root), model)
    return Problem(place, key, "is " + _fault(kind), expected, got, cure=cure)


def _wrong_key(kind: str, context: dict[str, Any], path: _Path, root: Node) -> Problem:
    expected = _expected(kind, context, (_KEY,))
    word = str(path[-1])
    cure = f"write {_spelled(word, str(context.get('pattern', ''))) or 'another name'}"
    return Problem(_place(path, root), dotted(path), "is not well-formed", expected, word, cure=cure)


def _cure(kind: str, context: dict[str, Any], path: _Path, value: Any, model: type[BaseModel]) -> str:
    """What to type: an example in place of a repetition of what is expected."""
    key = path[-1] if isinstance(path[-1], str) else ""
    if value is None:
        return (
            f"write {key}: {{}}, or put keys below it"
            if kind == "model_type"
            else "remove it, or give a value"
        )
    if kind == "bool_type" and str(value).lower() in {"yes", "no", "on", "off", "y", "n"}:
        return "yes, no, on and off are plain words in YAML 1.2: write true or false"
    if kind in {"int_type", "float_type"} and isinstance(value, str):
        return "write a number, without quotes and units"
    if kind in _BOUNDS:
        return f"write {key}: {context[_LIMITS[kind][0]]:.12g}, or {_BOUNDS[kind]}"
    if kind == "string_pattern_mismatch" and str(value).strip():
        spelled = _spelled(str(value), str(context.get("pattern", "")))
        return f"write {key}: {spelled}" if spelled else "remove the characters that it may not have"
    default = _default(path, model)
    return _CURES.get(kind, f"write {key}: {default}" if default else "see docs/yaml.md for examples")


def _spelled(word: str, pattern: str) -> str:
    """The word in letters that the pattern takes; nothing where no such spelling is near."""
    for spelled in (
        re.sub(r"\W+", "_", word.strip().lower(), flags=re.ASCII).strip("_"),
        re.sub(r"[^a-z0-9.]+", "-", word.strip().lower()).strip("-"),
        f"a_{re.sub(r'[^a-z0-9]+', '_', word.strip().lower()).strip('_')}",
    ):
        if spelled and spelled != word and pattern and re.search(pattern, spelled):
            return spelled
    return ""


def _default(path: _Path, model: type[BaseModel]) -> str:
    """The default of a key as YAML; nothing where it has none of one word."""
    for where, inner in _sections(model):
        if _fits(path[:-1], where) and str(path[-1]) in inner.model_fields:
            default = inner.model_fields[str(path[-1])].default
            if isinstance(default, bool):
                return str(default).lower()
            return str(default) if isinstance(default, int | float | str) else ""
    return ""


def _fault(kind: str) -> str:
    if kind in _LIMITS:
        return "out of range"
    if kind in _ENTRIES or kind.startswith("string_too"):
        return "too short" if kind.endswith("short") else "too long"
    return "not well-formed" if kind == "string_pattern_mismatch" else "of the wrong kind"


def _expected(kind: str, context: dict[str, Any], path: _Path) -> str:
    if kind in _LIMITS:
        name, words = _LIMITS[kind]
        return f"{words} {context[name]:.12g}"
    if kind in _ENTRIES:
        limit = context["min_length" if kind == "too_short" else "max_length"]
        return f"{_ENTRIES[kind]} {limit} item" + ("s" if limit != 1 else "")
    if kind == "string_too_long":
        return f"at most {context['max_length']} characters"
    if kind == "string_pattern_mismatch":
        names = [part for part in path if isinstance(part, str)]
        last = "application" if path == ("features",) else names[-1] if names else ""
        return _PATTERNS.get(last, "text of printable characters, not blank")
    return _EXPECTED.get(kind, "a value of another kind")


def _unknown_key(path: _Path, root: Node, model: type[BaseModel]) -> Problem:
    word, siblings = str(path[-1]), _keys_at(path[:-1], model)
    nearest, cure = "", ""
    close = _closest(word, siblings)
    elsewhere = [where for where, keys in _known(model).items() if word in keys]
    if close:
        nearest, cure = close, f"write {close}"
    elif elsewhere:
        nearest = min(dotted((*where, word)) for where in elsewhere)
        cure = f"move it to {nearest}" if elsewhere[0] else "move it to the top level"
    elif word == "<<":
        cure = f"merge keys are not part of YAML 1.2: share values in a {DEFAULTS_FILE}"
    else:
        cure = "remove it"
    expected = f"one of {', '.join(siblings)}"
    return Problem(_place(path, root), dotted(path), "is not a known key", expected, word, nearest, cure)


def _wrong_word(context: dict[str, Any], path: _Path, root: Node, place: Place, got: str) -> Problem:
    words = re.findall(r"'([^']*)'", context["expected"])
    expected = context["expected"].replace("'", "").replace("True", "true")
    value = _value(path, root)
    close = _closest(value, words) if isinstance(value, str) else ""
    cure = f"write {close}" if close else f"write {path[-1]}: {words[0] if words else expected}"
    return Problem(place, dotted(path), "is none of the known words", expected, got, close, cure)


def _closest(word: str, known: tuple[str, ...] | list[str]) -> str:
    plain = {name.lower().replace("-", "_"): name for name in known}
    found = difflib.get_close_matches(
        word.lower().replace("-", "_").replace(" ", "_"), plain, n=1, cutoff=0.6
    )
    return plain[found[0]] if found else ""


def _find(path: _Path, root: Node) -> tuple[Node, int]:
    """The deepest node along the path, and how many parts of the path it took."""
    node = root
    for taken, part in enumerate(path):
        inside = node.value
        if isinstance(inside, dict) and part in inside:
            node = inside[str(part)]
        elif isinstance(inside, list) and str(part).isdigit() and int(part) < len(inside):
            node = inside[int(part)]
        else:
            return node, taken
    return node, len(path)


def _exists(path: _Path, root: Node) -> bool:
    return _find(path, root)[1] == len(path)


def _value(path: _Path, root: Node) -> Any:
    node, taken = _find(path, root)
    return node.plain() if taken == len(path) else None


def _place(path: _Path, root: Node) -> Place:
    node, _ = _find(path, root)
    return node.key or node.place


@cache
def _known(model: type[BaseModel]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Path of every mapping of the file → the keys that it may have; see :func:`_sections`."""
    return {where: tuple(inner.model_fields) for where, inner in _sections(model)}


def _keys_at(path: _Path, model: type[BaseModel]) -> tuple[str, ...]:
    return next((keys for where, keys in _known(model).items() if _fits(path, where)), ())


def _fits(path: _Path, where: tuple[str, ...]) -> bool:
    """Whether a path is of this pattern: ``[]`` stands for an item of a list, ``*`` for a key of the author's."""
    return len(path) == len(where) and all(
        known in ("*", part) or (known == "[]" and isinstance(part, int))
        for part, known in zip(path, where, strict=True)
    )


def _description(path: _Path, model: type[BaseModel]) -> str:
    for where, inner in _sections(model):
        if _fits(path[:-1], where):
            return inner.model_fields[str(path[-1])].description or ""
    return ""


def _sections(
    model: type[BaseModel], prefix: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], type[BaseModel]]]:
    """Every section of the file with its path: ``[]`` for an item of a list, ``*`` for a key of the author's."""
    yield prefix, model
    for name, field in model.model_fields.items():
        for below, inner in _models(field.annotation):
            yield from _sections(inner, (*prefix, name, *below))


def _models(
    annotation: Any, below: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], type[BaseModel]]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield below, annotation
    step = {tuple: ("[]",), dict: ("*",)}.get(get_origin(annotation), ())
    for argument in get_args(annotation):
        yield from _models(argument, (*below, *step))
