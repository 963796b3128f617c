"""Real rows in a folder, as the examples of an application."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_mlops.contract.protocol.paths import Paths
from airflow_mlops.exceptions import SourceError
from airflow_mlops.primitives.sources.queries import READERS, SUFFIXES
from airflow_mlops.primitives.sql.words import identifier, literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

#: In which order roles are said; the first two have no default.
_ROLES = ("keys", "timestamp", "targets")
_SPLITS = ("train", "validation", "test")
#: A column that says the split, for as long as rows are on their way into a dataset version.
_SPLIT = "airflow_mlops_split"
#: The function that reads each form.
_READ = {READERS[name]: name for name in ("read_parquet", "read_csv", "read_json")}


@dataclass(frozen=True)
class RealRows:
    """What the model code is tried on.

    :param folder: what the file names in the queries are below.
    :param roles: ``keys``, ``timestamp``, ``targets``.
    :param sql: query of the examples.
    :param predicted: query of the rows to predict; empty for those of the test split.
    :param parameters: what to train with.
    """

    folder: Path
    roles: Mapping[str, Any]
    sql: str
    predicted: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def provisioning(self) -> dict[str, Any]:
        """As the YAML's section of the name."""
        split = {"split": {"by": "column", "column": _SPLIT}} if self.predicted else {}
        return {
            "features": None,
            "window": "36500d",  # all of them
            "examples": {"folder": str(self.folder), "sql": self.sql, **self.roles},
            **split,
        }


def find_rows(folder: Path, said: Mapping[str, Any], parameters: Mapping[str, Any] | None = None) -> RealRows:
    """The rows of a folder.

    :param folder: one folder a split with ``manifest.json`` beside (a dataset version as ``dataset fetch`` writes it),
        a job's ``/opt/ml``, or files of Parquet, CSV or JSON lines.
    :param said: ``keys``, ``timestamp`` and ``targets`` of the command line, stronger than what lies there.
    :param parameters: of the command line, likewise.
    :raises SourceError: there are no rows, or nothing says what the columns are.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is no folder. Cure: name the folder that the rows are in.")
    paths = Paths(folder.resolve())
    root = paths.data if paths.data.is_dir() else paths.root
    config = _document(paths.config)
    found = _roles(root, config)
    columns = [name for role in (*_ROLES, "features") for name in _listed(found.get(role))]
    roles = {name: said.get(name) or found.get(name) for name in _ROLES}
    for name in _ROLES[:2]:
        if not roles[name]:
            raise SourceError(
                f"Nothing says what the rows of {folder} are: neither manifest.json nor input/config/mlops.json names "
                f"their {name}. Cure: --{name} COLUMN."
            )
    known = {name: value for name, value in roles.items() if value}
    given = dict(config.get("parameters") or {} if parameters is None else parameters)
    splits = {name: _read(root, name) for name in _SPLITS if (root / name).is_dir()}
    if not splits:
        return RealRows(root, known, f"SELECT * FROM {_read(root, '')}", parameters=given)
    if missing := [name for name in _SPLITS if name not in splits]:
        raise SourceError(
            f"{root} has {' and '.join(splits)}, and no {' and '.join(missing)}; a training is given train and validation, "
            "and judged on test. Cure: fetch all splits, or name a folder of files, which is split by time."
        )
    kept = ", ".join(map(identifier, columns)) if columns else "*"
    parts = [f"SELECT {kept}, {literal(name)} AS {_SPLIT} FROM {table}" for name, table in splits.items()]
    predicted = f"SELECT {kept} FROM {splits['test']}"
    return RealRows(root, known, " UNION ALL BY NAME ".join(parts), predicted, given)


def _roles(root: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """What lies beside the rows about their columns: the manifest of the version, or the job's configuration."""
    from airflow_mlops.jobs.files import column_config
    from airflow_mlops.primitives.datasets.manifest import Manifest

    manifest = root / Paths(root).manifest.name
    if manifest.is_file():
        return column_config(Manifest.from_json(manifest.read_bytes()))
    return dict(config.get("columns") or {})


def _document(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        value = json.loads(file.read_bytes())
    except ValueError as error:
        raise SourceError(f"{file} is no JSON: {error}. Cure: correct or remove it.") from error
    return value if isinstance(value, dict) else {}


def _listed(value: Any) -> Sequence[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _read(root: Path, split: str) -> str:
    """A call of DuckDB that reads the files of one folder, which are all of one form."""
    forms: dict[str, list[str]] = {}
    for file in sorted((root / split).iterdir()):
        suffix = next((end for end in reversed(file.suffixes) if end.lower() not in (".gz", ".zst")), "")
        form = SUFFIXES.get(suffix.lower())
        if form and file.is_file() and not file.name.startswith((".", "_")) and file.name not in _NO_ROWS:
            forms.setdefault(form, []).append(f"{split}/{file.name}" if split else file.name)
    if len(forms) != 1:
        what = f"files of several forms ({', '.join(forms)})" if forms else "no file of rows"
        raise SourceError(
            f"{root / split} has {what}; expected Parquet, CSV or JSON lines. Cure: name the folder that they are in."
        )
    ((form, names),) = forms.items()
    return f"{_READ[form]}([{', '.join(map(literal, names))}])"


#: Files about rows.
_NO_ROWS = ("manifest.json", "folds.json")
