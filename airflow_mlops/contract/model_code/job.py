"""One job as the model code sees it: parameters, data, and where the results go."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_mlops.contract.model_code.latency import latencies
from airflow_mlops.contract.model_code.parameters import Properties, check_parameters, parse_strings
from airflow_mlops.contract.protocol import distribution
from airflow_mlops.contract.protocol.failures import DataError, ParameterError
from airflow_mlops.contract.protocol.paths import CONTRACT_VERSION, Paths
from airflow_mlops.contract.protocol.progress import report_progress
from airflow_mlops.contract.protocol.results import Direction, Metric, is_finite, write_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

_Rows = TypeVar("_Rows")


@dataclass(frozen=True)
class Columns:
    """The roles of the columns in the data.

    :param keys: what names one example.
    :param timestamp: the example's time; empty when there is none.
    :param targets: what is to be predicted; absent from the data of ``predict``.
    :param features: all inputs of the model, in order.
    """

    keys: tuple[str, ...] = ()
    timestamp: str = ""
    targets: tuple[str, ...] = ()
    features: tuple[str, ...] = ()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Columns:
        """Read the ``columns`` object of ``mlops.json``."""
        return cls(
            keys=tuple(config.get("keys") or ()),
            timestamp=config.get("timestamp") or "",
            targets=tuple(config.get("targets") or ()),
            features=tuple(config.get("features") or ()),
        )


@dataclass(frozen=True)
class Fold:
    """One fold of a cross-validation.

    :param train: files to learn from.
    :param validation: files to judge by; none of their rows is in ``train``.
    """

    train: tuple[Path, ...]
    validation: tuple[Path, ...]


@dataclass(frozen=True)
class Job:
    """What a method of :class:`~airflow_mlops.contract.model_code.model_code.ModelCode` works with.

    :param command: ``prepare``, ``train``, ``evaluate``, ``test``, ``predict`` or ``serve``.
    :param parameters: typed and checked, with the defaults filled in.
    :param seed: for every random choice.
    :param run: application, dag_id, run_id, task_id, job; empty outside Airflow.
    :param resuming: an earlier try of this job left ``paths.checkpoints`` to go on from.
    """

    command: str
    paths: Paths
    parameters: Mapping[str, Any]
    columns: Columns = field(default_factory=Columns)
    seed: int = 0
    run: Mapping[str, Any] = field(default_factory=dict)
    resuming: bool = False
    metrics: list[Metric] = field(default_factory=list)

    @property
    def rank(self) -> int:
        """Number of this process among those that train together, from 0; what the others save is not kept."""
        return distribution.rank()

    @property
    def world_size(self) -> int:
        """Processes that train together."""
        return distribution.world_size()

    def files(self, split: str, pattern: str = "*.parquet") -> list[Path]:
        """Files of a split, sorted by name; for ``prepare`` the split is ``extracted``.

        :raises DataError: when there is none.
        """
        folder = self.paths.split(split)
        found = sorted(folder.glob(pattern))
        if not found:
            raise DataError(f"No {pattern} in {folder}: `{self.command}` needs the {split} split.")
        return found

    def folds(self) -> list[Fold]:
        """Folds of train for cross-validation, in order; empty when the dataset has none.

        Folds in time go forward: each one learns from the past alone.

        :raises DataError: what is there is no list of folds.
        """
        file = self.paths.folds
        if not file.is_file():
            return []
        try:
            return [
                Fold(
                    *(
                        tuple(self.paths.data / name for name in fold[role])
                        for role in ("train", "validation")
                    )
                )
                for fold in json.loads(file.read_text(encoding="utf-8"))
            ]
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise DataError(f"{file} is no list of folds: {type(error).__name__}: {error}.") from error

    def secret(self, name: str) -> dict[str, Any]:
        """An Airflow connection that the application gives to its model code (``training.secrets``).

        :return: ``conn_type``, ``host``, ``port``, ``schema``, ``login``, ``password`` and ``extra``, a mapping.
        :raises ParameterError: there is no secret of that name; its content is in no message.
        """
        file = self.paths.secret(name)
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            known = sorted(other.stem for other in file.parent.glob("*.json"))
            raise ParameterError(
                f"This job has no secret {name!r}; it has: {', '.join(known) or 'none'}. Cure: "
                f"training.secrets: {{{name}: <Airflow connection>}}."
            ) from None
        except (ValueError, OSError) as error:
            raise ParameterError(f"{file} cannot be read: {type(error).__name__}.") from None
        return dict(content)

    def require_columns(self, present: Iterable[str], needed: Iterable[str], where: str) -> None:
        """Refuse data that lacks columns.

        :param present: the columns that the data has.
        :param needed: the columns that the model code reads.
        :param where: the file or split, for the message.
        :raises DataError: naming every missing column and the nearest present one.
        """
        known = list(present)
        missing = [name for name in needed if name not in known]
        if missing:
            hints = [
                f"{name} (nearest: {near[0]})" if near else name
                for name in missing
                for near in [difflib.get_close_matches(name, known, n=1)]
            ]
            raise DataError(f"{where} lacks {', '.join(hints)}; it has {', '.join(known) or 'no column'}.")

    def log_metric(
        self,
        name: str,
        value: float,
        *,
        step: int | None = None,
        split: str | None = None,
        slice: str | None = None,  # noqa: A002 (the contract's own word)
        direction: Direction | None = None,
        stderr: float | None = None,
        n: int | None = None,
    ) -> None:
        """Add one figure to ``metrics.json``; for the fields see :class:`.results.Metric`.

        :raises ValueError: for a value that is not finite.
        """
        self.metrics.append(
            Metric(
                name,
                float(value),
                step=None if step is None else int(step),
                split=split,
                slice=slice,
                direction=direction,
                stderr=None if stderr is None else float(stderr),
                n=None if n is None else int(n),
            )
        )

    def progress(
        self, metrics: Mapping[str, float] | None = None, step: int | None = None, total: int | None = None
    ) -> None:
        """Say how far the job is, and figures that are worth seeing already; of several processes, the first speaks."""
        if self.rank == 0:
            report_progress(metrics, step, total)

    def measure_latency(
        self, predict: Callable[[_Rows], object], batches: Iterable[_Rows], *, split: str = "test"
    ) -> None:
        """Time one call of ``predict`` for each batch, and log ``latency_p50`` to ``latency_p99`` in seconds.

        The first batch is predicted once before, untimed: what a first call loads is no latency.

        :param predict: as a consumer would call it.
        :param batches: rows as ``predict`` takes them: one row each, if that is what a consumer asks for.
        """
        for name, seconds, calls in latencies(predict, batches):
            self.log_metric(f"latency_{name}", seconds, split=split, direction="minimize", n=calls)

    def save_metrics(self) -> None:
        """Write what was logged so far."""
        write_metrics(self.paths.metrics, self.metrics)


def read_job(command: str, paths: Paths, properties: Properties) -> Job:
    """The job that the configuration below ``paths`` describes.

    ``hyperparameters.json`` speaks when ``mlops.json`` gives no parameters; ``serve`` and trainings on
    plain SageMaker need no ``mlops.json`` at all.

    :param properties: schema of the model code's parameters.
    :raises ParameterError: the configuration cannot be read, or names a wrong parameter.
    """
    config = _read_object(paths.config)
    version = config.get("contract", CONTRACT_VERSION)
    if version != CONTRACT_VERSION:
        raise ParameterError(
            f"{paths.config}: contract {version!r}, but this image speaks contract {CONTRACT_VERSION}: "
            "rebuild it with the airflow_mlops release that runs it."
        )
    given = config.get("parameters")
    if given is None:
        given = parse_strings(properties, _read_object(paths.hyperparameters))
    elif not isinstance(given, dict):
        raise ParameterError(f"{paths.config}: parameters: expected an object, got {type(given).__name__}.")
    seed = config.get("seed")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
        raise ParameterError(f"{paths.config}: seed: expected a whole number, got {seed!r}.")
    return Job(
        command=command,
        paths=paths,
        parameters=check_parameters(properties, given, require=command == "train"),
        columns=Columns.from_config(_object(config, "columns", paths.config)),
        seed=seed or 0,
        run=_object(config, "run", paths.config),
        # Where nobody says it, as on plain SageMaker, the files do.
        resuming=bool(config.get("resume", _any_file(paths.checkpoints))),
    )


def system_metrics_every(paths: Paths) -> float:
    """Seconds between two lines of how busy the machine is; 0 for none.

    :raises ParameterError: the configuration cannot be read.
    """
    value = _read_object(paths.config).get("system_metrics")
    return max(0.0, float(str(value))) if is_finite(value) else 0.0


def _any_file(folder: Path) -> bool:
    return folder.is_dir() and any(path.is_file() for path in folder.rglob("*"))


def _object(config: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = config.get(key)
    if value is not None and not isinstance(value, dict):
        raise ParameterError(f"{path}: {key}: expected an object, got {type(value).__name__}.")
    return value or {}


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError, OSError) as error:
        raise ParameterError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ParameterError(f"{path}: expected a JSON object, got {type(content).__name__}.")
    return content
