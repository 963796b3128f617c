"""The class that a data scientist writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow_mlops.contract.model_code.parameters import check_properties, parameters_schema
from airflow_mlops.contract.protocol.paths import CONTRACT_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from airflow_mlops.contract.model_code.cases import Case
    from airflow_mlops.contract.model_code.job import Job


class ModelCode:
    """Model code of one application: say what you are, write the methods you have.

    ``train`` is mandatory for a model, with ``save`` and ``load``; ``prepare`` for a feature pipeline. Each of
    ``evaluate``, ``test_cases``, ``predict`` and ``serve`` that a subclass defines adds its command. Heavy imports belong into the
    methods: ``describe`` is quick then.

    A method reports what is wrong by raising :class:`~airflow_mlops.contract.protocol.failures.DataError` and
    its siblings; any other exception fails the job with its traceback.
    """

    name: ClassVar[str] = ""
    """Of the image, as ``flight-delay``."""

    version: ClassVar[str] = ""
    """Of this code, as ``1.0.0``."""

    paradigm: ClassVar[str] = "other"
    """classification, regression, ranking, clustering, anomaly, reinforcement or other."""

    parameters: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Name → JSON Schema of type, minimum, maximum, enum, default, description; and ``search``, what a tuning tries:
    ``{"low": 0.01, "high": 0.3, "log": True}``, with ``step`` instead of ``log``, or ``{"choices": [...]}``."""

    inputs: ClassVar[list[dict[str, Any]] | None] = None
    """Columns that the code needs, when it knows them; ``None``: whatever the configuration says."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Check the parameters' schema where it is written, not when a job runs."""
        super().__init_subclass__(**kwargs)
        check_properties(cls.__name__, cls.parameters)

    def prepare(self, job: Job) -> None:
        """Make features of the extracted rows: Parquet in ``output/data`` of what ``job.files("extracted")`` has.

        The rows are an increment: what was published before is not among them.
        """
        raise NotImplementedError

    def train(self, job: Job) -> Any:
        """Fit a model on the splits ``train`` and ``validation``.

        :returns: the model, which is then given to :meth:`save`.
        """
        raise NotImplementedError

    def save(self, model: Any, directory: Path, job: Job) -> None:
        """Write the model into a directory that exists and is empty."""
        raise NotImplementedError

    def load(self, directory: Path) -> Any:
        """Read what :meth:`save` wrote."""
        raise NotImplementedError

    def evaluate(self, model: Any, job: Job) -> None:
        """Measure the model on the split ``test``: metrics, and the predictions of every row."""
        raise NotImplementedError

    def test_cases(self, model: Any, job: Job) -> Iterable[Case]:
        """What must be true of this very model before anybody uses it."""
        raise NotImplementedError

    def predict(self, model: Any, job: Job) -> None:
        """Write keys and ``prediction`` of every row of the split ``predict``."""
        raise NotImplementedError

    def serve(self, model: Any, rows: list[dict[str, Any]]) -> list[Any]:
        """Predictions for rows that came in one request, in their order, as JSON values.

        It is called by several threads at a time.

        :raises DataError: for rows that the model cannot take; the client reads the message.
        """
        raise NotImplementedError

    def checkpoint(self, job: Job) -> None:
        """Save what a later try needs to go on; called once after SIGTERM, with about 3 s to do it."""

    @classmethod
    def commands(cls) -> list[str]:
        """What the entrypoint understands, from the methods that the subclass has."""
        methods = {
            "prepare": "prepare",
            "train": "train",
            "evaluate": "evaluate",
            "test": "test_cases",
            "predict": "predict",
            "serve": "serve",
        }
        return ["describe"] + [
            command
            for command, method in methods.items()
            if getattr(cls, method) is not getattr(ModelCode, method)
        ]

    @classmethod
    def describe(cls) -> dict[str, Any]:
        """What ``describe`` prints."""
        description: dict[str, Any] = {
            "contract": CONTRACT_VERSION,
            "name": cls.name,
            "version": cls.version,
            "commands": cls.commands(),
            "paradigm": cls.paradigm,
            "parameters": parameters_schema(cls.parameters),
        }
        if "train" in description["commands"]:
            description["trials"] = True  # a job's list of them is done one after the other
        return description if cls.inputs is None else {**description, "inputs": cls.inputs}
