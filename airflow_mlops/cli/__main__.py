"""``python -m airflow_mlops.cli``."""

from __future__ import annotations

import sys

from airflow_mlops.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
