"""A folder of YAML files, and the problems of a file."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from airflow_mlops.spec import Problem, SpecFileError, load_application


@pytest.fixture
def problems(tmp_path) -> Callable[[str | bytes], list[Problem]]:
    """Write a file ``app.yaml`` and return what is wrong with it, in order."""

    def find(text: str | bytes) -> list[Problem]:
        file = tmp_path / "app.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(SpecFileError) as caught:
            load_application(file)
        assert all(str(problem) in str(caught.value) for problem in caught.value.problems)
        return list(caught.value.problems)

    return find
