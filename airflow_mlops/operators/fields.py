"""Template fields, which may have been rendered to text."""

from __future__ import annotations

import json
from typing import Any

from airflow_mlops.exceptions import SpecError


def json_value(name: str, value: Any) -> Any:
    """A template field that may have been rendered to text.

    :raises SpecError: the text is no JSON.
    """
    if not isinstance(value, str):
        return value
    if value in ("", "None"):
        return None
    try:
        return json.loads(value)
    except ValueError as error:
        raise SpecError(
            f"{name} must be JSON, got {value[:200]!r}. "
            "Cure: hand over the task's output itself, or end the template with `| tojson`."
        ) from error
