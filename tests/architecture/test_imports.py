"""What an import costs: DAG files are parsed every few seconds, with a limit of 30 s."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = (
    "pandas",
    "numpy",
    "feast",
    "mlflow",
    "whylogs",
    "docker",
    "aiodocker",
    "boto3",
    "botocore",
    "deltalake",
    "pyiceberg",
    "pyspark",
    "adbc_driver_postgresql",
    "duckdb",
    "pyarrow",
    "scipy",
    "optuna",
    "kubernetes",
    "kubernetes_asyncio",
    "dulwich",
    "aiohttp",
)

MEASURE = """
import json, sys, time
import airflow.sdk
from airflow.sdk import DAG, Asset, BaseHook, BaseOperator, Param, AssetOrTimeSchedule, TriggerRule
from airflow.sdk import CronTriggerTimetable, AssetAll, AssetAny, get_parsing_context
before, start = set(sys.modules), time.process_time()
import airflow_mlops.factories
spent = time.process_time() - start
new = sorted(set(sys.modules) - before)
print(json.dumps({"new": new, "spent": spent}))
"""


def measured(code: str) -> dict:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_the_package_itself_imports_nothing():
    code = "import sys, json; b = set(sys.modules); import airflow_mlops; print(json.dumps(sorted(set(sys.modules) - b)))"
    assert set(measured(code)) <= {"airflow_mlops", "__future__"}


def test_factories_are_light():
    new = measured(MEASURE)["new"]
    roots = {name.split(".")[0] for name in new}
    assert not roots & set(HEAVY)
    foreign = [name for name in new if not name.startswith("airflow_mlops")]
    assert len(foreign) < 20, foreign
    assert len(new) <= 110, new


def test_contract_needs_only_the_standard_library():
    code = (
        "import sys, json, airflow_mlops.contract, airflow_mlops.contract.__main__, airflow_mlops.contract.testing; "
        "print(json.dumps(sorted({n.split('.')[0] for n in sys.modules} - set(sys.stdlib_module_names))))"
    )
    outside = {name for name in measured(code) if not name.startswith(("_", "sitecustomize"))}
    assert outside <= {"airflow_mlops"}
