"""``delivery:``: where the champion is put to use."""

from __future__ import annotations

from pydantic import Field

from airflow_mlops.spec.values import Schedule, Section


class BatchDelivery(Section):
    """Predictions for all new examples, written to the store."""

    schedule: Schedule | None = Field(
        default=None, description="When to predict: cron (UTC), {assets: [...]}, or null for on demand only."
    )


class Delivery(Section):
    """One form of delivery: a mapping with exactly one key."""

    batch: BatchDelivery = Field(description="Predict new examples in batches.")
