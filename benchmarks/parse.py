"""
What parsing costs: our YAML against dag-factory's and against hand-written Python, the same DAGs in one run.

The shape (DAGs, tasks, edges, schedules) is taken from what we build of ``dags/applications/flight_delay.yaml``.
The peers' tasks are BashOperators, which are cheaper to make than our operators, and their files say less than ours:
no model of the YAML, no validation, no form. Every figure is CPU time of a fresh process, the least of its rounds.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
YAML = ROOT / "dags" / "applications" / "flight_delay.yaml"
WAYS = {"ours": "airflow-mlops", "python": "Python by hand", "dagfactory": "dag-factory"}
QUIET = {"DO_NOT_TRACK": "1", "SCARF_NO_ANALYTICS": "1", "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING"}
BASH = "airflow.providers.standard.operators.bash.BashOperator"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--applications", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    ways = list(WAYS)
    if importlib.util.find_spec("dagfactory") is None:
        ways.remove("dagfactory")
        print("dag-factory is not installed and left out: uv run --group bench python benchmarks/parse.py\n")

    for applications in given.applications:
        _measure(ways, applications, given.rounds)


def _measure(ways: list[str], applications: int, rounds: int) -> None:
    from airflow_mlops.factories.stubs import write_stubs

    with tempfile.TemporaryDirectory(prefix="airflow-mlops-parse-") as work:
        folder = Path(work)
        shape = _child(folder, "shape")
        for number in range(applications):
            _write(folder, f"application_{number:04}", shape)
        before = _cpu()
        write_stubs(folder / "ours")
        first = _cpu() - before
        before = _cpu()
        write_stubs(folder / "ours")
        stubs = (first, _cpu() - before)
        found = {way: [] for way in ways}
        for _ in range(rounds):  # taking turns, so that a busy moment hits all of them
            for way in ways:
                found[way].append(_child(folder, way, str(applications)))
    _report({way: _least(each) for way, each in found.items()}, shape, applications)
    print(f"stubs: {stubs[0] * 1e3:.0f} ms to write all, {stubs[1] * 1e3:.0f} ms to find nothing to do\n")


def _least(rounds: list[dict]) -> dict:
    return {key: min(each[key] for each in rounds) for key in rounds[0]}


def _report(found: dict[str, dict], shape: list[dict], applications: int) -> None:
    built = {way: (figures["dags"], figures["tasks"], figures["edges"]) for way, figures in found.items()}
    if len(set(built.values())) != 1:
        raise SystemExit(f"the ways did not build the same DAGs (DAGs, tasks, edges): {built}")
    tasks = sum(len(dag["tasks"]) for dag in shape)
    print(f"{applications} applications of {len(shape)} DAGs and {tasks} tasks, one file each; CPU time")
    print(f"{'':18}{'an application':>16}{'ratio':>8}{'first file':>14}{'imports':>12}{'modules':>9}")
    ours = found["ours"]["each_ms"]
    for way, figures in found.items():
        print(
            f"{WAYS[way]:18}{figures['each_ms']:>13.2f} ms{figures['each_ms'] / ours:>8.2f}"
            f"{figures['first_ms']:>11.1f} ms{figures['import_ms']:>9.1f} ms{figures['modules']:>9}"
        )
    print(
        "ratio: to ours. first file: imports and the first application, what the DAG processor pays for one file.\n"
        "imports, modules: what comes on top of `import airflow.sdk`."
    )


def _child(folder: Path, *words: str) -> dict:
    environment = {
        **os.environ,
        **QUIET,
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    done = subprocess.run(
        [sys.executable, __file__, "--child", str(folder), *words],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def _write(folder: Path, name: str, shape: list[dict]) -> None:
    """Write one application three times: our YAML and its stub, dag-factory's YAML, a Python file."""
    for way in WAYS:
        (folder / way).mkdir(exist_ok=True)
    text = YAML.read_text().replace("application: flight_delay", f"application: {name}", 1)
    text = text.replace("model: flight_delay", f"model: {name}")
    head = "store: /var/lib/airflow-mlops\nprovisioning: {examples: {folder: /var/lib/flights/data}}\n"
    (folder / "ours" / "defaults.yaml").write_text(head)
    (folder / "ours" / f"{name}.yaml").write_text(text)
    dags = [{**dag, "id": dag["id"].replace("flight_delay", name, 1)} for dag in shape]
    (folder / "dagfactory" / f"{name}.yaml").write_text("".join(map(_for_dag_factory, dags)))
    (folder / "python" / f"{name}.py").write_text(
        "from airflow.providers.standard.operators.bash import BashOperator\n"
        "from airflow.sdk import DAG, Asset\n" + "".join(map(_by_hand, dags))
    )


