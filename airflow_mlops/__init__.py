"""The machine-learning loop on Apache Airflow, from one YAML file per application."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from airflow_mlops.hooks.feast.asof.store import AsofOfflineStore, AsofOfflineStoreConfig

__all__ = ["AsofOfflineStore", "AsofOfflineStoreConfig", "lazily"]

__version__ = "0.1.0"


def lazily(modules: Mapping[str, str]) -> Callable[[str], Any]:
    """
    Make the ``__getattr__`` of a package whose public names are loaded when they are asked for.

    :param modules: for each public name, the module that defines it.
    """

    def load(name: str) -> Any:
        if name not in modules:
            raise AttributeError(
                f"{name!r} is not a public name here. Cure: choose one of {', '.join(modules)}."
            )
        from importlib import import_module

        return getattr(import_module(modules[name]), name)

    return load


# Feast asks the module that ``feature_store.yaml`` names for both.
__getattr__ = lazily(
    {
        "AsofOfflineStore": "airflow_mlops.hooks.feast.asof.store",
        "AsofOfflineStoreConfig": "airflow_mlops.hooks.feast.asof.store",
    }
)
