"""Base of the monitoring operators: the windows of an application.

All that is recorded of a window is written once: a task that runs again finds what is there and goes on from it. See
:class:`~airflow_mlops.stores.windows.WindowStore`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import MLOpsError
from airflow_mlops.operators.errors import MLOpsTask

if TYPE_CHECKING:
    from airflow_mlops.primitives.delivery.batch import PredictionBatch
    from airflow_mlops.stores.predictions import PredictionStore
    from airflow_mlops.stores.windows import WindowStore


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

    def _open(self) -> tuple[PredictionStore, WindowStore]:
        from airflow_mlops.hooks.store.open import open_store
        from airflow_mlops.stores.predictions import PredictionStore
        from airflow_mlops.stores.windows import WindowStore

        store = open_store(self.store)
        return PredictionStore(store, self.application), WindowStore(store, self.application)


def names_of(batch: PredictionBatch) -> dict[str, str]:
    """The names of a window in what a task returns."""
    return {"window_id": batch.window_id, "model_version": batch.model_version}


def of_window(batch: PredictionBatch, error: MLOpsError) -> MLOpsError:
    """The error with the name of its window, of the same type: some are worth another try."""
    return type(error)(f"Window {batch.window_id}: {error}")


def raise_all(broken: list[MLOpsError]) -> None:
    """Tell of all windows at once; try again only where another try may help all that failed."""
    if broken:
        final = [error for error in broken if not error.retriable]
        raise type((final or broken)[0])(" ".join(map(str, broken)))
