"""
Every error that this package raises on purpose.

::

    MLOpsError
    ├── SpecError                             invalid value in a YAML file
    ├── ContractError                         an image or its output breaks the model-code contract
    ├── ParameterError                        unknown parameter of the model code, or one of a wrong type
    ├── DataError                             data that cannot be used
    │   ├── EmptyDatasetError                 no example in the window
    │   ├── SourceError                       a source is missing, or lacks columns
    │   │   └── SourceUnavailableError        it does not answer: try again
    │   └── AssumptionError                   a stated assumption about the data does not hold
    ├── FeatureStoreError                     Feast: service, view or registry missing or broken
    │   ├── FeatureStoreConflictError         another writer changed the registry first
    │   └── FeatureStoreUnavailableError      the registry or a store behind it does not answer: try again
    ├── StoreError                            the artifact store
    │   ├── StoreConflictError                another writer was first
    │   └── StoreUnavailableError             it does not answer: try again
    ├── TrackingError                         MLflow refused
    │   └── TrackingUnavailableError          MLflow does not answer: try again
    ├── RunnerError                           a job could not be started, watched or collected
    │   ├── ImageNotFoundError                the image does not exist and cannot be pulled
    │   ├── GpusMissingError                  the machine does not have the requested GPUs
    │   ├── GpusTakenError                    other jobs hold them: try again
    │   ├── ModelCodeUnavailableError         the container registry or Git repository does not answer: try again
    │   └── EngineUnavailableError            the engine does not answer: try again
    └── CommandError                          a command of the command line cannot go on

A message says what, where, expected, got, and the cure. Hooks translate the errors of the system
they speak to; ``AirflowFailException`` and ``AirflowSkipException`` are raised only by operators
and sensors.
"""

from __future__ import annotations


class MLOpsError(Exception):
    """Root of all errors raised on purpose.

    ``retriable`` says whether the same call may succeed later without a change by the user.
    """

    retriable: bool = False


class SpecError(MLOpsError):
    """Invalid value in a YAML file."""


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


class SourceUnavailableError(SourceError):
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


class FeatureStoreConflictError(FeatureStoreError):
    """Another writer changed the registry first: read again and decide again."""

    retriable = True


class FeatureStoreUnavailableError(FeatureStoreError):
    """The registry, or a store behind it, does not answer."""

    retriable = True


class StoreError(MLOpsError):
    """The artifact store cannot do what was asked."""


class StoreConflictError(StoreError):
    """Another writer was first: read again and decide again."""

    retriable = True


class StoreUnavailableError(StoreError):
    """The artifact store does not answer."""

    retriable = True


class TrackingError(MLOpsError):
    """MLflow refused a request."""


class TrackingUnavailableError(TrackingError):
    """MLflow does not answer."""

    retriable = True


class RunnerError(MLOpsError):
    """A job could not be started, watched or collected."""


class ImageNotFoundError(RunnerError):
    """The image is not on the engine and cannot be pulled."""


class GpusMissingError(RunnerError):
    """The machine does not have the requested GPUs."""


class GpusTakenError(RunnerError):
    """Other jobs hold the GPUs that the job asks for."""

    retriable = True


class ModelCodeUnavailableError(RunnerError):
    """The container registry, or the repository, that the model code comes from does not answer.

    ``retry_after`` are the seconds that it asks to be left alone, if it says so.
    """

    retriable = True
    retry_after: float | None = None


class EngineUnavailableError(RunnerError):
    """The engine that runs containers does not answer."""

    retriable = True


class CommandError(MLOpsError):
    """A command of the command line cannot go on."""
