"""The few calls of Airflow's REST API that the demo makes."""

from __future__ import annotations

import json
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode

from airflow_mlops.cli.demo.servers import AirflowSettings
from airflow_mlops.exceptions import CommandError, MLOpsError
from airflow_mlops.primitives.texts.documents import json_text

#: What a server says that is overloaded, or not there yet.
AWAY = (429, 502, 503, 504)
#: States of a task that something is about to happen to.
ACTIVE = ("scheduled", "queued", "running", "deferred", "restarting", "up_for_retry", "up_for_reschedule")
#: What is compared of a task to see whether anything changes.
FIELDS = ("dag_id", "dag_run_id", "task_id", "map_index", "state", "try_number", "start_date")


class AirflowAwayError(CommandError):
    """Airflow's API server does not answer, or says that it cannot at this moment."""

    retriable = True


class AirflowClient:
    """
    Talks to one Airflow as its admin.

    :param settings: the Airflow.
    """

    def __init__(self, settings: AirflowSettings) -> None:
        self._url = settings.url
        self._login = {"username": settings.user, "password": settings.password}
        self._token = ""

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """One request; JSON in, JSON out. Logs in when it must.

        :raises MLOpsError: with the server's own words.
        """
        try:
            if self._token:
                try:
                    return self._send(method, f"/api/v2{path}", body, query)
                except HTTPError as error:
                    if error.code != 401:
                        raise
            self._token = ""
            self._token = self._send("POST", "/auth/token", self._login)["access_token"]
            return self._send(method, f"/api/v2{path}", body, query)
        except HTTPError as error:
            said = error.read()[:500].decode(errors="replace")
            kind = AirflowAwayError if error.code in AWAY else MLOpsError
            raise kind(f"{method} {path}: {error.code} {said}") from error
        except (OSError, HTTPException) as error:
            raise AirflowAwayError(
                f"{method} {path}: Airflow at {self._url} does not answer: {error}"
            ) from error

    def get_ui(self, path: str) -> Any:
        """GET of a path outside the public API."""
        self.call("GET", "/version")
        return self._send("GET", path)

    def trigger(self, dag_id: str, conf: dict[str, Any]) -> str:
        """Start a DAG run; returns its id."""
        body = {"logical_date": None, "conf": conf}
        return str(self.call("POST", f"/dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def runs(self, dag_id: str = "~") -> list[dict[str, Any]]:
        """The newest hundred runs, newest first."""
        return list(self.call("GET", f"/dags/{dag_id}/dagRuns", limit=100, order_by="-run_after")["dag_runs"])

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """One run."""
        return dict(self.call("GET", f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"))

    def tasks(self, dag_id: str, run_id: str) -> dict[str, str | None]:
        """State of each task of a run."""
        answer = self.call("GET", f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances")
        return {task["task_id"]: task["state"] for task in answer["task_instances"]}

    def active_tasks(self) -> list[dict[str, Any]]:
        """Tasks of all runs that something is about to happen to."""
        answer = self.call("GET", "/dags/~/dagRuns/~/taskInstances", state=list(ACTIVE), limit=100)
        return [{field: task.get(field) for field in FIELDS} for task in answer["task_instances"]]

    def health(self) -> dict[str, str]:
        """Whether each part of Airflow is well, as it says itself."""
        return {part: str(said.get("status")) for part, said in self.call("GET", "/monitor/health").items()}

    def xcom(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """What a task returned; ``None`` when nothing."""
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task_id}/xcomEntries/return_value"
        try:
            return self.call("GET", path, deserialize="true")["value"]
        except MLOpsError:
            return None

    def import_errors(self) -> list[dict[str, Any]]:
        """Files that did not build."""
        return list(self.call("GET", "/importErrors")["import_errors"])

    def _send(self, method: str, path: str, body: Any = None, query: dict[str, Any] | None = None) -> Any:
        url = f"{self._url}{path}{'?' + urlencode(query, doseq=True) if query else ''}"
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json_text(body).encode()
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 - our own http address
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            return json.load(response)
