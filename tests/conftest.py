"""Fixtures of the whole suite live in tests/fixtures, one file a real part."""

from __future__ import annotations

import os
import signal
import tempfile

from hypothesis import settings

# Airflow reads its settings when it is first imported: nobody's own home is touched by a test.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-mlops-tests-")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"

# Where no terminal is, Ctrl-C may be ignored, and all that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No example is held to a time: a busy machine is slow, and no fault.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

pytest_plugins = [
    "tests.fixtures.lanes",
    "tests.fixtures.docker",
    "tests.fixtures.mlflow",
    "tests.fixtures.airflow",
    "tests.fixtures.chaos",
    "tests.fixtures.flights",
    "tests.fixtures.postgres",
    "tests.fixtures.gpu_engines",
    "tests.fixtures.registry",
    "tests.fixtures.s3",
    "tests.fixtures.s3_proxy",
    "tests.fixtures.transfer",
    "tests.fixtures.aws",
    "tests.fixtures.kubernetes",
    "tests.fixtures.torch",
    "tests.fixtures.wheel",
    "tests.fixtures.tuning",
]
