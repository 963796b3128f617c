"""Airflow DAG loader: writes the stub beside each YAML of an application or a feature pipeline. Copy it into your DAG folder.

It is also the file of the DAG mlops_maintenance, which removes what finished tasks left behind.
"""

from pathlib import Path

from airflow_mlops.factories import ensure_stubs, maintenance_dags

for folder in ("applications", "features"):
    if (Path(__file__).parent / folder).is_dir():
        ensure_stubs(Path(__file__).parent / folder)

globals().update(maintenance_dags(__file__))
