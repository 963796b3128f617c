"""Operators that collect the reasons to train, and answer each of them once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.assets import code_asset, retraining_asset
from airflow_mlops.operators.errors import MLOpsTask
from airflow_mlops.operators.inlets import read_events

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow.sdk import Context

    from airflow_mlops.primitives.retraining import Answers, Reason, ReasonKind

#: Key of the memory in the asset state store of the retraining asset.
ANSWERS = "answers"


class ReasonsOperator(MLOpsTask):
    """
    Base of the operators around the retraining asset.

    :param application: name of the application.
    """

    def __init__(self, *, application: str, **kwargs: Any) -> None:
        self.asset = retraining_asset(application)
        # By name: declared once more, without its watchers, the asset would lose them.
        self.code = Asset.ref(name=code_asset(application).name)
        kwargs["inlets"] = [*(kwargs.get("inlets") or ()), self.asset, self.code]
        super().__init__(**kwargs)
        self.application = application

    def _answers(self, context: Context) -> Answers:
        from airflow_mlops.primitives.retraining import Answers

        return Answers.from_dict(context["asset_state_store"][self.asset].get(ANSWERS))

    def _store(self, context: Context, answers: Answers) -> None:
        context["asset_state_store"][self.asset].set(ANSWERS, answers.to_dict())

    def _drain(self, context: Context, answers: Answers) -> tuple[list[Reason], bool]:
        """Reasons that events since the watermark give, and whether every event could be read."""
        from airflow_mlops.primitives.retraining import drain_from, reason_from_event

        since, reasons, complete = drain_from(answers), [], True
        for asset, default in self._sources():
            events, all_of_them = read_events(context, asset, since)
            reasons += [reason_from_event(one.id, one.timestamp, one.extra, default) for one in events]
            complete &= all_of_them
        return [reason for reason in reasons if reason is not None], complete

    def _sources(self) -> list[tuple[Any, ReasonKind]]:
        """Assets whose events are reasons, and of which kind an event is that does not say so."""
        return [(Asset(name=self.asset.name, uri=self.asset.uri), "on_demand"), (self.code, "new_code")]


class CollectReasonsOperator(ReasonsOperator):
    """
    Drain every reason to train since the watermark and take those that nobody has answered.

    Returns the reasons as a list of ``{"id", "kind", "at", "evidence"}``. Skipped, and with it the whole run, when
    there is none. A run that a person, another DAG or the clock started is a reason of its own, and so is a Clear.

    :param why: what the person wrote into the trigger form.
    """

    template_fields: Sequence[str] = ("why",)

    def __init__(self, *, why: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.why = why

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Take the reasons; taking them again gives the same ones."""
        from airflow_mlops.primitives.retraining import describe, take

        answers, run_id = self._answers(context), context["ti"].run_id
        drained, complete = self._drain(context, answers)
        if not complete:
            drained += self._handed(context, {reason.at for reason in drained})
        reasons, answers = take(answers, run_id, drained, [*self._own(context)])
        if not reasons:
            raise AirflowSkipException("Every reason to train has been answered already: nothing to do.")
        self._store(context, answers)
        self.log.info("Training because of: %s", describe(reasons))
        return [reason.to_dict() for reason in reasons]

    def _handed(self, context: Context, known: set[str]) -> Iterator[Reason]:
        """Reasons of the events that started this run: Airflow hands those over itself, though without their ids."""
        from airflow_mlops.primitives.retraining import reason_from_event

        for asset, default in self._sources():
            for event in context["triggering_asset_events"].get(asset, ()):
                at = event.timestamp
                reason = reason_from_event(at.isoformat(), at, event.extra, default)
                if reason is not None and reason.at not in known:
                    yield reason

    def _own(self, context: Context) -> Iterator[Reason]:
        from airflow_mlops.primitives.retraining import Reason

        run = context["dag_run"]
        run_type, at = str(getattr(run.run_type, "value", run.run_type)), run.run_after.isoformat()
        if run_type == "scheduled":
            yield Reason(f"schedule:{run.run_id}", "schedule", at)
        elif run_type != "asset_triggered":
            evidence = {"who": run.triggering_user_name, "why": self.why}
            wish = {key: value for key, value in evidence.items() if value}
            yield Reason(f"on_demand:{run.run_id}", "on_demand", at, wish)
        if run.clear_number:
            yield Reason(f"on_demand:{run.run_id}:{run.clear_number}", "on_demand", at, {"why": "cleared"})


class AnswerReasonsOperator(ReasonsOperator):
    """
    Close the run's reasons, and look once more for those that came meanwhile.

    Runs whatever happened before it. The reasons count as answered when the gate has refused the model, or the model
    is registered; after a failure they are free again for the next run. Returns the ids of reasons that came meanwhile.

    :param reasons: what :class:`CollectReasonsOperator` returned; empty when it failed or skipped.
    :param decision: what ``GateModelOperator`` returned; empty when the run failed before.
    :param registered: what ``RegisterModelOperator`` returned; empty when it failed or skipped.
    """

    template_fields: Sequence[str] = ("reasons", "decision", "registered")

    def __init__(self, *, reasons: Any, decision: Any, registered: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reasons = reasons
        self.decision = decision
        self.registered = registered

    def execute(self, context: Context) -> list[str]:
        """Write the memory, then drain again."""
        from airflow_mlops.primitives.retraining import answer, unanswered

        answers, run_id = self._answers(context), context["ti"].run_id
        own = [reason["id"] for reason in self.reasons or ()]
        if not own:
            self.log.info("This run has taken no reason.")
        succeeded = bool(self.decision) and bool(
            self.registered or not self.decision.get("register", self.decision["passed"])
        )
        drained, _ = self._drain(context, answers)
        came = [reason.id for reason in unanswered(answers, run_id, drained) if reason.id not in own]
        self._store(context, answer(answers, run_id, succeeded=succeeded, reasons=own))
        return came


class RearmOperator(MLOpsTask):
    """
    Wake the training DAG again when reasons came while it worked; skipped otherwise.

    :param application: name of the application.
    :param pending: what :class:`AnswerReasonsOperator` returned.
    """

    template_fields: Sequence[str] = ("pending",)

    def __init__(self, *, application: str, pending: Any, **kwargs: Any) -> None:
        self.asset = retraining_asset(application)
        kwargs["outlets"] = [self.asset]
        super().__init__(**kwargs)
        self.application = application
        self.pending = pending

    def execute(self, context: Context) -> None:
        """Emit an event that wakes and is no reason of its own."""
        if not self.pending:
            raise AirflowSkipException("No reason came while this run worked.")
        context["outlet_events"][self.asset].extra = {"reason": "rearm", "pending": list(self.pending)}
