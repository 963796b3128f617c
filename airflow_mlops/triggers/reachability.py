"""Whether Airflow's API server answers."""

from __future__ import annotations

import urllib.request
from urllib.error import HTTPError

#: Seconds for the answer: a task that is ended has five in all.
PATIENCE = 1.5
#: What a proxy says for a server that is away.
AWAY = (502, 503, 504)


def airflow_answers() -> bool:
    """Whether the API server that workers report to answers at all; what it says does not matter."""
    from airflow.sdk.configuration import conf

    base = str(conf.get("api", "base_url", fallback="") or "").rstrip("/")
    if not base.startswith("http"):
        base = f"http://localhost:8080{base}"
    url = str(conf.get("core", "execution_api_server_url", fallback="") or f"{base}/execution/")
    if not url.startswith("http"):  # a worker that holds the API in its own process
        return True
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=PATIENCE):  # noqa: S310 - checked above
            return True
    except HTTPError as error:
        return error.code not in AWAY
    except (OSError, ValueError):
        return False
