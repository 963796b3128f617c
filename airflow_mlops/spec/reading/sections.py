"""One section by itself: how an operator reads the dictionary that stands for a section of the YAML.

The model of the section is the one reader of both: a file and an operator take and refuse the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import ValidationError, create_model

from airflow_mlops.exceptions import SpecError
from airflow_mlops.spec.reading.explain import explain
from airflow_mlops.spec.reading.problems import Place, Problem
from airflow_mlops.spec.reading.syntax import Node
from airflow_mlops.spec.values import Section

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["read_section"]

_SECTION = "section"
S = TypeVar("S", bound=Section)


def read_section(kind: type[S], where: str, value: Mapping[str, Any]) -> S:
    """
    Read one section.

    :param kind: the model of the section.
    :param where: its key, for messages: ``split``, ``evaluation.require[0]``.
    :param value: JSON values as the YAML has them; ``None`` for a key that is not given.
    :raises SpecError: every problem of the section, each with its cure.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        # As if it stood in a file: a problem may be one of the section as a whole.
        errors = [{**one, "loc": (_SECTION, *one["loc"])} for one in error.errors()]
        model = create_model("File", **{_SECTION: (kind, ...)})  # type: ignore[call-overload]
        found = explain(cast("list[ErrorDetails]", errors), _node({_SECTION: value}), model)
        raise SpecError(" ".join(_told(where, problem) for problem in found)) from error


def _told(where: str, problem: Problem) -> str:
    said = [
        f"{where}{problem.key.removeprefix(_SECTION)} {problem.what}",
        f"expected {problem.expected}" if problem.expected else "",
        f"got {problem.got}" if problem.got else "",
    ]
    return f"{', '.join(filter(None, said))}. Cure: {problem.cure}."


def _node(value: Any) -> Node:
    """The value as a tree whose places are unknown."""
    place = Place(Path())
    if isinstance(value, Mapping):
        return Node({str(key): _node(one) for key, one in value.items()}, place)
    if isinstance(value, list | tuple):
        return Node([_node(one) for one in value], place)
    return Node(value, place)
