"""What a YAML says arrives as it is written: only the templates of our own factories are rendered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, literal

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.definitions.mappedoperator import MappedOperator

__all__ = ["Template", "VerbatimDag", "keep_verbatim"]

#: What Jinja would change in a text: expressions, statements, comments, ends of lines. A last one it takes away.
_MARKS = ("{{", "{%", "{#", "\r")


class Template(str):
    """A text of a factory that Airflow renders; any other text is none."""

    __slots__ = ()


class VerbatimDag(DAG):
    """A DAG of a YAML: when its ``with`` ends, what its tasks got of it is no template any more.

    Its hash costs nothing: equal DAGs have equal names, and Airflow hashes a DAG at each edge. The inherited hash walks
    through all assets of the schedule: a third of the time to build an application.
    """

    def __hash__(self) -> int:
        """Hash of the name."""
        return hash(self.dag_id)

    def __exit__(self, *caught: object) -> None:
        """Leave the tasks as they are to be rendered."""
        super().__exit__(*caught)  # type: ignore[no-untyped-call]
        for task in self.tasks:
            keep_verbatim(task)


def keep_verbatim(task: BaseOperator | MappedOperator) -> None:
    """Let Airflow render no text of a task but each :class:`Template`.

    ``{%`` may stand in SQL, ``{{`` in a prompt, and ``{{ conn.x.password }}`` would bring a password to XCom and MLflow.
    """
    for name in task.template_fields:
        value = getattr(task, name, None)
        kept = _kept(value)
        if kept is not value:
            setattr(task, name, kept)


def _kept(value: Any) -> Any:
    if isinstance(value, Template):
        return str(value)  # Airflow's messages between processes know no other kind of text
    if _changes(value) and not _has_own(value):
        return literal(value)
    if not _changes(value) and not _has_own(value):
        return value
    if not _inside(value):
        return value
    if isinstance(value, dict):
        return {key: _kept(inner) for key, inner in value.items()}
    return type(value)(_kept(inner) for inner in value)


def _changes(value: Any) -> bool:
    """Whether rendering would change a text of the YAML in it."""
    if isinstance(value, str):
        return not isinstance(value, Template) and (
            value.endswith("\n") or any(mark in value for mark in _MARKS)
        )
    return any(map(_changes, _inside(value)))


def _has_own(value: Any) -> bool:
    """Whether something in it is to be rendered: a template of ours, or what another task returns."""
    if isinstance(value, Template) or callable(getattr(value, "resolve", None)):
        return True
    return any(map(_has_own, _inside(value)))


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple | set | frozenset) else []
