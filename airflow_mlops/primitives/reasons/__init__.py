"""Why a model is trained again: the records of reasons and alarms, and how every reason is answered exactly once."""

from airflow_mlops.primitives.reasons.answers import (
    OVERLAP,
    UNCLOSED,
    Answers,
    answer,
    drain_from,
    take,
    unanswered,
    unclosed,
)
from airflow_mlops.primitives.reasons.records import (
    ID_LIMIT,
    Alarm,
    CodeChange,
    Reason,
    ReasonKind,
    alarm_event,
    alarm_ids,
    reason_from_event,
    reasons_of,
)
from airflow_mlops.primitives.reasons.words import WORDS_LIMIT, carries, describe, short_ids

__all__ = [
    "ID_LIMIT",
    "OVERLAP",
    "UNCLOSED",
    "WORDS_LIMIT",
    "Alarm",
    "Answers",
    "CodeChange",
    "Reason",
    "ReasonKind",
    "alarm_event",
    "alarm_ids",
    "answer",
    "carries",
    "describe",
    "drain_from",
    "reason_from_event",
    "reasons_of",
    "short_ids",
    "take",
    "unanswered",
    "unclosed",
]
