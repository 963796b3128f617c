"""
The objects that a Feast repository's Python files define, read by a process of its own.

``python -m airflow_mlops.hooks.feast.repository REPOSITORY FILE`` runs the files and writes what they define as
one registry message. The worker reads that, and never imports the files.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import FeatureStoreError
from airflow_mlops.hooks.feast.connection.session import import_feast
from airflow_mlops.hooks.feast.objects import FeastObjects, kind_of
from airflow_mlops.hooks.scratch import scratch_folder

if TYPE_CHECKING:
    from feast import FeatureStore

__all__ = ["RepositoryContent", "objects_of_repository"]

TIMEOUT = 300
#: Field of a registry message → Feast's module and class of what is in it, in the order of applying.
_FIELDS = {
    "entities": ("feast.entity", "Entity"),
    "data_sources": ("feast.data_source", "DataSource"),
    "feature_views": ("feast.feature_view", "FeatureView"),
    "stream_feature_views": ("feast.stream_feature_view", "StreamFeatureView"),
    "on_demand_feature_views": ("feast.on_demand_feature_view", "OnDemandFeatureView"),
    "feature_services": ("feast.feature_service", "FeatureService"),
    "permissions": ("feast.permissions.permission", "Permission"),
}


@dataclass(frozen=True)
class RepositoryContent:
    """What a repository defines, as a registry message of Feast."""

    path: str
    data: bytes

    def objects(self, store: FeatureStore) -> FeastObjects:
        """The objects, types and keys that they leave open looked up as ``feast apply`` does."""
        registry = importlib.import_module("feast.protos.feast.core.Registry_pb2").Registry
        message = registry.FromString(self.data)
        found: dict[str, list[Any]] = {}
        for field, (module, name) in _FIELDS.items():
            kind = getattr(importlib.import_module(module), name)
            found[field] = [kind.from_proto(proto) for proto in getattr(message, field)]
        feast: Any = store
        feast._make_inferences(  # noqa: SLF001 - what Feast's own plan begins with
            found["data_sources"],
            [*found["entities"], importlib.import_module("feast.feature_view").DUMMY_ENTITY],
            found["feature_views"],
            found["on_demand_feature_views"],
            found["stream_feature_views"],
            found["feature_services"],
        )
        things = [thing for field in _FIELDS for thing in found[field] if thing.name != "__dummy"]
        return FeastObjects({(kind_of(thing), thing.name): thing for thing in things})


def objects_of_repository(path: str) -> RepositoryContent:
    """Run the Python files of a repository elsewhere, and take what they define.

    :raises FeatureStoreError: they cannot be run; the message has the end of what they said.
    """
    repo = Path(path).expanduser()
    if not repo.is_dir():
        raise FeatureStoreError(f"no Feast repository at {repo} on this worker; correct repo_path")
    with scratch_folder() as folder:
        target = Path(folder) / "registry.pb"
        environment = {
            # Airflow's connections and its database are nothing for the files of a repository.
            name: text
            for name, text in os.environ.items()
            if not name.startswith("AIRFLOW_")
        } | {"AIRFLOW_HOME": folder}
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(repo.resolve()), str(target)],
            env=environment | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            cwd=repo,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        if done.returncode or not target.is_file():
            raise FeatureStoreError(
                f"the Python files of Feast repository {repo} cannot be run (exit code {done.returncode}); "
                f"correct them:\n{done.stdout[-2000:]}"
            )
        return RepositoryContent(str(repo), target.read_bytes())


def _write(repo: Path, target: Path) -> None:
    import_feast()
    sys.path.insert(0, str(repo))
    content = importlib.import_module("feast.repo_operations").parse_repo(repo)
    message = importlib.import_module("feast.protos.feast.core.Registry_pb2").Registry()
    for field in _FIELDS:
        getattr(message, field).extend(thing.to_proto() for thing in getattr(content, field, ()))
    target.write_bytes(message.SerializeToString())


if __name__ == "__main__":
    _write(Path(sys.argv[1]), Path(sys.argv[2]))
