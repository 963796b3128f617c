"""``delivery:``: where the champion is put to use."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from airflow_mlops.spec.values import Schedule, Section


class BatchDelivery(Section):
    """Predictions for all new examples, written to the store."""

    schedule: Schedule | None = Field(
        default=None, description="When to predict: cron (UTC), {assets: [...]}, or null for on demand only."
    )
    assumptions: Literal["warn", "fail", "off"] = Field(
        default="warn",
        description="What provisioning.assumptions mean for the rows that are predicted: warn reports and predicts, fail "
        "stops before the prediction as each rule's severity says, off asks nothing. Rules about targets, splits and "
        "the size of a dataset are left out.",
    )


class Delivery(Section):
    """One form of delivery: a mapping with exactly one key."""

    batch: BatchDelivery = Field(description="Predict new examples in batches.")
