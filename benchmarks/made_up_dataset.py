"""The join of made-up rows by the Feast hook, and the whole provisioning task of the same rows, each in a process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from join_engines import MEMORY, OURS, _feast, print_figures  # noqa: E402 - found beside this file

SERVICE = "made_up"
SETTINGS = """\
project: bench
provider: local
registry: {folder}/registry-AsofOfflineStore-True.db
offline_store: {{type: {store}, memory_limit: {memory}}}
entity_key_serialization_version: 3
"""
SPLIT = {"by": "time", "train": 0.7, "validation": 0.15, "test": 0.15}
#: As many and of the same kinds as dags/applications/flight_delay.yaml has.
ASSUMPTIONS = [
    {"unique": ["n"]},
    {"min_rows": 1000},
    {"column": "f0_3", "matches": "c[0-9]+"},
    {"column": "k0", "not_null": True},
    {"column": "k0", "between": [0, 10_000_000]},
    {"column": "f0_0", "max_null_share": 0.99},
    {"column": "f0_0", "between": [0, 100], "severity": "warn"},
]


def prepare(folder: Path, views: int) -> None:
    """A Feast repository with one service of all views, with a time to live."""
    store, _ = _feast(OURS, folder, views, ttl=True, memory_limit=MEMORY)
    from feast import FeatureService

    features = [store.get_feature_view(f"view{number}") for number in range(views)]
    store.apply([FeatureService(name=SERVICE, features=features)])
    (folder / "feature_store.yaml").write_text(SETTINGS.format(folder=folder, store=OURS, memory=MEMORY))


def join(folder: Path, views: int) -> Callable[[], int]:
    from airflow_mlops.hooks.feast.hook import FeastHook

    names = ", ".join(f"k{number}" for number in range(views))
    sql = f"SELECT n, {names}, event_timestamp FROM read_parquet('{folder}/examples.parquet')"
    return lambda: FeastHook().training_set(SERVICE, sql, folder / "joined.parquet").rows


def provision(folder: Path, views: int) -> Callable[[], int]:
    from airflow_mlops.operators.datasets.provision import ProvisionDatasetOperator

    names = ", ".join(f"k{number}" for number in range(views))
    late = "(n % 5 = 0)::INTEGER AS late"
    task = ProvisionDatasetOperator(
        task_id="provision",
        application="made_up",
        store=str(folder / "store"),
        examples={
            "sql": f"SELECT n, {names}, event_timestamp, {late} FROM read_parquet('examples.parquet')",
            "keys": ["n"],
            "timestamp": "event_timestamp",
            "targets": ["late"],
            "folder": str(folder),
        },
        features=SERVICE,
        split=SPLIT,
        assumptions=ASSUMPTIONS,
    )
    return lambda: task.execute({})["rows"]


def main(what: str, place: str, views: str) -> None:
    folder = Path(place)
    if what == "prepare":
        prepare(folder, int(views))
        return
    from airflow_mlops.hooks.feast.hook import FeastHook

    FeastHook().service(SERVICE)  # Feast's imports are the same for both and not what is measured
    run = (join if what == "join" else provision)(folder, int(views))
    print_figures(run)


if __name__ == "__main__":
    main(*sys.argv[1:])
