"""
Every error that this package raises on purpose.

::

    MLOpsError
    ├── SpecError                  a YAML file says something it cannot mean
    ├── ContractError              an image or its output breaks the model-code contract
    ├── ParameterError             a parameter that the model code does not know, or of a wrong type
    ├── DataError                  data that cannot be used
    │   ├── EmptyDatasetError      no example in the window
    │   ├── SourceError            a source is missing, or has not the columns it should
    │   │   └── SourceUnavailable  it does not answer: try again
    │   └── AssumptionError        a stated assumption about the data does not hold
    ├── FeatureStoreError          Feast: service, view or registry missing or broken
    │   ├── FeatureStoreConflict   somebody else changed the registry first
    │   └── FeatureStoreUnavailable  the registry or a store behind it does not answer: try again
    ├── StoreError                 the artifact store
    │   ├── StoreConflictError     somebody else wrote first
    │   └── StoreUnavailable       it does not answer: try again
    ├── TrackingError              MLflow refused
    │   └── TrackingUnavailable    MLflow does not answer: try again
    └── RunnerError                a job could not be started, watched or collected
        ├── ImageNotFoundError     the image is not there and cannot be pulled
        ├── GpuMissingError        the machine has not the GPUs that the job asks for
        ├── GpusTakenError         other jobs hold them: try again
        ├── RegistryUnavailable    the registry or repository of the model code does not answer: try again
        └── EngineUnavailable      the engine does not answer: try again

A message says what, where, expected, got, and the cure. Hooks translate the errors of the system
they speak to; ``AirflowFailException`` and ``AirflowSkipException`` are raised only by operators
and sensors.
"""

from __future__ import annotations


class MLOpsError(Exception):
    """Root of all errors raised on purpose.

    ``retriable`` says whether the same call may succeed later without anybody changing anything.
    """

    retriable: bool = False


class SpecError(MLOpsError):
    """A YAML file says something that it cannot mean."""


class ContractError(MLOpsError):
    """An image, or what it wrote, breaks the model-code contract."""


class ParameterError(MLOpsError):
    """A parameter that the model code does not know, or of a wrong type or range."""


class DataError(MLOpsError):
    """Data that cannot be used."""


class EmptyDatasetError(DataError):
    """There is no example in the window."""


class SourceError(DataError):
    """A data source is missing, or lacks columns that it should have."""


class SourceUnavailable(SourceError):  # noqa: N818
    """A data source does not answer."""

    retriable = True


class AssumptionError(DataError):
    """A stated assumption about the data does not hold.

    :param message: what failed, at most ten rules.
    :param failures: all failures as JSON values (rule, column, expected, observed, examples).
    """

    def __init__(self, message: str, failures: list[dict[str, object]] | None = None) -> None:
        super().__init__(message)
        self.failures = failures or []


class FeatureStoreError(MLOpsError):
    """Feast: a service, view or registry is missing or broken."""


class FeatureStoreConflict(FeatureStoreError):  # noqa: N818
    """Somebody else changed the registry first: read again and decide again."""

    retriable = True


class FeatureStoreUnavailable(FeatureStoreError):  # noqa: N818
    """The registry, or a store behind it, does not answer."""

    retriable = True


class StoreError(MLOpsError):
    """The artifact store cannot do what was asked."""


class StoreConflictError(StoreError):
    """Somebody else wrote first: read again and decide again."""

    retriable = True


class StoreUnavailable(StoreError):  # noqa: N818
    """The artifact store does not answer."""

    retriable = True


class TrackingError(MLOpsError):
    """MLflow refused a request."""


class TrackingUnavailable(TrackingError):  # noqa: N818  the name says more than an ending
    """MLflow does not answer."""

    retriable = True


class RunnerError(MLOpsError):
    """A job could not be started, watched or collected."""


class ImageNotFoundError(RunnerError):
    """The image is not on the engine and cannot be pulled."""


class GpuMissingError(RunnerError):
    """The machine has not the GPUs that the job asks for."""


class GpusTakenError(RunnerError):
    """Other jobs hold the GPUs that the job asks for."""

    retriable = True


class RegistryUnavailable(RunnerError):  # noqa: N818
    """The container registry, or the repository, that the model code comes from does not answer.

    ``retry_after`` are the seconds that it asks to be left alone, if it says so.
    """

    retriable = True
    retry_after: float | None = None


class EngineUnavailable(RunnerError):  # noqa: N818
    """The engine that runs containers does not answer."""

    retriable = True
