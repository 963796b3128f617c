"""Operators that make a trained model a version of the registered model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.exceptions import SpecError
from airflow_mlops.operators.errors import MLOpsTask, airflow_errors
from airflow_mlops.operators.fields import json_value
from airflow_mlops.operators.links import (
    MLflowModelLink,
    MLflowReportLink,
    MLflowRunLink,
    show_model,
    show_run,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context
    from airflow.sdk.types import Logger

    from airflow_mlops.hooks.mlflow.hook import MLflowHook


class RegisterModelOperator(MLOpsTask):
    """
    Make the model of a run a version of the registered model, and the version the champion.

    Skipped when the gate did not let the candidate pass. A retry finds the version again by its run. The alias
    ``champion`` only moves forward: a late retry of an old run leaves a newer champion alone. The alias
    ``challenger`` names the newest version while it is newer than the champion: one that waits for its turn.

    The version gets a model card as its description and, with its run, as ``model_card.md`` and ``model_card.html``.
    Returns ``{"model", "version", "run_id", "champion"}``, the last one whether the version is the champion now.

    :param application: name of the application.
    :param model: name of the registered model.
    :param run_id: the MLflow run that trained it.
    :param decision: what :class:`~airflow_mlops.operators.evaluation.gate.GateModelOperator` returned.
    :param lineage: see :class:`~airflow_mlops.primitives.registration.lineage.Lineage`; tags of the version.
    :param evaluation: ``metrics`` of the test split; those of the whole split go with the version, as the promise
        that monitoring holds it to.
    :param about: for the model card: ``description``, ``owner``, and ``limits``, a list of what is known of them.
    :param promote: make the version the champion at once; without, it is the challenger until somebody does.
    :param mlflow_conn_id: Airflow connection of type ``mlflow``.
    """

    template_fields: Sequence[str] = ("model", "run_id", "decision", "lineage", "evaluation", "about")
    operator_extra_links = (MLflowRunLink(), MLflowReportLink(), MLflowModelLink())

    def __init__(
        self,
        *,
        application: str,
        model: str,
        run_id: Any,
        decision: Any,
        lineage: Any = None,
        evaluation: Any = None,
        about: dict[str, Any] | None = None,
        promote: bool = True,
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
        self.about = about
        self.promote = promote
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """Register, write the model card, then move the aliases."""
        from airflow_mlops.hooks.mlflow.hook import MLflowHook
        from airflow_mlops.primitives.registration.lineage import Lineage

        with airflow_errors():
            decision = json_value("decision", self.decision)
            if decision is None or "passed" not in decision:
                raise SpecError(f"decision must be what GateModelOperator returned, got {decision!r}.")
            if not decision.get("register", decision["passed"]):
                raise AirflowSkipException(f"Not registered. {decision.get('message', '')}".strip())
            lineage = Lineage.from_dict(
                {"application": self.application, **(json_value("lineage", self.lineage) or {})}
            )
            mlflow = MLflowHook(self.mlflow_conn_id)
            version = mlflow.register_model(
                self.model, self.run_id, tags={**lineage.to_tags(), **self._promise()}
            )
            self._write_card(mlflow, version, decision)
            leads = self.promote and promote_version(mlflow, self.model, version, self.log)
            name_challenger(mlflow, self.model)
            show_run(self, mlflow, self.run_id)
            show_model(self, mlflow, self.model, version)
            self.log.info(
                "Model %s version %s: %s", self.model, version, mlflow.model_url(self.model, version)
            )
            return {"model": self.model, "version": version, "run_id": self.run_id, "champion": leads}

    def _metrics(self) -> list[dict[str, Any]]:
        return list((json_value("evaluation", self.evaluation) or {}).get("metrics") or [])

    def _promise(self) -> dict[str, str]:
        from airflow_mlops.primitives.registration.lineage import promise_to_tags

        return promise_to_tags(self._metrics())

    def _write_card(self, mlflow: MLflowHook, version: str, decision: dict[str, Any]) -> None:
        """Describe the version for people; a run that keeps no record has nothing to be described by."""
        from airflow_mlops.primitives.registration.card import CARD_HTML, CARD_MARKDOWN, model_card

        record = mlflow.record(self.run_id)
        if record is None:
            self.log.info("Run %s keeps no record: no model card", self.run_id)
            return
        metrics = self._metrics() or mlflow.evaluation(self.run_id)
        card = model_card(self.model, version, record, metrics, decision, self.about or {})
        mlflow.log_text(self.run_id, CARD_MARKDOWN, card.to_markdown())
        mlflow.log_text(self.run_id, CARD_HTML, card.to_html())
        mlflow.describe_version(self.model, version, card.to_markdown())


def promote_version(mlflow: MLflowHook, model: str, version: str, log: Logger) -> bool:
    """Make a version the champion, unless a newer one is; returns whether it is now.

    Of several that do this at once, the newest version stays: each looks again after it has moved the alias. A
    version that was promoted before is not promoted again, since somebody may have taken it back.
    """
    from airflow_mlops.primitives.registration.aliases import DONE, PENDING, PROMOTED_TAG, may_lead

    before = {found.version: found.tags.get(PROMOTED_TAG) for found in mlflow.versions(model)}
    champion = mlflow.champion(model)
    if before.get(version) == DONE:
        return champion is not None and champion.version == version
    if not may_lead(int(version), int(champion.version) if champion else None):
        name = champion.version if champion else ""
        log.warning("Version %s of %s is newer than version %s, and stays champion", name, model, version)
        return False
    # One that was promoted before this began was seen, and is older or was taken back: it stays where it is.
    known = set() if before.get(version) == PENDING else {v for v, state in before.items() if state == DONE}
    mlflow.set_version_tags(model, version, {PROMOTED_TAG: PENDING})
    mlflow.set_champion(model, version)
    promoted = [
        int(v.version) for v in mlflow.versions(model) if v.tags.get(PROMOTED_TAG) and v.version not in known
    ]
    newest = max((int(version), *promoted))
    if newest > int(version):
        mlflow.set_champion(model, str(newest))
    mlflow.set_version_tags(model, version, {PROMOTED_TAG: DONE})
    return newest == int(version)


def name_challenger(mlflow: MLflowHook, model: str) -> None:
    """Let the alias ``challenger`` name the newest version, while it is newer than the champion."""
    from airflow_mlops.hooks.mlflow.hook import CHALLENGER
    from airflow_mlops.primitives.registration.aliases import challenger

    while True:
        champion = mlflow.champion(model)
        versions = [int(found.version) for found in mlflow.versions(model)]
        wanted = challenger(versions, int(champion.version) if champion else None)
        found = mlflow.by_alias(model, CHALLENGER)
        now = int(found.version) if found else None
        if now == wanted:
            return
        # Looked at again afterwards: somebody else may have registered or promoted meanwhile.
        if wanted is None:
            mlflow.drop_alias(model, CHALLENGER)
        else:
            mlflow.set_alias(model, CHALLENGER, str(wanted))
