"""Operators that judge a trained model and make it a version of the registered model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.exceptions import SpecError
from airflow_mlops.operators.errors import airflow_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_mlops.hooks.mlflow import MLflowHook

#: Where the run keeps the decision.
GATE_FILE = "evaluation/gate.json"


class GateModelOperator(BaseOperator):
    """
    Decide whether a candidate may become the champion.

    Returns ``{"passed", "results", "message"}``, and keeps it with the candidate's MLflow run
    (``evaluation/gate.json`` and the tag ``airflow_mlops.gate``). A candidate that fails is a result, no failure of
    the task: :class:`RegisterModelOperator` skips.

    :param application: name of the application.
    :param rules: see :func:`~airflow_mlops.primitives.evaluation.gate.decide`.
    :param candidate: ``run_id`` and ``metrics``, as ``EvaluateModelOperator`` returns them.
    :param champion: ``metrics`` of the champion on the same examples; ``None`` when there is no champion.
    :param tests: what ``TestModelOperator`` returned; ``None`` when test cases are not asked for.
    :param mlflow_conn_id: Airflow connection of type ``mlflow``.
    """

    template_fields: Sequence[str] = ("rules", "candidate", "champion", "tests")

    def __init__(
        self,
        *,
        application: str,
        rules: list[dict[str, Any]],
        candidate: Any,
        champion: Any = None,
        tests: Any = None,
        mlflow_conn_id: str = "mlflow_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.application = application
        self.rules = rules
        self.candidate = candidate
        self.champion = champion
        self.tests = tests
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """Decide, say it, and keep it with the run."""
        from airflow_mlops.hooks.mlflow import MLflowHook
        from airflow_mlops.primitives.evaluation.cases import TestSummary
        from airflow_mlops.primitives.evaluation.gate import decide

        with airflow_errors():
            candidate = json_value("candidate", self.candidate) or {}
            champion, tests = json_value("champion", self.champion), json_value("tests", self.tests)
            decision = decide(
                self.rules,
                candidate.get("metrics") or [],
                None if champion is None else champion.get("metrics") or [],
                None if tests is None else TestSummary.from_dict(tests),
            )
            self.log.info("Gate of %s:\n%s\n%s", self.application, decision.table(), decision.message)
            if run_id := candidate.get("run_id"):
                mlflow = MLflowHook(self.mlflow_conn_id)
                mlflow.log_json(run_id, GATE_FILE, decision.to_dict())
                mlflow.set_tags(run_id, {"airflow_mlops.gate": "passed" if decision.passed else "failed"})
            return decision.to_dict()


class RegisterModelOperator(BaseOperator):
    """
    Make the model of a run a version of the registered model, and the version the champion.

    Skipped when the gate did not let the candidate pass. A retry finds the version again by its run. The alias
    ``champion`` only moves forward: a late retry of an old run leaves a newer champion alone.
    Returns ``{"model", "version", "run_id", "champion"}``, the last one whether the version is the champion now.

    :param application: name of the application.
    :param model: name of the registered model.
    :param run_id: the MLflow run that trained it.
    :param decision: what :class:`GateModelOperator` returned.
    :param lineage: see :class:`~airflow_mlops.primitives.registration.lineage.Lineage`; tags of the version.
    :param evaluation: ``metrics`` of the test split; those of the whole split go with the version, as the promise
        that monitoring holds it to.
    :param mlflow_conn_id: Airflow connection of type ``mlflow``.
    """

    template_fields: Sequence[str] = ("model", "run_id", "decision", "lineage", "evaluation")

    def __init__(
        self,
        *,
        application: str,
        model: str,
        run_id: Any,
        decision: Any,
        lineage: Any = None,
        evaluation: Any = None,
        mlflow_conn_id: str = "mlflow_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.application = application
        self.model = model
        self.run_id = run_id
        self.decision = decision
        self.lineage = lineage
        self.evaluation = evaluation
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """Register, then move the alias."""
        from airflow_mlops.hooks.mlflow import MLflowHook
        from airflow_mlops.primitives.registration.lineage import Lineage

        with airflow_errors():
            decision = json_value("decision", self.decision)
            if decision is None or "passed" not in decision:
                raise SpecError(f"decision must be what GateModelOperator returned, got {decision!r}.")
            if not decision["passed"]:
                raise AirflowSkipException(f"Not registered. {decision.get('message', '')}".strip())
            lineage = Lineage.from_dict(
                {"application": self.application, **(json_value("lineage", self.lineage) or {})}
            )
            mlflow = MLflowHook(self.mlflow_conn_id)
            version = mlflow.register_model(
                self.model, self.run_id, tags={**lineage.to_tags(), **self._promise()}
            )
            is_champion = self._promote(mlflow, version)
            self.log.info(
                "Model %s version %s: %s", self.model, version, mlflow.model_url(self.model, version)
            )
            return {"model": self.model, "version": version, "run_id": self.run_id, "champion": is_champion}

    def _promise(self) -> dict[str, str]:
        from airflow_mlops.primitives.registration.lineage import promise_to_tags

        return promise_to_tags((json_value("evaluation", self.evaluation) or {}).get("metrics") or [])

    def _promote(self, mlflow: MLflowHook, version: str) -> bool:
        champion = mlflow.champion(self.model)
        if champion is not None and int(champion.version) > int(version):
            self.log.warning(
                "Version %s of %s became champion after version %s was trained, and stays it.",
                champion.version,
                self.model,
                version,
            )
            return False
        mlflow.set_champion(self.model, version)
        return True


def json_value(name: str, value: Any) -> Any:
    """A template field that may have been rendered to text.

    :raises SpecError: the text is no JSON.
    """
    if not isinstance(value, str):
        return value
    if value in ("", "None"):
        return None
    try:
        return json.loads(value)
    except ValueError as error:
        raise SpecError(
            f"{name} must be JSON, got {value[:200]!r}. "
            "Cure: hand over the task's output itself, or end the template with `| tojson`."
        ) from error
