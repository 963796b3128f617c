"""News of published features, for the DAGs that wait for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.assets import features_asset
from airflow_mlops.operators.errors import MLOpsTask
from airflow_mlops.quirks.events import newest_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

__all__ = ["AnnounceFeaturesOperator"]

_REPORTED = ("snapshot", "partitions", "rows", "new_rows", "files", "watermark")


class AnnounceFeaturesOperator(MLOpsTask):
    """
    Update the asset of a feature pipeline, unless the newest event has told of the same snapshot already.

    It belongs behind whatever makes the features usable: who waits for the asset finds them there. The asset's
    own events are the record of what was told, so that news is neither lost when an earlier run died before it,
    nor told twice. Returns the event's ``extra``: ``{"snapshot", "partitions", "rows", "new_rows", "files",
    "watermark"}``, where ``new_rows`` are those of this run. Skipped when there is nothing new.

    :param features: name of the feature pipeline.
    :param published: what ``PublishFeaturesOperator`` returned.
    """

    template_fields: Sequence[str] = ("published",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"published": "json"}
    ui_color = "#d8e8dc"

    def __init__(self, *, features: str, published: Any, **kwargs: Any) -> None:
        self.asset = features_asset(features)
        for role in ("inlets", "outlets"):
            kwargs[role] = [*(kwargs.get(role) or ()), self.asset]
        super().__init__(**kwargs)
        self.features = features
        self.published = published

    def execute(self, context: Context) -> dict[str, Any]:
        """Compare with the newest event, and fill this one."""
        snapshot = self.published["snapshot"]
        if snapshot == self._told(context):
            raise AirflowSkipException(
                f"Snapshot {snapshot} of {self.features} is known already: no row is new."
            )
        extra = {name: self.published.get(name) for name in _REPORTED}
        context["outlet_events"][self.asset].extra = extra
        return extra

    def _told(self, context: Context) -> Any:
        newest = newest_event(context, self.asset)
        return (newest.extra or {}).get("snapshot") if newest else None
