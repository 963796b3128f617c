"""The conformance suite on real stores: ours answers rightly, and the peers' known mistakes are found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_mlops.cli.main import main
from airflow_mlops.exceptions import FeatureStoreError
from airflow_mlops.testing.offline_store.cases import CASES
from airflow_mlops.testing.offline_store.conformance import (
    FileLoader,
    check_store,
    loader_for,
    read_config,
    run_conformance,
    warning_about,
)
from tests.fixtures.feast_store import connect, inline

OURS = "airflow_mlops.AsofOfflineStore"
# What each of Feast's own stores gets wrong in Feast 0.67.
DUCKDB = {"examples_as_sql", "names_ending_in_x_and_y", "times_to_live_of_mixed_units"}
DASK = {
    "beyond_ttl_stays_without_value",
    "equal_examples_both_stay",
    "examples_as_sql",
    "examples_in_another_zone",
    "feature_named_as_an_example_column",
    "future_is_not_seen",
    "integers_stay_integers",
    "many_examples",
    "missing_key_matches_nothing",
    "naive_rows_are_utc",
    "text_and_truth",
    "times_to_live_of_mixed_units",
}


@pytest.mark.parametrize(
    ("store", "wrong"),
    [
        (OURS, set()),
        pytest.param("duckdb", DUCKDB, marks=pytest.mark.filterwarnings("ignore::DeprecationWarning")),
        pytest.param("dask", DASK, marks=pytest.mark.filterwarnings("ignore")),
    ],
)
def test_exactly_these_questions_are_answered_wrongly(store, wrong, tmp_path):
    results = run_conformance(read_config(store=store), FileLoader(tmp_path))
    assert [result.case for result in results] == [case.name for case in CASES]
    assert {result.case for result in results if result.outcome == "fails"} == wrong
    assert all(result.detail for result in results if result.outcome != "pass")
    assert not any(result.outcome == "not supported" for result in results)


def test_stores_known_to_lose_rows_are_named():
    assert "offline store dask drops examples" in warning_about(read_config(store="dask"))
    assert warning_about(read_config(store=OURS)) == ""
    with pytest.raises(FeatureStoreError, match="ray ignores the time to live"):
        read_config(store="ray")


def test_a_store_that_cannot_leave_out_later_rows_says_so(monkeypatch):
    config = read_config(store=OURS)
    from airflow_mlops.hooks.feast.asof.store import AsofOfflineStore

    monkeypatch.setattr(AsofOfflineStore, "supports_filter_by_created_timestamp", False)
    filtered = [case for case in CASES if case.created_filter]
    results = check_store(config, filtered)
    assert {result.outcome for result in results} == {"not supported"}


def test_a_store_without_a_loader_says_how_to_give_one(tmp_path):
    config = read_config(store=OURS)
    config.offline_store.type = "trino"
    with pytest.raises(FeatureStoreError, match="Call run_conformance of"):
        loader_for(config, tmp_path)


def test_the_command_prints_a_table_and_json(tmp_path, capsys):
    (tmp_path / "feature_store.yaml").write_text(
        f"project: mine\nprovider: local\nregistry: registry.db\noffline_store: {{type: {OURS}, memory_limit: 200MB}}\n"
        "entity_key_serialization_version: 3\n"
    )
    assert main(["features", "conformance", "--repo", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert f"offline store {OURS}" in printed
    assert printed.strip().endswith(f"{len(CASES)} pass, 0 fail, 0 not supported")
    assert main(["features", "conformance", "--store", "duckdb", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["store"], report["fails"], report["pass"]) == (
        "duckdb",
        len(DUCKDB),
        len(CASES) - len(DUCKDB),
    )
    assert {case["case"] for case in report["cases"] if case["outcome"] == "fails"} == DUCKDB
    assert list(tmp_path.iterdir()) == [tmp_path / "feature_store.yaml"]  # nothing of the suite stays behind


def test_the_command_asks_the_store_of_a_connection(tmp_path, monkeypatch, capsys):
    connect(monkeypatch, **inline(tmp_path, offline_store={"type": "dask"}))
    monkeypatch.setattr(
        "airflow_mlops.testing.offline_store.conformance.check_store",
        lambda config: check_store(
            config, [case for case in CASES if case.name == "equal_examples_both_stay"]
        ),
    )
    assert main(["features", "conformance", "--feast-conn", "feast_default"]) == 1
    said = capsys.readouterr()
    assert "offline store dask drops examples" in said.out, said.err
    assert "0 pass, 1 fail" in said.out
    assert main(["features", "conformance", "--feast-conn", "nobody"]) == 2
    assert "no Airflow connection 'nobody'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []  # the registry is not touched, nor made


def test_the_command_refuses_what_is_not_there(tmp_path, capsys):
    assert main(["features", "conformance", "--repo", str(tmp_path)]) == 2
    assert "has no feature_store.yaml" in capsys.readouterr().err
    assert main(["features", "conformance", "--store", "ray"]) == 1
    assert "ray ignores the time to live" in capsys.readouterr().err
    assert main(["features", "conformance", "--store", "duck"]) == 1
    assert "known are" in capsys.readouterr().err
    assert main(["features"]) == 2


def test_the_loader_leaves_files_to_its_caller(tmp_path: Path):
    loader = FileLoader(tmp_path)
    check = [case for case in CASES if case.name == "empty_source"]
    assert [result.outcome for result in run_conformance(read_config(store=OURS), loader, check)] == ["pass"]
    assert len(list(tmp_path.rglob("*.parquet"))) == 2


def test_the_documentation_tells_the_same_figures():
    page = (Path(__file__).parents[2] / "docs" / "howto" / "conformance.md").read_text()
    assert f"asks {len(CASES)} questions" in page
    assert f"{len(DUCKDB)} of {len(CASES)}" in page
    assert f"{len(DASK)} of {len(CASES)}" in page
