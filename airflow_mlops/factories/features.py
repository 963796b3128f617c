"""Features: a source → published rows → feature views that applications share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, CronDataIntervalTimetable, Param, TriggerRule, chain

from airflow_mlops.factories.application import job_task_timeout, runner_of
from airflow_mlops.factories.schedules import schedule_of
from airflow_mlops.factories.verbatim import Template, VerbatimDag
from airflow_mlops.operators.features.announce import AnnounceFeaturesOperator
from airflow_mlops.operators.features.apply import ApplyFeaturesOperator, MaterializeFeaturesOperator
from airflow_mlops.operators.features.extract import ExtractFeaturesOperator
from airflow_mlops.operators.features.publish import PublishFeaturesOperator
from airflow_mlops.operators.features.transform import PrepareFeaturesOperator, TransformFeaturesOperator
from airflow_mlops.spec.values import format_duration

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

    from airflow_mlops.spec import FeaturesSpec
    from airflow_mlops.spec.features.views import ServiceView, View

__all__ = ["build_features_dag", "definitions_of"]

_SUMMARY = "Extracts new rows, transforms and checks them, publishes them, and tells Feast."
#: Before any row that a backfill may ask for.
_START = datetime(1970, 1, 1, tzinfo=UTC)


def build_features_dag(spec: FeaturesSpec) -> DAG:
    """Build ``<name>__features``."""
    name, extract, publish = spec.features, spec.extract, spec.publish
    common: dict[str, Any] = {"features": name, "store": spec.store}
    with _features_dag(spec) as dag:
        start, end = _window(spec)
        extracted = ExtractFeaturesOperator(
            task_id="extract",
            source=_source(spec),
            start=start,
            end=end,
            **common,
        )
        made = _made(spec, extracted.output)
        published = PublishFeaturesOperator(
            task_id="publish",
            transformed=made.output,
            timestamp=publish.timestamp,
            keys=list(publish.keys),
            created=publish.created,
            partition=publish.partition,
            assumptions=[rule.model_dump(mode="json", exclude_none=True) for rule in spec.assumptions],
            late=format_duration(extract.late) if extract.late else None,
            **common,
        )
        apply = _apply(spec, published.output)
        # Behind `published` as well: without new rows they are skipped, and `apply` is not.
        news: list[BaseOperator] = []
        if spec.materialize and (online := [view.name for view in spec.views if view.online]):
            news.append(_materialize(spec, online))
        news.append(AnnounceFeaturesOperator(task_id="announce", features=name, published=published.output))
        chain(published, apply, *news)
        published >> news
    return dag


def definitions_of(spec: FeaturesSpec) -> list[dict[str, Any]]:
    """The views and services of a feature pipeline as JSON values; sources lie where it publishes."""
    views = [_view_of(spec, view) for view in spec.views]
    services = [
        {"kind": "feature_service", "name": name, "views": [_member_of(member) for member in members]}
        for name, members in spec.services.items()
    ]
    return [*views, *services]


def _features_dag(spec: FeaturesSpec) -> DAG:
    return VerbatimDag(
        dag_id=f"{spec.features}__features",
        description=_SUMMARY,
        doc_md=f"{spec.description}\n\n{_SUMMARY}\n\n```yaml\n{spec.source_text}\n```",
        schedule=_schedule(spec),
        start_date=_START,
        catchup=False,
        # Two runs would extract the same rows and race for one snapshot.
        max_active_runs=1,
        tags=["mlops", spec.features, *spec.tags],
        params=_form(),
        default_args={
            "owner": spec.owner,
            "retries": spec.retries,
            "retry_delay": spec.retry_delay,
            "execution_timeout": spec.task_timeout,
        },
    )


def _schedule(spec: FeaturesSpec) -> Any:
    if isinstance(spec.schedule, str) and spec.extract.window == "interval":
        return CronDataIntervalTimetable(spec.schedule, timezone="UTC")
    return schedule_of(spec.schedule)


def _form() -> dict[str, Param]:
    """What a person may say who starts a run."""
    ends = {
        "start": ("From", "Read rows from this time on, whatever was read before."),
        "end": ("To", "Read rows up to this time."),
    }
    form = {
        name: Param(None, type=["null", "string"], format="date-time", title=title, description=text)
        for name, (title, text) in ends.items()
    }
    form["allow_removal"] = Param(
        False,
        type="boolean",
        title="Allow what takes something away",
        description=(
            "Whether views and services of the YAML may lose or change a feature, a key or a type that Feast has of "
            "them. A view or a service that the YAML no longer names stays in Feast in any case."
        ),
    )
    return form


def _window(spec: FeaturesSpec) -> tuple[str, str]:
    """Templates of both ends: what the form says, then the data interval; empty for the watermark."""
    if spec.extract.window == "watermark":
        return Template("{{ params.start or '' }}"), Template("{{ params.end or '' }}")
    late = int(spec.extract.late.total_seconds())
    begin = f"(data_interval_start - macros.timedelta(seconds={late}))" if late else "data_interval_start"
    return _end_of_interval("start", begin), _end_of_interval("end", "data_interval_end")


def _end_of_interval(name: str, value: str) -> str:
    # A run that somebody starts without a logical date has no interval: it reads by the watermark.
    known = f"data_interval_{name} is defined and data_interval_{name}"
    return Template(f"{{{{ params.{name} or ({value}.isoformat() if {known} else '') }}}}")


def _source(spec: FeaturesSpec) -> dict[str, Any]:
    return spec.extract.model_dump(mode="json", exclude_none=True, exclude={"window"})


def _apply(spec: FeaturesSpec, published: Any) -> ApplyFeaturesOperator:
    """The task that tells Feast, also of what was changed in the file while the source had nothing new."""
    return ApplyFeaturesOperator(
        task_id="apply",
        feast_conn_id=spec.feature_store,
        definitions=definitions_of(spec),
        store=spec.store,
        features=spec.features,
        published=published,
        pre_execute=_allow_removal,
        trigger_rule=TriggerRule.NONE_FAILED,
    )


def _materialize(spec: FeaturesSpec, views: list[str]) -> MaterializeFeaturesOperator:
    return MaterializeFeaturesOperator(
        task_id="materialize",
        feast_conn_id=spec.feature_store,
        views=views,
        start=Template("{{ params.start or '' }}"),
        end=Template("{{ params.end or '' }}"),
        late=format_duration(spec.extract.late),
    )


def _made(spec: FeaturesSpec, extracted: Any) -> BaseOperator:
    """The task that makes features of the extracted rows."""
    common = {"features": spec.features, "store": spec.store, "extracted": extracted}
    if spec.prepare is None:
        transform = spec.transform
        return TransformFeaturesOperator(
            task_id="transform",
            sql=transform.sql,
            tables=dict(transform.tables) if transform.tables else None,
            **common,
        )
    prepare = spec.prepare
    if prepare.place.runs == "image":
        code: dict[str, Any] = {"image": prepare.image}
    else:
        process = prepare.process
        code = {"entrypoint": list(process.command), "directory": process.directory} if process else {}
    return PrepareFeaturesOperator(
        task_id="prepare",
        code=code,
        runner=runner_of(spec),
        parameters=dict(prepare.parameters),
        columns={
            "keys": list(spec.publish.keys),
            "timestamp": spec.publish.timestamp,
            "features": list(dict.fromkeys(name for view in spec.views for name in view.features)),
        },
        limits=prepare.resources.model_dump(),
        network=prepare.place.job_network(),
        seed=prepare.seed,
        job_timeout=prepare.timeout.total_seconds(),
        deferrable=prepare.deferrable,
        execution_timeout=job_task_timeout(spec, prepare.timeout, deferrable=prepare.deferrable),
        **common,
    )


def _view_of(spec: FeaturesSpec, view: View) -> dict[str, Any]:
    return {
        "kind": "feature_view",
        "name": view.name,
        "entities": [
            {"name": name, "join_key": entity.join_key or name, "type": entity.type}
            for name, entity in view.entities.items()
        ],
        "ttl_seconds": int(view.ttl.total_seconds()),
        "timestamp": spec.publish.timestamp,
        "created": spec.publish.created,
        "features": [{"name": name, "type": kind} for name, kind in view.features.items()],
        "source": {
            "name": f"{view.name}_source",
            "path": f"{spec.store}/features/{spec.features}/data",
            "table": spec.publish.table or spec.features,
        },
        "description": view.description or spec.description,
        "tags": {"pipeline": spec.features, **dict.fromkeys(spec.tags, "")},
        "owner": spec.owner,
        "online": view.online,
    }


def _member_of(member: ServiceView) -> dict[str, Any]:
    return {
        "view": member.view,
        "features": list(member.features) if member.features else None,
        "join_keys": dict(member.join_keys) or None,
        "alias": member.alias,
    }


def _allow_removal(context: Context) -> None:
    """Let the form of this one run allow what is refused otherwise."""
    setattr(context["task"], "destructive", bool(context["params"]["allow_removal"]))  # noqa: B010
