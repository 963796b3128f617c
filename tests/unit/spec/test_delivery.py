"""Forms of delivery: a list of mappings with one key each."""

from __future__ import annotations

from typing import ClassVar

import pytest
from pydantic import TypeAdapter
from pydantic_core import PydanticCustomError

from airflow_mlops.exceptions import SpecError
from airflow_mlops.factories import build_dags, files
from airflow_mlops.spec import load_application
from airflow_mlops.spec.delivery import FORMS, BatchDelivery, Form, each_once, tagged
from tests.unit.spec.samples import MINIMAL


class WheelDelivery(Form):
    """A second form, as a later version may have it."""

    commands: ClassVar[tuple[str, ...]] = ("save",)

    index: str = "internal"


@pytest.fixture
def load(tmp_path):
    def load_with(delivery: str):
        path = tmp_path / "tiny.yaml"
        path.write_text(f"{MINIMAL}store: /srv/mlops\ndelivery: {delivery}\n")
        return load_application(path)

    return load_with


def test_a_form_is_found_by_its_kind(load):
    spec = load("[{batch: {assumptions: fail}}]")
    assert spec.delivery[0].kind == "batch"
    assert spec.form(BatchDelivery) == BatchDelivery(assumptions="fail")
    assert spec.form(WheelDelivery) is None


@pytest.mark.parametrize(
    ("delivery", "place", "words"),
    [
        ("[{}]", "delivery[0]", "names no form of delivery"),
        ("[{batch: {}}, {batch: {}}]", "delivery[1]", "has batch twice"),
        ("[{bach: {}}]", "delivery[0].bach", "batch"),
        ("[{batch: null}]", "delivery[0].batch", "expected"),
    ],
)
def test_what_is_no_form_has_its_place(load, delivery, place, words):
    with pytest.raises(SpecError) as told:
        load(delivery)
    assert place in str(told.value)
    assert words in str(told.value)


class TestTwoForms:
    ITEMS = TypeAdapter(tuple[tagged({**FORMS, "wheel": (WheelDelivery, "Build a wheel.")}), ...])

    def test_forms_of_different_kinds_validate(self):
        items = self.ITEMS.validate_python([{"batch": {}}, {"wheel": {"index": "ours"}}])
        each_once(items)
        assert [item.kind for item in items] == ["batch", "wheel"]
        assert items[1].form == WheelDelivery(index="ours")

    def test_the_same_form_twice_does_not(self):
        items = self.ITEMS.validate_python([{"batch": {}}, {"wheel": {}}, {"wheel": {}}])
        with pytest.raises(PydanticCustomError, match="has wheel twice"):
            each_once(items)

    def test_two_forms_in_one_item_do_not(self):
        with pytest.raises(ValueError, match="has batch and wheel in one item"):
            self.ITEMS.validate_python([{"batch": {}, "wheel": {}}])

    def test_each_asks_for_its_own_dags(self, load, monkeypatch):
        built = []
        monkeypatch.setitem(files._FORM_DAGS, "wheel", {"wheel": (__name__, "build_wheel_dag")})
        monkeypatch.setattr("tests.unit.spec.test_delivery.build_wheel_dag", built.append, raising=False)
        spec = load("[{batch: {}}]")
        both = self.ITEMS.validate_python([{"batch": {}}, {"wheel": {}}])
        names = ("provisioning", "training", "delivery", "monitoring", "wheel")
        assert list(build_dags(spec)) == [f"tiny__{name}" for name in names[:-1]]
        assert list(build_dags(spec.model_copy(update={"delivery": both}))) == [
            f"tiny__{name}" for name in names
        ]
        assert len(built) == 1
