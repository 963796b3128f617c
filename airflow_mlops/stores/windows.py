"""What monitoring records of the windows of an application, and of the training data that it compares with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from airflow_mlops.hooks.store.base import Store
    from airflow_mlops.primitives.monitoring.alarms import Decision
    from airflow_mlops.primitives.monitoring.windows import RaisedAlarm, WindowInputs, WindowPerformance
    from airflow_mlops.primitives.statistics.bins import Reference

__all__ = ["WindowStore"]


class _Record(Protocol):
    @property
    def window_id(self) -> str: ...

    def to_json(self) -> dict[str, Any]: ...

    @classmethod
    def from_json(cls, document: Any, where: str) -> Self: ...


_Kind = TypeVar("_Kind", bound=_Record)


class WindowStore:
    """
    Records of the windows of predictions of one application.

    ``<application>/monitoring/windows/<window_id>/`` holds ``profile.bin`` and ``inputs.json``, ``performance.json``,
    ``decision.json``, and ``raised.json`` once the event of an alarm was seen in Airflow.
    ``<application>/monitoring/references/<dataset_id>`` is a dataset version's training split, counted (``.json``) and
    profiled (``.bin``). All are written once and never change: whoever writes gets the record of the first writer.

    :param store: where they are kept.
    :param application: name of the application, the first part of every key.
    """

    def __init__(self, store: Store, application: str) -> None:
        self.store = store
        self.application = application

    def key(self, window_id: str, name: str) -> str:
        """Key of something of a window."""
        return f"{self.application}/monitoring/windows/{window_id}/{name}"

    def inputs(self, window_id: str) -> WindowInputs | None:
        """How the inputs compare with the training data; ``None`` when they were not compared yet."""
        from airflow_mlops.primitives.monitoring.windows import WindowInputs

        return self._read(window_id, "inputs.json", WindowInputs)

    def has_inputs(self, window_id: str) -> bool:
        """Whether the inputs were compared, or found unreadable."""
        return self.store.exists(self.key(window_id, "inputs.json"))

    def put_inputs(self, record: WindowInputs) -> WindowInputs:
        """Record the comparison; returns the record that there is now."""
        return self._put("inputs.json", record)

    def put_profile(self, window_id: str, profile: bytes) -> None:
        """Keep the whylogs profile of a window's inputs."""
        self.store.put_if_absent(self.key(window_id, "profile.bin"), profile)

    def performance(self, window_id: str) -> WindowPerformance | None:
        """How well the window was predicted; ``None`` when that was not measured yet."""
        from airflow_mlops.primitives.monitoring.windows import WindowPerformance

        return self._read(window_id, "performance.json", WindowPerformance)

    def put_performance(self, record: WindowPerformance) -> WindowPerformance:
        """Record the measurement; returns the record that there is now."""
        return self._put("performance.json", record)

    def decision(self, window_id: str) -> Decision | None:
        """What follows from the window; ``None`` when it is not decided yet."""
        from airflow_mlops.primitives.monitoring.alarms import Decision

        return self._read(window_id, "decision.json", Decision)

    def put_decision(self, record: Decision) -> Decision:
        """Record the decision; returns the record that there is now."""
        return self._put("decision.json", record)

    def is_raised(self, window_id: str) -> bool:
        """Whether the event of the window's alarm was seen in Airflow."""
        return self.store.exists(self.key(window_id, "raised.json"))

    def put_raised(self, window_id: str, record: RaisedAlarm) -> None:
        """Record that the event of the window's alarm was seen in Airflow."""
        self.store.put_json_if_absent(self.key(window_id, "raised.json"), record.to_json())

    def reference(self, dataset_id: str) -> Reference | None:
        """A training split, counted; ``None`` when it was not counted yet.

        :raises DataError: it was written by a release with another format.
        """
        from airflow_mlops.primitives.statistics.bins import Reference

        key = f"{self._reference(dataset_id)}.json"
        found = self.store.read_json(key)
        return Reference.from_json(found) if found else None

    def put_reference(self, reference: Reference, profile: bytes) -> None:
        """Keep a training split, counted, and its whylogs profile."""
        key = self._reference(reference.dataset_id)
        self.store.put_if_absent(f"{key}.bin", profile)
        self.store.put_json_if_absent(f"{key}.json", reference.to_json())

    def _reference(self, dataset_id: str) -> str:
        return f"{self.application}/monitoring/references/{dataset_id}"

    def _read(self, window_id: str, name: str, kind: type[_Kind]) -> _Kind | None:
        key = self.key(window_id, name)
        document = self.store.read_json(key)
        return None if document is None else kind.from_json(document, self.store.address(key))

    def _put(self, name: str, record: _Kind) -> _Kind:
        key = self.key(record.window_id, name)
        self.store.put_json_if_absent(key, record.to_json())
        return type(record).from_json(self.store.read_json(key), self.store.address(key))
