"""What the asset of a feature pipeline is told, and when."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.assets import features_asset
from airflow_mlops.operators.features.announce import AnnounceFeaturesOperator
from tests.fixtures.inlets import Events

ASSET = features_asset("weather")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PUBLISHED = {
    "snapshot": "abc",
    "partitions": ["2026-01"],
    "rows": 7,
    "new_rows": 2,
    "files": 1,
    "watermark": None,
    "path": "/s",
}


@pytest.fixture
def announce():
    """Announce after events of these snapshots; what the new event says."""

    def run(*snapshots, waits=False):
        context = {
            "inlet_events": {
                ASSET: Events(
                    SimpleNamespace(timestamp=NOON, extra=one and {"snapshot": one}, waits=waits)
                    for one in snapshots
                )
            },
            "outlet_events": {ASSET: SimpleNamespace(extra={})},
        }
        task = AnnounceFeaturesOperator(task_id="announce", features="weather", published=PUBLISHED)
        assert (task.inlets, task.outlets) == ([ASSET], [ASSET])
        result = task.execute(context)
        assert context["outlet_events"][ASSET].extra == result
        return result

    return run


def test_the_event_says_what_was_published(announce):
    assert announce() == {name: value for name, value in PUBLISHED.items() if name != "path"}


def test_news_is_told_though_airflow_cannot_show_what_was_told_before(announce):
    """A run that the newest event started waits in the queue: nobody would ever be woken again."""
    assert announce("abc", waits=True)["snapshot"] == "abc"


def test_the_same_snapshot_is_told_once(announce):
    with pytest.raises(AirflowSkipException, match="no row is new"):
        announce("older", "abc")


@pytest.mark.parametrize("told", [("abc", "newer"), ("older",), (None,)])
def test_another_snapshot_is_news_even_when_this_run_added_nothing(announce, told):
    """An earlier run may have died between publishing and telling; somebody may have posted an event by hand."""
    assert announce(*told)["snapshot"] == "abc"