def _for_dag_factory(dag: dict) -> str:
    lines = [
        f"{dag['id']}:",
        f"  description: {json.dumps(dag['description'])}",
        "  catchup: false",
        f"  schedule: {json.dumps(dag['assets'])}",
        "  default_args: {owner: ml-team, start_date: 2024-01-01, retries: 2}",
        "  tasks:",
    ]
    for task in dag["tasks"]:
        lines += [
            f"    - task_id: {task['id']}",
            f"      operator: {BASH}",
            '      bash_command: "true {{ run_id }}"',
            f"      dependencies: {json.dumps(task['upstream'])}",
        ]
    return "\n".join(lines) + "\n"


def _by_hand(dag: dict) -> str:
    assets = ", ".join(f"Asset({asset!r})" for asset in dag["assets"])
    lines = [
        f"with DAG({dag['id']!r}, description={dag['description']!r}, schedule=[{assets}], catchup=False,",
        '         default_args={"owner": "ml-team", "retries": 2}) as ' + dag["id"] + ":",
        *(
            f"    {task['id']} = BashOperator(task_id={task['id']!r}, bash_command='true {{{{ run_id }}}}')"
            for task in dag["tasks"]
        ),
        *(
            f"    [{', '.join(task['upstream'])}] >> {task['id']}"
            for task in dag["tasks"]
            if task["upstream"]
        ),
    ]
    return "\n".join(lines) + "\n"


def _run_child(folder: Path, way: str, applications: int = 0) -> dict:
    import airflow.sdk
    from airflow.sdk import DAG

    if way == "shape":
        return _shape()
    before, start = len(sys.modules), _cpu()
    build = {"ours": _ours, "python": _python, "dagfactory": _dagfactory}[way]()
    imported, modules = _cpu() - start, len(sys.modules) - before
    if way == "python":
        import airflow.providers.standard.operators.bash  # noqa: F401 - what each of its files imports

        imported, modules = _cpu() - start, len(sys.modules) - before
    names = [f"application_{number:04}" for number in range(applications)]
    dags = [each for each in build(folder / way, names[0]).values() if isinstance(each, DAG)]
    first = _cpu() - start
    again = _cpu()
    for name in names[1:]:
        dags += [each for each in build(folder / way, name).values() if isinstance(each, DAG)]
    each = (_cpu() - again) / max(1, applications - 1)
    tasks = [task for dag in dags for task in dag.tasks]
    return {
        "import_ms": imported * 1e3,
        "modules": modules,
        "first_ms": first * 1e3,
        "each_ms": each * 1e3,
        "dags": len(dags),
        "tasks": len(tasks),
        "edges": sum(len(task.downstream_task_ids) for task in tasks),
    }


def _cpu() -> float:
    import time

    return time.process_time()


def _shape() -> list[dict]:
    from airflow_mlops.factories import build_dags
    from airflow_mlops.spec import load_application

    return [
        {
            "id": dag_id,
            "description": dag.description or dag_id,
            "assets": sorted(set(_asset_names(dag.timetable.asset_condition))) or ["nothing"],
            "tasks": [
                {"id": task.task_id, "upstream": sorted(task.upstream_task_ids)}
                for task in dag.topological_sort()
            ],
        }
        for dag_id, dag in build_dags(load_application(YAML)).items()
    ]


def _asset_names(condition) -> list[str]:
    if hasattr(condition, "objects"):
        return [name for part in condition.objects for name in _asset_names(part)]
    return [condition.name]


def _ours():
    from airflow_mlops.factories import application_dags

    return lambda folder, name: application_dags(str(folder / f"{name}.py"))


def _python():
    import runpy

    return lambda folder, name: runpy.run_path(str(folder / f"{name}.py"))


def _dagfactory():
    from dagfactory import load_yaml_dags

    def build(folder: Path, name: str) -> dict:
        made: dict = {}
        load_yaml_dags(made, config_filepath=str(folder / f"{name}.yaml"), defaults_config_path=str(folder))
        return made

    return build


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        figures = _run_child(Path(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:]))
        print(json.dumps(figures))
    else:
        main()
