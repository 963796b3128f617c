"""Fixtures of the whole suite live in tests/fixtures, one file a real part."""

from __future__ import annotations

pytest_plugins = [
    "tests.fixtures.docker",
    "tests.fixtures.mlflow",
    "tests.fixtures.airflow",
    "tests.fixtures.flights",
]
