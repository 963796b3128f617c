"""A section has one reader: what a file takes or refuses, an operator takes or refuses as well."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from airflow_mlops.exceptions import SpecError
from airflow_mlops.primitives.datasets.splits.rule import SplitRule, parse_split
from airflow_mlops.primitives.evaluation.rules import read_rules
from airflow_mlops.primitives.monitoring.rules import DriftRule, PerformanceRule
from airflow_mlops.spec.data.split import Split
from airflow_mlops.spec.evaluation import Requirement
from airflow_mlops.spec.monitoring import DriftMonitoring, PerformanceMonitoring
from airflow_mlops.spec.reading.sections import read_section
from airflow_mlops.spec.values import Section

#: Section -> what an operator makes of its dictionary, and what becomes of the section that a file gave.
DOORS: dict[type[Section], tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    Split: (parse_split, SplitRule.of),
    Requirement: (lambda stated: read_rules([stated])[0], lambda section: read_rules([dumped(section)])[0]),
    DriftMonitoring: (DriftRule.from_mapping, DriftRule.of),
    PerformanceMonitoring: (PerformanceRule.from_mapping, PerformanceRule.of),
}


def dumped(section: Section) -> dict[str, Any]:
    """As the factories hand a section to an operator."""
    return section.model_dump(mode="json", exclude_none=True)


def both(kind: type[Section], stated: dict[str, Any]) -> tuple[Any, Any]:
    """What the file's door and the operator's door say; None for a refusal."""
    operator, of = DOORS[kind]
    try:
        file = of(kind.model_validate(stated))
    except ValidationError:
        file = None
    try:
        task = operator(stated)
    except SpecError as error:
        said, task = str(error), None
        assert "Cure: " in said
    return file, task


@pytest.mark.parametrize(
    ("kind", "stated", "good"),
    [
        (Split, {"by": "hash"}, True),
        (Split, {"train": 0.7, "validation": 0.15}, True),
        (Split, {"train": 0.7, "validation": 0.15, "test": 0.15, "seed": -3}, False),
        (Requirement, {"latency": "p95", "at_most": "50ms"}, True),
        (Requirement, {"size": "model", "at_most": "200m"}, True),
        (Requirement, {"size": "disk", "at_most": 5}, False),
        (DriftMonitoring, {"min_columns": 0, "min_rows": -5}, False),
        (DriftMonitoring, {"columns": ["a"], "min_columns": 2}, False),
        (PerformanceMonitoring, {"min_labelled": 7}, False),
        (PerformanceMonitoring, {"min_labelled": 0.9}, True),
    ],
)
def test_both_doors_say_the_same(kind, stated, good):
    file, task = both(kind, stated)
    assert file == task
    assert (file is not None) is good


def test_defaults_and_units_are_those_of_the_yaml():
    assert parse_split({"by": "hash"}).shares == {"train": 0.7, "validation": 0.15, "test": 0.15}
    assert read_rules([{"latency": "p95", "at_most": "50ms"}])[0].at_most == 0.05
    assert read_rules([{"size": "model", "at_most": "200m"}])[0].at_most == 200 * 1024**2


def values(schema: dict[str, Any], root: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a JSON schema describes, as far as the schemas of sections go."""
    if "$ref" in schema:
        return values(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "anyOf" in schema:
        return st.one_of([values(one, root) for one in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "const" in schema:
        return st.just(schema["const"])
    kind = schema.get("type")
    if kind == "object":
        return st.fixed_dictionaries(
            {}, optional={name: values(one, root) for name, one in schema.get("properties", {}).items()}
        )
    if kind == "array":
        return st.lists(values(schema.get("items", {"type": "string"}), root), max_size=3)
    if kind in ("integer", "number"):
        near = [
            schema[key]
            for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
            if key in schema
        ]
        return st.one_of(st.sampled_from([0, 1, 2, 0.5, 0.7, 0.15, 0.3, *near]), st.integers(-3, 2000))
    if kind == "boolean":
        return st.booleans()
    if kind == "null":
        return st.none()
    return st.sampled_from(["a", "origin", "1d", "0s", "50ms", "200m", "latest", "", " ", "origin=JFK"])


#: What stands in a file or a call by mistake.
WRONG = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from(["", "soon", "7 d"]),
    st.just([]),
    st.just({}),
)


#: What most draws begin with, where few combinations of keys mean anything.
BEGINNINGS: dict[type[Section], list[dict[str, Any]]] = {
    Requirement: [
        {"metric": "auc", "at_least": 0.7},
        {"metric": "auc", "against": "champion"},
        {"fairness": "equal_opportunity", "column": "origin", "at_most": 0.1},
        {"latency": "p95", "at_most": "50ms"},
        {"size": "model", "at_most": "200m"},
    ]
}


@st.composite
def sections(draw, kind: type[Section]) -> dict[str, Any]:
    """A section by its schema, and now and then with one value or key changed."""
    schema = TypeAdapter(kind).json_schema()
    stated = draw(values(schema, schema))
    if kind in BEGINNINGS:
        kept = draw(st.sets(st.sampled_from(sorted(stated)), max_size=1)) if stated else ()
        stated = {**draw(st.sampled_from(BEGINNINGS[kind])), **{name: stated[name] for name in kept}}
    if stated and draw(st.booleans()):
        stated = copy.deepcopy(stated)
        name = draw(st.sampled_from(sorted(stated)))
        if draw(st.booleans()):
            stated[name] = draw(WRONG)
        else:
            stated[f"{name}s"] = stated.pop(name)
    return json.loads(json.dumps(stated))


@pytest.mark.parametrize("kind", DOORS, ids=lambda kind: kind.__name__)
def test_any_section_is_read_the_same_by_both(kind):
    seen = {"good": 0, "bad": 0}

    @settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(stated=sections(kind))
    def holds(stated):
        # A null is a key that is not given, in a call as in a dump.
        stated = {key: value for key, value in stated.items() if value is not None}
        if not stated:
            return
        file, task = both(kind, stated)
        assert file == task, stated
        seen["good" if file is not None else "bad"] += 1

    holds()
    assert min(seen.values()) > 5, seen


def test_every_problem_is_told_with_its_place_and_cure():
    with pytest.raises(SpecError) as told:
        read_section(DriftMonitoring, "monitoring.drift", {"min_row": 5, "min_columns": 0})
    assert "monitoring.drift.min_row is not a known key" in str(told.value)
    assert "Cure: write min_rows." in str(told.value)
    assert "monitoring.drift.min_columns is out of range, expected at least 1, got the number 0." in str(
        told.value
    )


def test_a_problem_of_the_whole_section_has_the_sections_name():
    with pytest.raises(SpecError, match=r"^evaluation\.require\[0\].* Cure: "):
        read_rules([{"metric": "auc"}])
