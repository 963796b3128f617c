"""The operator that judges a trained model."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import ContractError, DataError, SpecError
from airflow_mlops.hooks.scratch import scratch_folder
from airflow_mlops.operators.errors import MLOpsTask, airflow_errors
from airflow_mlops.operators.fields import json_value
from airflow_mlops.operators.links import PAGE_FILE, MLflowReportLink, MLflowRunLink, show_run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from airflow_mlops.hooks.mlflow.hook import MLflowHook
    from airflow_mlops.primitives.evaluation.evidence import Evidence
    from airflow_mlops.primitives.evaluation.gate import GateDecision
    from airflow_mlops.primitives.evaluation.predicted import PredictedRows, TestSplit
    from airflow_mlops.stores.datasets.versions import DatasetStore

#: Where the run keeps the decision and the report.
GATE_FILE, REPORT_FILE = "evaluation/gate.json", "evaluation/report.json"


class GateModelOperator(MLOpsTask):
    """
    Decide whether a candidate may become the champion.

    Returns ``{"passed", "register", "mode", "results", "message"}``, and keeps it with the candidate's MLflow run
    (``evaluation/gate.json`` and the tag ``airflow_mlops.gate``), beside a report for people
    (``evaluation/report.html``) and programs (``evaluation/report.json``). A candidate that fails is a result, no
    failure of the task: ``RegisterModelOperator`` skips. With ``dataset`` and ``store``, metrics are measured from
    the predictions of candidate and champion on the same rows; without, the model code's own figures decide.

    :param application: name of the application.
    :param rules: see :func:`~airflow_mlops.primitives.evaluation.gate.decide`.
    :param candidate: what ``EvaluateModelOperator`` returned; ``run_id`` and ``metrics`` at least.
    :param champion: what ``EvaluateChampionOperator`` returned; ``None`` when there is no champion.
    :param tests: what ``TestModelOperator`` returned; ``None`` when test cases are not asked for.
    :param dataset: what ``ProvisionDatasetOperator`` returned.
    :param store: URI of the artifact store.
    :param paradigm: what was learned, which decides what can be measured.
    :param threshold: the probability from which a prediction counts as 1.
    :param seed: of the sample that stands for all rows of a clustering; that of ``EvaluateModelOperator``.
    :param mode: ``dry_run`` lets a candidate that fails through, with the tag ``dry_run_failed``.
    :param mlflow_conn_id: Airflow connection of type ``mlflow``.
    """

    template_fields: Sequence[str] = ("rules", "candidate", "champion", "tests", "dataset")
    operator_extra_links = (MLflowRunLink(), MLflowReportLink())

    def __init__(
        self,
        *,
        application: str,
        rules: list[dict[str, Any]],
        candidate: Any,
        champion: Any = None,
        tests: Any = None,
        dataset: Any = None,
        store: str | None = None,
        paradigm: str = "classification",
        threshold: float = 0.5,
        seed: int = 0,
        mode: str = "enforce",
        mlflow_conn_id: str = "mlflow_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.application = application
        self.rules = rules
        self.candidate = candidate
        self.champion = champion
        self.tests = tests
        self.dataset = dataset
        self.store = store
        self.paradigm = paradigm
        self.threshold = threshold
        self.seed = seed
        self.mode = mode
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Decide, say it, and keep it with the run."""
        from airflow_mlops.hooks.mlflow.hook import MLflowHook
        from airflow_mlops.primitives.evaluation.gate import judge

        with airflow_errors():
            if self.mode not in ("enforce", "dry_run"):
                raise SpecError(f"mode must be enforce or dry_run, got {self.mode!r}.")
            candidate = json_value("candidate", self.candidate) or {}
            champion = json_value("champion", self.champion)
            mlflow = MLflowHook(self.mlflow_conn_id) if candidate.get("run_id") else None
            evidence = self._evidence(candidate, champion, mlflow)
            decision = judge(self.rules, evidence, "dry_run" if self.mode == "dry_run" else "enforce")
            self.log.info("Gate of %s:\n%s\n%s", self.application, decision.table(), decision.message)
            if mlflow is not None:
                about = self._about(context, candidate, champion, evidence)
                self._keep(mlflow, candidate["run_id"], decision, evidence, about)
            return decision.to_dict()

    def _evidence(
        self, candidate: Mapping[str, Any], champion: Mapping[str, Any] | None, mlflow: MLflowHook | None
    ) -> Evidence:
        from airflow_mlops.primitives.evaluation.cases import TestSummary
        from airflow_mlops.primitives.evaluation.evidence import Evidence
        from airflow_mlops.primitives.evaluation.rules import read_rules

        rules, tests = read_rules(self.rules), json_value("tests", self.tests)
        measured = self._measured([name for rule in rules for name in rule.columns], candidate, champion)
        failure = str(measured.pop("failure", "") or (champion or {}).get("failure") or "")
        size = mlflow.directory_size(candidate["run_id"], "model") if mlflow else 0
        return Evidence(
            # What the model code said of a metric comes first, to be held against what was measured.
            metrics=[*(candidate.get("reported") or []), *(candidate.get("metrics") or [])],
            champion=None if champion is None or failure else champion.get("metrics") or [],
            champion_failure=failure,
            tests=None if tests is None else TestSummary.from_dict(tests),
            model_bytes=size or None,
            **measured,
        )

    def _measured(
        self, columns: list[str], candidate: Mapping[str, Any], champion: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Predictions of both beside the truth, and the columns that make slices."""
        from airflow_mlops.primitives.evaluation.predicted import read_columns
        from airflow_mlops.stores.predictions import test_split

        dataset = json_value("dataset", self.dataset)
        if not dataset or not self.store or not candidate.get("predictions"):
            return {}
        with scratch_folder() as folder:
            scratch, datasets = Path(folder), self._datasets()
            split = test_split(datasets, dataset["dataset_id"], scratch)
            rows = self._read(datasets, split, candidate["predictions"], scratch)
            found: dict[str, Any] = {"rows": rows, "columns": read_columns(split, columns)}
            if rows is not None and champion and champion.get("predictions"):
                try:
                    found["champion_rows"] = self._read(datasets, split, champion["predictions"], scratch)
                except (ContractError, DataError) as error:
                    self.log.warning("The champion's predictions cannot be compared: %s", error)
                    found["failure"] = str(error)
            return found

    def _read(
        self, datasets: DatasetStore, split: TestSplit, key: str, scratch: Path
    ) -> PredictedRows | None:
        from airflow_mlops.primitives.evaluation.predicted import read_predicted
        from airflow_mlops.stores.predictions import TestPredictions

        predictions = TestPredictions(datasets).local(key, scratch)
        return read_predicted(
            split, predictions, paradigm=self.paradigm, threshold=self.threshold, seed=self.seed
        )

    def _about(
        self,
        context: Context,
        candidate: Mapping[str, Any],
        champion: Mapping[str, Any] | None,
        evidence: Evidence,
    ) -> dict[str, Any]:
        ti = context.get("ti")
        dataset = json_value("dataset", self.dataset) or {}
        return {
            "application": self.application,
            "paradigm": self.paradigm,
            "run_id": candidate["run_id"],
            "dataset_id": dataset.get("dataset_id"),
            "rows": len(evidence.rows) if evidence.rows else None,
            "champion": f"version {champion['version']}" if champion and champion.get("version") else None,
            "dag_run": f"{ti.dag_id}/{ti.run_id}" if ti else None,
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _keep(
        self,
        mlflow: MLflowHook,
        run_id: str,
        decision: GateDecision,
        evidence: Evidence,
        about: Mapping[str, Any],
    ) -> None:
        from airflow_mlops.hooks.mlflow.runs import GATE_TAG
        from airflow_mlops.primitives.evaluation.report import build_report, render_page

        report = build_report(evidence, decision, about)
        mlflow.log_json(run_id, GATE_FILE, decision.to_dict())
        mlflow.log_json(run_id, REPORT_FILE, report)
        mlflow.log_text(run_id, PAGE_FILE, render_page(report))
        mlflow.set_tags(run_id, {GATE_TAG: decision.outcome})
        self.log.info("Report: %s of MLflow run %s", PAGE_FILE, run_id)
        show_run(self, mlflow, run_id)

    def _datasets(self) -> DatasetStore:
        from airflow_mlops.hooks.store.open import open_store
        from airflow_mlops.stores.datasets.versions import DatasetStore

        return DatasetStore(open_store(str(self.store)), self.application)
