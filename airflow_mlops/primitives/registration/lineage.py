"""Where a model version comes from, as it is written beside the version."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import SpecError
from airflow_mlops.primitives.texts.documents import json_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: In front of every tag of ours in MLflow.
PREFIX = "airflow_mlops."
#: Characters of a tag; MLflow takes 5,000 on every back end.
TAG_LIMIT = 5000
#: Tag of a model version with the metrics of its test split.
PROMISE_TAG = f"{PREFIX}test_metrics"
#: Tag of a run and a model version with the short ids of the reasons that it answers.
REASON_IDS_TAG = f"{PREFIX}reason_ids"


@dataclass(frozen=True)
class Lineage:
    """What went into a model version: enough to train it again.

    :param application: the application.
    :param dataset_id: the dataset version that it learned from.
    :param image: image as the YAML names it; empty for the process runner.
    :param image_digest: what was run.
    :param code: the model code's own name and version.
    :param parameters_digest: see :func:`parameters_digest`; the parameters themselves are with the run.
    :param seed: seed of everything random.
    :param reasons: why it was trained, in words.
    :param reason_ids: ids of these reasons, see :func:`~airflow_mlops.primitives.reasons.short_ids`.
    :param dag_run: ``<dag_id>/<run_id>`` of the Airflow run.
    :param git_commit: commit of the model code, as its image's label or its folder says; with ``-dirty`` behind it
        when the folder had changes.
    :param base_digest: digest of the image that the model code's image was built on.
    """

    application: str = ""
    dataset_id: str = ""
    image: str = ""
    image_digest: str = ""
    code: str = ""
    parameters_digest: str = ""
    seed: int | None = None
    reasons: str = ""
    reason_ids: str = ""
    dag_run: str = ""
    git_commit: str = ""
    base_digest: str = ""

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Lineage:
        """Read JSON values; lists and objects are kept as JSON text.

        :raises SpecError: a key that lineage does not have.
        """
        known = {item.name for item in fields(cls)}
        unknown = set(value) - known
        if unknown:
            raise SpecError(
                f"Lineage has no {', '.join(sorted(unknown))}; it has: {', '.join(sorted(known))}. "
                "Cure: put anything else into tags of the MLflow run."
            )
        given = {key: item for key, item in value.items() if item is not None}
        seed = given.pop("seed", None)
        return cls(
            seed=None if seed is None else int(seed), **{key: _text(item) for key, item in given.items()}
        )

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Lineage:
        """Read the tags of a model version; what it does not say stays empty."""
        known = {item.name for item in fields(cls)}
        ours = {key.removeprefix(PREFIX): value for key, value in tags.items() if key.startswith(PREFIX)}
        return cls.from_dict({key: value for key, value in ours.items() if key in known})

    def to_tags(self) -> dict[str, str]:
        """Tags of the model version; empty values are left out."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {
            f"{PREFIX}{name}": str(value)[:TAG_LIMIT]
            for name, value in values.items()
            if value not in ("", None)
        }


def promise_to_tags(metrics: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The test metrics that a model version promises, as its tag; without slices, to fit into one.

    :param metrics: entries of ``metrics.json``.
    """
    whole = [dict(metric) for metric in metrics if not metric.get("slice") and "step" not in metric]
    text = json_text(whole, separators=(",", ":"))
    return {PROMISE_TAG: text} if whole and len(text) <= TAG_LIMIT else {}


def promise_from_tags(tags: Mapping[str, str]) -> list[dict[str, Any]] | None:
    """Read what :func:`promise_to_tags` wrote; ``None`` when the version carries no promise."""
    text = tags.get(PROMISE_TAG)
    return None if text is None else list(json.loads(text))


def parameters_digest(parameters: Mapping[str, Any]) -> str:
    """SHA-256 of the parameters' canonical JSON: equal for equal parameters in any order."""
    text = json_text(parameters, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value, sort_keys=True)
