"""``airflow-mlops plan``: the DAGs that a YAML becomes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from airflow_mlops.cli.report import UsageError, from_here, print_json, problems_of, yaml_files

if TYPE_CHECKING:
    from airflow.sdk import DAG, BaseOperator

    from airflow_mlops.spec import LoadedFile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command understands."""
    parser.add_argument("path", metavar="PATH", type=Path, help="YAML file, or folder of them")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the plans of all good files; 1 when one of them is not good."""
    try:
        loaded, errors = yaml_files([arguments.path])
    except UsageError as error:
        print(f"airflow-mlops plan: {error}", file=sys.stderr)
        return 2
    plans = [_plan(one) for one in loaded]
    problems = problems_of(errors)
    if arguments.json:
        print_json(
            {
                "applications": [plan for plan in plans if "application" in plan],
                "features": [plan for plan in plans if "features" in plan],
                "problems": [problem.to_dict() for problem in problems],
            }
        )
    else:
        for one, plan in zip(loaded, plans, strict=True):
            _print(one.name, plan)
        for problem in problems:
            print(problem, file=sys.stderr)
    return 1 if problems else 0


def describe_dag(dag: DAG) -> dict[str, Any]:
    """A DAG as JSON values: schedule, and the tasks in an order in which they may run."""
    tasks = cast("list[BaseOperator]", dag.topological_sort())  # type: ignore[no-untyped-call]
    return {
        "dag_id": dag.dag_id,
        "schedule": _schedule(dag.timetable),
        "tasks": [
            {
                "task_id": task.task_id,
                "operator": task.task_type,
                "after": sorted(task.upstream_task_ids),
                "reads": _assets(getattr(task, "inlets", [])),
                "writes": _assets(getattr(task, "outlets", [])),
            }
            for task in tasks
        ],
    }


def _plan(one: LoadedFile) -> dict[str, Any]:
    from airflow_mlops.factories import build_dags

    dags = [describe_dag(dag) for dag in build_dags(one.spec).values()]
    return {one.kind: one.name, "file": str(from_here(one.path)), "dags": dags}


def _schedule(timetable: Any) -> dict[str, Any]:
    """Times and assets that start a DAG: ``{"cron": ..., "assets": [...], "needs": "any" | "all"}``."""
    condition = getattr(timetable, "asset_condition", None)
    timed = getattr(timetable, "timetable", timetable)
    return {
        "cron": getattr(timed, "expression", None),
        "assets": _assets(_leaves(condition)) if condition else [],
        "needs": "all" if type(condition).__name__ == "AssetAll" else "any",
    }


def _leaves(condition: Any) -> list[Any]:
    parts = getattr(condition, "objects", None)
    return [condition] if parts is None else [leaf for part in parts for leaf in _leaves(part)]


def _assets(assets: Any) -> list[str]:
    return [str(getattr(asset, "name", None) or getattr(asset, "uri", asset)) for asset in assets]


def _print(name: str, plan: dict[str, Any]) -> None:
    print(f"{name} ({plan['file']})")
    for dag in plan["dags"]:
        print(f"\n  {dag['dag_id']}: {_when(dag['schedule'])}")
        width = max((len(task["task_id"]) for task in dag["tasks"]), default=0)
        kind = max((len(task["operator"]) for task in dag["tasks"]), default=0)
        for task in dag["tasks"]:
            notes = [f"after {', '.join(task['after'])}"] if task["after"] else []
            notes += [f"reads {', '.join(task['reads'])}"] if task["reads"] else []
            notes += [f"writes {', '.join(task['writes'])}"] if task["writes"] else []
            print(f"    {task['task_id']:<{width}}  {task['operator']:<{kind}}  {'; '.join(notes)}".rstrip())
    print()


def _when(schedule: dict[str, Any]) -> str:
    assets = schedule["assets"]
    parts = [f"at {schedule['cron']} UTC"] if schedule["cron"] else []
    if assets:
        number = f"{schedule['needs']} of " if len(assets) > 1 else ""
        parts.append(f"on news of {number}{', '.join(assets)}")
    return ", and ".join(parts) or "on demand"
