"""Base of the monitoring operators: the windows of an application.

Everything about a window lies in ``<application>/monitoring/windows/<window>/`` and is written once:
``profile.bin`` and ``inputs.json``, ``performance.json``, ``decision.json``. A task that runs again finds what is
there and goes on from it. ``raised.json`` says that the event of an alarm was seen in Airflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import MLOpsError
from airflow_mlops.operators.errors import MLOpsTask

if TYPE_CHECKING:
    from airflow_mlops.hooks.store.base import Store

Window = dict[str, Any]


class MonitoringOperator(MLOpsTask):
    """
    Base of the monitoring operators: where the windows of an application are.

    :param application: name of the application.
    :param store: URI of the artifact store.
    """

    def __init__(self, *, application: str, store: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.application = application
        self.store = store

    def _open(self) -> Store:
        from airflow_mlops.hooks.store.open import open_store

        return open_store(self.store)

    def _windows(self, store: Store) -> list[Window]:
        """Metadata of all published predictions, oldest window first."""
        from airflow_mlops.hooks.store.base import published_batches

        return published_batches(store, self.application)

    def _key(self, window: Window, name: str) -> str:
        return f"{self.application}/monitoring/windows/{window['window_id']}/{name}"

    def _write_once(self, store: Store, window: Window, name: str, value: dict[str, Any]) -> dict[str, Any]:
        """Write unless another run was faster; return what is there now."""
        key = self._key(window, name)
        store.put_json_if_absent(key, {**names_of(window), **value})
        written: dict[str, Any] = store.read_json(key)
        return written


def names_of(window: Window) -> dict[str, Any]:
    return {"window_id": window["window_id"], "model_version": window["model_version"]}


def of_window(window: Window, error: MLOpsError) -> MLOpsError:
    """The error with the name of its window, of the same type: some are worth another try."""
    return type(error)(f"Window {window['window_id']}: {error}")


def raise_all(broken: list[MLOpsError]) -> None:
    """Tell of all windows at once; try again only where another try may help all that failed."""
    if broken:
        final = [error for error in broken if not error.retriable]
        raise type((final or broken)[0])(" ".join(map(str, broken)))
