"""Our side of ``containers.py``: the least that an operator of ours adds to the base of all that run model code."""

from __future__ import annotations

from typing import Any

from airflow_mlops.operators.model_code import ModelCodeOperator


class CommandOperator(ModelCodeOperator):
    """One command of the model code: nothing goes in but its parameters, nothing comes out but what it prints.

    :param words: what the container does, and how long or how often.
    """

    command = "train"

    def __init__(self, *, words: list[str], **kwargs: Any) -> None:
        super().__init__(application="bench", runner={"kind": "docker"}, **kwargs)
        self.words = words

    def inputs(self, context, scratch):  # noqa: ARG002
        return {}

    def config(self, context):  # noqa: ARG002
        return {"parameters": {"words": " ".join(self.words)}}

    def take_over(self, context, output, state):  # noqa: ARG002
        return None
