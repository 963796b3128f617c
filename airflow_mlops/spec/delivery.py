"""``delivery:``: the forms in which the champion is put to use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, create_model, model_validator

from airflow_mlops.spec.values import Schedule, Section, complaint, unstated

__all__ = ["FORMS", "BatchDelivery", "Delivery", "Form", "each_once", "tagged"]


class Form(Section):
    """One form of delivery; a new one is such a class, a line in :data:`FORMS` and its DAGs in the factories."""

    #: Commands of the model code that it needs.
    commands: ClassVar[tuple[str, ...]] = ()


class BatchDelivery(Form):
    """Predictions for all new examples, written to the store."""

    commands: ClassVar[tuple[str, ...]] = ("predict",)

    schedule: Schedule | None = Field(
        default=None, description="When to predict: cron (UTC), {assets: [...]}, or null for on demand only."
    )
    assumptions: Literal["warn", "fail", "off"] = Field(
        default="warn",
        description="What provisioning.assumptions mean for the rows that are predicted: warn reports and predicts, fail "
        "stops before the prediction as each rule's severity says, off asks nothing. Rules about targets, splits and "
        "the size of a dataset are left out.",
    )


#: The key of a form → its section and what it is.
FORMS: dict[str, tuple[type[Form], str]] = {
    "batch": (BatchDelivery, "Predict new examples in batches."),
}


class _Delivery(Section):
    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    @property
    def kind(self) -> str:
        """The name of the form."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def form(self) -> Form:
        """What is said of the form."""
        form: Form = getattr(self, self.kind)
        return form

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        known = list(type(self).model_fields)
        given = [name for name in known if getattr(self, name) is not None]
        if len(given) != 1:
            raise complaint(
                f"has {' and '.join(given)} in one item" if given else "names no form of delivery",
                expected=f"exactly one key of {', '.join(known)}",
                cure="write each form as an item of its own" if given else f"write {known[0]}: {{}}",
            )
        return self


def tagged(forms: Mapping[str, tuple[type[Form], str]]) -> Any:
    """The section of one item of ``delivery``, which has exactly one of these forms.

    :param forms: as :data:`FORMS`.
    """
    fields: dict[str, Any] = {
        name: (form, Field(default=None, description=about, json_schema_extra=unstated))
        for name, (form, about) in forms.items()
    }
    about = "One form of delivery: a mapping with exactly one key, the name of the form."
    return create_model("Delivery", __base__=_Delivery, __doc__=about, __module__=__name__, **fields)


def each_once(items: Sequence[Delivery]) -> None:
    """Refuse a form that stands twice in the list.

    :raises PydanticCustomError: one does.
    """
    kinds = [item.kind for item in items]
    for number, kind in enumerate(kinds):
        if kind in kinds[:number]:
            raise complaint(f"has {kind} twice", expected="each form once", cure="keep one", at=(number,))


if TYPE_CHECKING:

    class Delivery(_Delivery):
        """One form of delivery."""

        batch: BatchDelivery | None

else:
    Delivery = tagged(FORMS)
