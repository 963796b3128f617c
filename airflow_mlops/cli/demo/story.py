"""What happens in the demo: months arrive, the model predicts, the outcomes land, an alarm retrains."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from airflow_mlops.cli.demo.client import AirflowClient
from airflow_mlops.cli.demo.home import APPLICATION, DemoError, DemoHome
from airflow_mlops.cli.demo.waiting import Waiting

MONTHS = [f"2013-{month:02}" for month in range(1, 13)]
FIRST_PREDICTED = 2
_OVER = ("success", "failed")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Month:
    """One row of the table at the end; figures as measured, ``None`` where there is none."""

    month: str
    rows: int
    drifted: int | None
    columns: int | None
    test_auc: float | None
    actual_auc: float | None
    decision: str
    reason: str
    dataset_version: str
    model_version: str


class Story:
    """
    Drives the demo through Airflow's REST API and reads its outcome from the store.

    :param client: the running Airflow.
    :param home: the demo's folder.
    :param say: prints one line of progress.
    :param patience: seconds for which nothing may move.
    """

    def __init__(
        self, client: AirflowClient, home: DemoHome, say: Callable[[str], None], patience: float = 300
    ) -> None:
        self._client = client
        self._home = home
        self._say = say
        self._waiting = Waiting(client, home.path / "airflow/logs", say, patience)
        self._old_failures: set[tuple[str, str]] = set()

    def run(self, through: str) -> list[Month]:
        """Play until an alarm has retrained the model and one more month was predicted, or ``through`` is over."""
        # An earlier demo's failure is no reason to stop this one: what failed is tried again.
        self._old_failures = {(run["dag_id"], run["dag_run_id"]) for run in self._failed_runs()}
        self._wait_for_dags()
        self._go_on_training()
        self._first_model()
        retrained = self._retrainings() > 0
        for month in MONTHS[FIRST_PREDICTED : MONTHS.index(through) + 1]:
            if not self._is_over(month):
                self._play(month)
                if retrained:
                    break
            retrained = retrained or self._retrainings() > 0
        return self.table()

    def _go_on_training(self) -> None:
        """Wait for the training that an interrupted demo left."""
        for run in self._training_runs():
            if run["state"] not in _OVER:
                self._say(f"going on with training run {run['dag_run_id']}")
                self._finish(f"{APPLICATION}__training", run["dag_run_id"])
                self._say_model(run["dag_run_id"])

    def _first_model(self) -> None:
        if any(run["state"] == "success" for run in self._training_runs()):
            return
        # The first month was there when the feature store was made.
        for month in MONTHS[1:FIRST_PREDICTED]:
            self._say(f"{month}  its flights and outcomes arrive")
            self._land("schedule", month)
            self._land("landings", month)
        self._say("no model yet: training on demand")
        run = self._client.trigger(f"{APPLICATION}__training", {"why": "the first model"})
        self._finish(f"{APPLICATION}__training", run)
        self._say_model(run)

    def _play(self, month: str) -> None:
        self._land("schedule", month)
        batch = self._until(f"predictions of {month}", lambda: self._batch(month))
        self._say(f"{month}  {batch['rows']:,} flights predicted by model version {batch['model_version']}")
        known = {run["dag_run_id"] for run in self._training_runs()}
        self._land("landings", month)
        decision = self._until(
            f"decision on {month}", lambda: self._document(batch["window_id"], "decision.json")
        )
        self._say(f"{month}  outcomes landed: {decision['kind']}. {decision['message']}")
        if decision["kind"] == "RETRAIN":
            run = self._until("training run", lambda: self._new_training(known))
            self._say(f"{month}  the alarm started {run}")
            self._finish(f"{APPLICATION}__training", run)
            self._say_model(run)

    def _land(self, what: str, month: str) -> None:
        dag_id = f"nyc_flights__{what}"
        self._finish(dag_id, self._client.trigger(dag_id, {"month": month}))

    # Looking ----------------------------------------------------------------------------------

    def _batch(self, month: str) -> dict[str, Any] | None:
        following = MONTHS.index(month) + 2
        end = f"2013-{following:02}-01" if following <= len(MONTHS) else "2014-01-01"
        # Examples are asked an hour before departure, in UTC: a month's last one is a few hours into the next month.
        batches = (json.loads(path.read_bytes()) for path in self._files("predictions/*/meta.json"))
        return next((batch for batch in batches if end <= batch["window"][1][:10] <= f"{end[:-2]}02"), None)

    def _is_over(self, month: str) -> bool:
        batch = self._batch(month)
        return batch is not None and self._document(batch["window_id"], "decision.json") is not None

    def _document(self, window_id: str, name: str) -> dict[str, Any] | None:
        path = self._home.store / APPLICATION / "monitoring/windows" / window_id / name
        return json.loads(path.read_bytes()) if path.exists() else None

    def _files(self, pattern: str) -> list[Any]:
        return sorted((self._home.store / APPLICATION).glob(pattern))

    def _training_runs(self) -> list[dict[str, Any]]:
        return self._client.runs(f"{APPLICATION}__training")

    def _retrainings(self) -> int:
        return sum(
            run["run_type"] == "asset_triggered" and run["state"] == "success"
            for run in self._training_runs()
        )

    def _new_training(self, known: set[str]) -> str | None:
        return next((r["dag_run_id"] for r in self._training_runs() if r["dag_run_id"] not in known), None)

    # Waiting ----------------------------------------------------------------------------------

    def _wait_for_dags(self) -> None:
        wanted = {f"{APPLICATION}__{p}" for p in ("provisioning", "training", "delivery", "monitoring")}
        wanted |= {"nyc_flights__schedule", "nyc_flights__landings"}

        def there() -> bool:
            if errors := self._client.import_errors():
                raise DemoError(f"{errors[0]['filename']}: {errors[0]['stack_trace']}")
            return wanted <= {dag["dag_id"] for dag in self._client.call("GET", "/dags", limit=100)["dags"]}

        self._until("DAGs", there)

    def _finish(self, dag_id: str, run_id: str) -> None:
        self._until(f"{dag_id} {run_id}", lambda: self._client.run(dag_id, run_id)["state"] in _OVER)
        self._look_for_failures()

    def _until(self, what: str, look: Callable[[], _T | None]) -> _T:
        def found() -> _T | None:
            if seen := look():
                return seen
            self._look_for_failures()
            return None

        return self._waiting.until(what, found)

    def _look_for_failures(self) -> None:
        for run in self._failed_runs():
            dag_id, run_id = run["dag_id"], run["dag_run_id"]
            if (dag_id, run_id) in self._old_failures:
                continue
            tasks = self._client.tasks(dag_id, run_id)
            failed = ", ".join(task for task, state in tasks.items() if state == "failed")
            raise DemoError(
                f"{dag_id} {run_id} failed in {failed}. Log: {self._home.path}/airflow/logs/dag_id={dag_id}. Cure: correct "
                "what it says, and run the demo again: it goes on where it was"
            )

    def _failed_runs(self) -> list[dict[str, Any]]:
        return [run for run in self._client.runs() if run["state"] == "failed"]

    # Telling ----------------------------------------------------------------------------------

    def _say_model(self, run_id: str) -> None:
        dag_id = f"{APPLICATION}__training"
        registered = self._client.xcom(dag_id, run_id, "register")
        gate = self._client.xcom(dag_id, run_id, "gate") or {}
        if registered:
            self._say(f"model version {registered['version']} is champion: {gate.get('message', '')}")
        else:
            self._say(f"the champion stays: {gate.get('message', '')}")

    def _reasons(self) -> dict[str, str]:
        """Model version → why it was trained."""
        dag_id, reasons = f"{APPLICATION}__training", {}
        for run in self._training_runs():
            registered = self._client.xcom(dag_id, run["dag_run_id"], "register")
            collected = self._client.xcom(dag_id, run["dag_run_id"], "collect_reasons") or []
            if registered:
                reasons[str(registered["version"])] = ", ".join(reason["kind"] for reason in collected)
        return reasons

    def table(self) -> list[Month]:
        """Read every predicted month back from the store."""
        reasons, rows = self._reasons(), []
        for month in MONTHS[FIRST_PREDICTED:]:
            batch = self._batch(month)
            if batch is None:
                continue
            inputs = self._document(batch["window_id"], "inputs.json") or {}
            performance = self._document(batch["window_id"], "performance.json") or {}
            decision = self._document(batch["window_id"], "decision.json") or {}
            rows.append(
                Month(
                    month=month,
                    rows=batch["rows"],
                    drifted=len(inputs["drifted"]) if "drifted" in inputs else None,
                    columns=len(inputs["columns"]) if "columns" in inputs else None,
                    test_auc=_auc(batch["reference"]["metrics"]),
                    actual_auc=performance.get("auc"),
                    decision=decision.get("kind", ""),
                    reason=reasons.get(batch["model_version"], ""),
                    dataset_version=batch["reference_dataset_id"],
                    model_version=batch["model_version"],
                )
            )
        return rows


def _auc(metrics: list[dict[str, Any]]) -> float | None:
    whole = (
        m["value"] for m in metrics if m["name"] == "auc" and not m.get("slice") and m.get("split") == "test"
    )
    return next(whole, None)
