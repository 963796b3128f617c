"""Operators that collect the reasons to train, and answer each of them once."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_mlops.assets import code_asset, retraining_asset, training_asset
from airflow_mlops.operators.errors import MLOpsTask, airflow_errors
from airflow_mlops.operators.fields import json_value
from airflow_mlops.operators.training.runs import task_states
from airflow_mlops.quirks.events import read_events

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow.sdk import Context

    from airflow_mlops.primitives.reasons import Answers, Reason, ReasonKind

#: So long after its time the first run of the clock means that the DAG was switched on meanwhile.
SWITCHED_ON = timedelta(minutes=5)
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
        from airflow_mlops.primitives.reasons import Answers

        return Answers.from_dict(context["asset_state_store"][self.asset].get(ANSWERS))

    def _store(self, context: Context, answers: Answers) -> None:
        context["asset_state_store"][self.asset].set(ANSWERS, answers.to_dict())

    def _tell(self, context: Context, **extra: Any) -> None:
        """Say it on the page of the DAG run, and to whoever waits for the asset of the training."""
        from airflow_mlops.contract.protocol.storable import storable

        for outlet in self.outlets:
            if getattr(outlet, "name", None) == training_asset(self.application).name:
                context["outlet_events"][outlet].extra = storable(extra)

    def _drain(self, context: Context, answers: Answers) -> tuple[list[Reason], bool]:
        """Reasons that events since the watermark give, and whether every event could be read."""
        from airflow_mlops.primitives.reasons import drain_from, reason_from_event

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
    With ``training_asset(application)`` among its outlets, the event tells why the run trains.

    Reasons of a run that never said what became of them are looked up: a model version, or a run that the gate
    refused, carries the ids that it answers.

    :param why: what the person wrote into the trigger form.
    :param model: name of the registered model; without, nothing is looked up.
    :param experiment: MLflow experiment of the trainings.
    :param mlflow_conn_id: Airflow connection of type ``mlflow``.
    """

    template_fields: Sequence[str] = ("why",)

    def __init__(
        self,
        *,
        why: str = "",
        model: str = "",
        experiment: str = "",
        mlflow_conn_id: str = "mlflow_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.why = why
        self.model = model
        self.experiment = experiment
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Take the reasons; taking them again gives the same ones."""
        from airflow_mlops.primitives.reasons import Answers, describe, take

        run_id = context["ti"].run_id
        answers = self._closed(self._answers(context), run_id)
        drained, _ = self._drain(context, answers)
        own = self._own(context, first=answers == Answers())
        reasons, answers = take(answers, run_id, [*self._handed(context), *drained], [*own])
        if not reasons:
            raise AirflowSkipException("Every reason to train has been answered already: nothing to do.")
        self._store(context, answers)
        for reason in (one for one in reasons if one.altered):
            self.log.warning(
                "What event %s says cannot be kept as it is; kept: %s", reason.id, reason.evidence
            )
        why = describe(reasons)
        self.log.info("Training because of: %s", why)
        self._tell(context, phase="begun", message=why, reasons=[reason.to_json() for reason in reasons])
        return [reason.to_json() for reason in reasons]

    def _closed(self, answers: Answers, run_id: str) -> Answers:
        """The memory without runs that ended before they could say so."""
        from airflow_mlops.primitives.reasons import answer, unclosed

        if not self.model:
            return answers
        for run, ids in unclosed(answers, run_id).items():
            with airflow_errors():
                answered = self._was_answered(run, ids)
            self.log.info(
                "Run %s never said whether it answered its reasons; it %s.",
                run,
                "did" if answered else "did not",
            )
            answers = answer(answers, run, succeeded=answered)
        return answers

    def _was_answered(self, run_id: str, ids: Sequence[str]) -> bool:
        from airflow_mlops.hooks.mlflow.hook import MLflowHook
        from airflow_mlops.primitives.reasons import carries
        from airflow_mlops.primitives.registration.lineage import REASON_IDS_TAG

        mlflow = MLflowHook(self.mlflow_conn_id)
        if any(carries(version.tags.get(REASON_IDS_TAG, ""), ids) for version in mlflow.versions(self.model)):
            return True
        refused = mlflow.refused_runs(self.experiment, self.application, run_id) if self.experiment else []
        return any(carries(run.tags.get(REASON_IDS_TAG, ""), ids) for run in refused)

    def _handed(self, context: Context) -> Iterator[Reason]:
        """Reasons of the events that started this run, whatever their time: Airflow hands those over itself."""
        from airflow_mlops.primitives.reasons import reason_from_event

        for asset, default in self._sources():
            for event in context["triggering_asset_events"].get(asset, ()):
                reason = reason_from_event("", event.timestamp, event.extra, default)
                if reason is not None:
                    yield reason

    def _own(self, context: Context, *, first: bool) -> Iterator[Reason]:
        """Reasons that follow from the run itself.

        :param first: the application has never taken a reason.
        """
        from airflow_mlops.contract.protocol.storable import storable
        from airflow_mlops.primitives.reasons import Reason

        run = context["dag_run"]
        run_type, at = str(getattr(run.run_type, "value", run.run_type)), run.run_after.isoformat()
        late = run.start_date - run.run_after if run.start_date else timedelta()
        if run_type == "scheduled" and first and late > SWITCHED_ON:
            self.log.warning(
                "This DAG was switched on after %s, a time of its schedule that was over: no reason to train. The next "
                "time of the schedule is one. Cure, to train now: trigger the DAG.",
                at,
            )
        elif run_type == "scheduled":
            yield Reason(f"schedule:{run.run_id}", "schedule", at)
        elif run_type != "asset_triggered":
            evidence = {"who": run.triggering_user_name, "why": self.why}
            wish = storable({key: value for key, value in evidence.items() if value})
            yield Reason(f"on_demand:{run.run_id}", "on_demand", at, wish)
        if run.clear_number:
            yield Reason(f"on_demand:{run.run_id}:{run.clear_number}", "on_demand", at, {"why": "cleared"})


class AnswerReasonsOperator(ReasonsOperator):
    """
    Close the run's reasons, and look once more for those that came meanwhile.

    Runs whatever happened before it. The reasons count as answered when the gate has refused the model, or the model
    is registered; after a failure they are free again for the next run. Returns the ids of reasons that came meanwhile.
    With ``training_asset(application)`` among its outlets, the event tells how the run ended. An alarm that no new
    model has answered, because the gate refused the candidate, is a warning.

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
        from airflow_mlops.primitives.reasons import answer, reasons_of, unanswered

        answers, run_id = self._answers(context), context["ti"].run_id
        reasons = reasons_of(self.reasons)
        own = [reason.id for reason in reasons]
        drained, _ = self._drain(context, answers)
        came = [reason.id for reason in unanswered(answers, run_id, drained) if reason.id not in own]
        succeeded = is_over(self.decision, self.registered)
        self._store(context, answer(answers, run_id, succeeded=succeeded, reasons=own))
        if own:
            self._say(context, reasons)
        else:
            self.log.info("This run has taken no reason.")
        return came

    def _say(self, context: Context, reasons: Sequence[Reason]) -> None:
        """How the run ended, for people."""
        from airflow_mlops.primitives.reasons import describe

        why = describe(reasons)
        alarmed = any(reason.kind in ("performance", "drift") for reason in reasons)
        if self.registered:
            outcome, message = "registered", f"Version {self.registered['version']} is registered."
        elif is_over(self.decision, self.registered):
            outcome = "refused"
            message = f"The gate refused the candidate, so no new model answers the reasons. {self.decision.get('message', '')}"
            if alarmed:
                message += " The model that raised the alarm stays in use: somebody has to look."
        else:
            outcome, message = "failed", "The run came to no model: its reasons wait for the next one."
        message = message.strip()
        say = self.log.warning if outcome == "refused" and alarmed else self.log.info
        say("%s Trained because of: %s", message, why)
        self._tell(context, phase="ended", outcome=outcome, message=message, why=why)


def is_over(decision: Mapping[str, Any] | None, registered: Any) -> bool:
    """Whether a training came to its end: the gate refused the candidate, or it is registered."""
    return bool(decision and (registered or not decision.get("register", decision["passed"])))


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
        from airflow_mlops.contract.protocol.storable import storable

        if not self.pending:
            raise AirflowSkipException("No reason came while this run worked.")
        extra = storable({"reason": "rearm", "pending": list(self.pending)})
        context["outlet_events"][self.asset].extra = extra


class ConcludeTrainingOperator(MLOpsTask):
    """
    Fail where a training run came to no end and Airflow would call it a success.

    A run that a person marks as failed skips the tasks that have not begun, and its teardowns still run; Airflow then
    judges the run by the skipped ones. This operator belongs behind those teardowns, as a teardown with
    ``on_failure_fail_dagrun``. A run that took no reason is none to be concluded.

    :param reasons: what :class:`CollectReasonsOperator` returned.
    :param decision: what ``GateModelOperator`` returned.
    :param registered: what ``RegisterModelOperator`` returned.
    :param judged: task id by whose state Airflow judges the run: where that has failed, nothing is to be added.
    :param watched: task ids of the teardowns before it, whose failure is that of the run.
    """

    template_fields: Sequence[str] = ("reasons", "decision", "registered")

    def __init__(
        self,
        *,
        reasons: Any,
        decision: Any,
        registered: Any,
        judged: str = "register",
        watched: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.reasons = reasons
        self.decision = decision
        self.registered = registered
        self.judged = judged
        self.watched = list(watched)

    def execute(self, context: Context) -> None:
        """Look at what the run came to, and at the teardowns before."""
        broken = [name for name in self.watched if self._failed(context, name)]
        if broken:
            raise AirflowFailException(
                f"{', '.join(broken)} failed, so it is not written down which reasons this run has answered. The next "
                "run looks for the model that answers them. Cure: look into the task's log, and clear it."
            )
        reasons, decision, registered = (
            json_value(name, getattr(self, name)) for name in ("reasons", "decision", "registered")
        )
        if reasons and not is_over(decision, registered) and not self._failed(context, self.judged):
            raise AirflowFailException(
                "This run took reasons to train and came to no decision: somebody marked the run or a task as failed, "
                "skipped or successful. Its reasons wait for the next run. Cure: clear the task where it ended, or "
                "start a new run."
            )

    def _failed(self, context: Context, task_id: str) -> bool:
        ti = context["ti"]
        state = task_states(context, ti.dag_id, ti.run_id, task_id).get(task_id)
        return state in ("failed", "upstream_failed")
