"""YAML text → a tree of values that know their place in the file.

The rules are those of YAML 1.2's core schema, so ``on`` and ``no`` are plain words. Every mistake that
PyYAML would pass over (a key written twice, a second document) is reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import yaml

from airflow_mlops.spec.reading.problems import Place, Problem, describe, dotted

LARGEST_FILE = 1_000_000
MOST_NODES = 20_000
DEEPEST = 32

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CORE = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?[0-9]{1,30}|0o[0-7]{1,30}|0x[0-9a-fA-F]{1,30}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,400}|[0-9]{1,400}(\.[0-9]{0,400})?)([eE][-+]?[0-9]{1,5})?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "null": (type(None),),
}


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a YAML file.

    :param value: ``dict[str, Node]``, ``list[Node]`` or a scalar.
    :param place: where the value begins.
    :param key: where the key begins that it stands under.
    :param size: how many nodes it is when aliases are written out.
    """

    value: Any
    place: Place
    key: Place | None = None
    size: int = 1

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


class _RefusedError(Exception):
    """The rest of the file cannot be read after this problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.what)
        self.problem = problem


def read_text(path: Path) -> tuple[str, list[Problem]]:
    """The text of a YAML file, or the problem that keeps it from being read."""
    here = Place(path)
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        return "", [
            Problem(here, "", f"cannot be read: {error.strerror}", cure="check the path and its permissions")
        ]
    if len(data) > LARGEST_FILE:
        cure = "keep data out of the YAML"
        return "", [Problem(here, "", "is too large", f"at most {LARGEST_FILE:,} bytes", "more", cure=cure)]
    try:
        return data.decode("utf-8-sig"), []
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = error.start - before.rfind(b"\n")
        got = f"the byte 0x{data[error.start]:02x}"
        return "", [
            Problem(Place(path, line, column), "", "is not UTF-8 text", "UTF-8", got, cure="save it as UTF-8")
        ]


def parse(text: str, path: Path, *, may_be_empty: bool = False) -> tuple[Node | None, list[Problem]]:
    """Read one YAML document whose top is a mapping.

    :param may_be_empty: a file of nothing but comments is an empty mapping.
    :return: the tree, as far as it could be read, and everything that is wrong with the syntax.
    """
    reader = _Reader(path)
    try:
        return reader.document(yaml.parse(text, Loader=_LOADER), may_be_empty), reader.problems
    except _RefusedError as refused:
        return None, [*reader.problems, refused.problem]
    except yaml.MarkedYAMLError as error:
        return None, [*reader.problems, _syntax_problem(error, text, path)]
    except yaml.reader.ReaderError as error:
        place = _place_of(text, error.position, path)
        cure = "remove the invisible character"
        return None, [Problem(place, "", "is not YAML: a control character", "printable text", cure=cure)]


class _Reader:
    """Builds nodes from PyYAML's events; depth and size are bounded, aliases cannot contain themselves."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self._anchors: dict[str, Node] = {}

    def document(self, events: Iterator[Any], may_be_empty: bool) -> Node:
        top: Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent) and top is not None:
                self._refuse(
                    event, "has a second document", "one document in a file", "---", "remove this line"
                )
            if isinstance(event, yaml.NodeEvent):
                top = self._node(event, events, (), 1)
        if top is None or top.value is None:
            if may_be_empty:
                return Node({}, Place(self.path, 1, 1))
            cure = "begin with the line  application: my_model"
            raise _RefusedError(
                Problem(Place(self.path, 1, 1), "", "is empty", "a mapping of keys to values", cure=cure)
            )
        if not isinstance(top.value, dict):
            what, cure = "is not a mapping", "begin with the line  application: my_model"
            raise _RefusedError(
                Problem(top.place, "", what, "keys and values", describe(top.plain()), cure=cure)
            )
        return top

    def _node(self, event: Any, events: Iterator[Any], path: tuple[str, ...], depth: int) -> Node:
        if depth > DEEPEST:
            self._refuse(
                event, "is nested too deeply", f"at most {DEEPEST} levels", "more", "flatten it", path
            )
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path)
        if isinstance(event, yaml.ScalarEvent):
            node = Node(self._scalar(event, path), self._place(event))
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(event, events, path, depth)
        else:
            node = self._mapping(event, events, path, depth)
        if node.size > MOST_NODES:
            self._refuse(
                event,
                "is too large",
                f"at most {MOST_NODES:,} values",
                f"{node.size:,}",
                "use fewer aliases",
                path,
            )
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: Any, path: tuple[str, ...]) -> Node:
        node = self._anchors.get(event.anchor)
        if node is None:
            what = f"uses *{event.anchor}, which is not defined above"
            known = ", ".join(sorted(self._anchors)) or "none in this file"
            self._refuse(
                event,
                what,
                f"an anchor: {known}",
                f"*{event.anchor}",
                "an anchor cannot contain itself",
                path,
            )
        return replace(node, place=self._place(event))

    def _sequence(self, event: Any, events: Iterator[Any], path: tuple[str, ...], depth: int) -> Node:
        self._only_tags(event, path, "seq")
        items: list[Node] = []
        size = 1
        for item in iter(lambda: next(events), None):
            if isinstance(item, yaml.SequenceEndEvent):
                break
            items.append(self._node(item, events, (*path, f"[{len(items)}]"), depth + 1))
            size += items[-1].size
        return Node(items, self._place(event), size=size)

    def _mapping(self, event: Any, events: Iterator[Any], path: tuple[str, ...], depth: int) -> Node:
        self._only_tags(event, path, "map")
        entries: dict[str, Node] = {}
        size = 1
        for key_event in iter(lambda: next(events), None):
            if isinstance(key_event, yaml.MappingEndEvent):
                break
            key, place = self._key(key_event, path), self._place(key_event)
            node = replace(self._node(next(events), events, (*path, key), depth + 1), key=place)
            size += node.size
            if key in entries:
                first = entries[key].key
                what = f"is written twice, first on line {first.line if first else '?'}"
                self.problems.append(
                    Problem(place, dotted((*path, key)), what, "each key once", cure="keep one of them")
                )
            else:
                entries[key] = node
        return Node(entries, self._place(event), size=size)

    def _key(self, event: Any, path: tuple[str, ...]) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            self._refuse(
                event,
                "has a key that is not a word",
                "a word",
                "a list, mapping or alias",
                "give the key a name, such as split:",
                path,
            )
        value = self._scalar(event, path)
        if not isinstance(value, str):
            cure = f"put it in quotes: '{event.value}':"
            self._note(event, "has a key that is not text", "text", describe(value), cure, path)
        return str(event.value)

    def _scalar(self, event: Any, path: tuple[str, ...]) -> Any:
        text: str = event.value
        tag = event.tag
        if tag in {None, "!"} or tag == f"{_CORE}str":
            plain = event.implicit[0] and tag is None
            return self._plain_value(event, text, path) if plain else text
        kind = tag.removeprefix(_CORE)
        value = _resolve(text)
        if kind not in _KINDS or not isinstance(value, _KINDS[kind]):
            self._note(
                event,
                f"has the tag {_shown(tag)}",
                "no tag",
                f"{_shown(tag)} {text[:40]}",
                "remove the tag",
                path,
            )
        return value

    def _plain_value(self, event: Any, text: str, path: tuple[str, ...]) -> Any:
        if _NOT_FINITE.fullmatch(text):
            self._note(
                event,
                "is not a finite number",
                "a finite number",
                text,
                "leave the key out for no limit",
                path,
            )
        return _resolve(text)

    def _only_tags(self, event: Any, path: tuple[str, ...], kind: str) -> None:
        if event.tag not in {None, "!", f"{_CORE}{kind}"}:
            self._note(
                event, f"has the tag {_shown(event.tag)}", "no tag", _shown(event.tag), "remove the tag", path
            )

    def _place(self, event: Any) -> Place:
        mark = event.start_mark
        return Place(self.path, mark.line + 1, mark.column + 1)

    def _note(self, event: Any, what: str, expected: str, got: str, cure: str, path: tuple[str, ...]) -> None:
        self.problems.append(Problem(self._place(event), dotted(path), what, expected, got, cure=cure))

    def _refuse(
        self, event: Any, what: str, expected: str, got: str, cure: str, path: tuple[str, ...] = ()
    ) -> NoReturn:
        raise _RefusedError(Problem(self._place(event), dotted(path), what, expected, got, cure=cure))


def _resolve(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text, 0) if text[:2] in {"0o", "0x"} else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, path: Path) -> Problem:
    mark = error.problem_mark or error.context_mark
    place = Place(path, mark.line + 1, mark.column + 1) if mark else Place(path, 1, 1)
    lines = text.splitlines()
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    what = f"is not YAML: {error.problem or 'it cannot be read'}"
    if error.context:
        since = f" that begins on line {error.context_mark.line + 1}" if error.context_mark else ""
        what += f" ({error.context}{since})"
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return Problem(place, "", what, "spaces", "a tab", cure="indent with spaces")
    cure = "put text with a colon, a hash or braces in quotes; close every bracket and quote; align the keys"
    return Problem(place, "", what, cure=cure)


def _place_of(text: str, position: int, path: Path) -> Place:
    before = text[:position]
    return Place(path, before.count("\n") + 1, position - before.rfind("\n"))


def _shown(tag: str) -> str:
    return f"!!{tag.removeprefix(_CORE)}" if tag.startswith(_CORE) else tag
