"""What a model predicted of the test split, beside what is true of it.

The targets come from the dataset version and never from the container; the container's file gives the predictions
alone. Rows stand in the order of their keys, so that two models' rows of one split are paired.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from airflow_mlops.database import connect
from airflow_mlops.exceptions import ContractError, DataError
from airflow_mlops.primitives.container_output.answers import match_answers
from airflow_mlops.primitives.container_output.parquet_cells import judge_cells
from airflow_mlops.primitives.sql.present import is_present
from airflow_mlops.primitives.sql.words import identifier, parquet
from airflow_mlops.primitives.statistics.coding import binary_sql, is_binary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import duckdb
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Codes = npt.NDArray[np.int64]
    Mask = npt.NDArray[np.bool_]

Kind = Literal["binary", "classes", "numbers", "ranking", "clusters", "anomaly", "returns"]
#: Column beside ``prediction`` with the cluster by a model of another seed or half of the data.
SECOND = "second_prediction"
#: Most classes and clusters that are told apart.
MOST_CODES = 1_000

_NUMBER = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
)
_NUMBERS = (*_NUMBER, "FLOAT", "DOUBLE", "BOOLEAN")
_WIDE = ("BIGINT", "UBIGINT", "HUGEINT", "UHUGEINT")
_SAFE = 2.0**53  # whole numbers up to it are different doubles


@dataclass(frozen=True)
class TestSplit:
    """The test split of a dataset version.

    :param files: its Parquet files.
    :param keys: columns that name a row, with ``timestamp``.
    :param target: column with what is true; ``None`` without one.
    :param inputs: columns that a model may read.
    """

    __test__ = False  # a split, whatever pytest thinks of the name

    files: tuple[Path, ...]
    keys: tuple[str, ...]
    timestamp: str | None = None
    target: str | None = None
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class PredictedRows:
    """Predictions and truth, one entry a row.

    :param kind: what the numbers mean: the probability of 1 and 0 or 1 (``binary``), number of a class (``classes``,
        ``clusters``), a number (``numbers``), a score and a relevance (``ranking``), a score and 0, 1 or NaN for not
        known (``anomaly``), the return of an episode (``returns``).
    :param actual: what is true; ``None`` where there is no target.
    :param threshold: the probability from which ``binary`` counts as 1.
    :param group: number of the list of each row (``ranking``).
    :param points: standardised inputs of the rows ``sampled`` (``clusters``).
    :param second: cluster by another model of the same code (``clusters``).
    :param names: of the classes or clusters.
    """

    kind: Kind
    prediction: Floats
    actual: Floats | None = None
    threshold: float = 0.5
    group: Codes | None = None
    points: Floats | None = None
    sampled: Codes | None = None
    second: Codes | None = None
    names: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.prediction)

    @property
    def truth(self) -> Floats:
        """What is true of each row.

        :raises DataError: there is no target.
        """
        if self.actual is None:
            raise DataError("The dataset has no target to judge the predictions by.")
        return self.actual

    def part(self, rows: Mask) -> PredictedRows:
        """Some of the rows."""
        import numpy as np

        points = sampled = None
        if self.points is not None and self.sampled is not None:
            kept = rows[self.sampled]
            points = self.points[kept]
            sampled = (np.cumsum(rows) - 1)[self.sampled[kept]]
        return replace(
            self,
            prediction=self.prediction[rows],
            actual=None if self.actual is None else self.actual[rows],
            group=None if self.group is None else self.group[rows],
            second=None if self.second is None else self.second[rows],
            points=points,
            sampled=sampled,
        )


def read_predicted(
    split: TestSplit, predictions: Path, *, paradigm: str, threshold: float = 0.5, seed: int = 0
) -> PredictedRows | None:
    """Join predictions with the truth; ``None`` for a paradigm or target that nothing is known to measure of.

    :param predictions: the container's file: keys, ``prediction``, and the time where keys alone name several rows.
    :param threshold: the probability from which a row counts as positive.
    :param seed: of the sample that stands for all rows of a clustering.
    :raises ContractError: the file does not answer the split row by row.
    :raises DataError: the targets are nothing that the paradigm can learn.
    """
    import duckdb

    if paradigm == "other" or (
        split.target is None and paradigm in ("classification", "regression", "ranking")
    ):
        return None
    judge_cells([predictions], "output/predictions.parquet")
    with connect(threads=2) as connection:
        connection.sql(f"FROM {parquet([str(path) for path in split.files])}").create_view("examples")
        try:
            labels = paradigm in ("classification", "clustering")
            found = _joined(connection, split, predictions, labels=labels)
        except duckdb.Error as error:
            raise ContractError(
                f"output/predictions.parquet must hold the columns {', '.join(split.keys)} and prediction: {error}. "
                "Cure: let evaluate write them for each row of the split test."
            ) from error
        made = _MAKERS[paradigm](split, found, threshold)
        return _with_points(made, connection, split, seed) if made and made.kind == "clusters" else made


def read_columns(split: TestSplit, columns: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Columns of the split in the order of the predicted rows; a name that the split lacks is left out."""
    import numpy as np

    with connect(threads=2) as connection:
        relation = connection.sql(f"FROM {parquet([str(path) for path in split.files])}")
        relation.create_view("examples")
        kinds = dict(zip(relation.columns, map(str, relation.types), strict=True))
        known = [name for name in dict.fromkeys(columns) if name in kinds]
        if not known:
            return {}
        names = ", ".join(
            identifier(name)
            if kinds[name] in _NUMBERS
            else f"{identifier(name)}::VARCHAR AS {identifier(name)}"
            for name in known
        )
        found: dict[str, Any] = connection.execute(
            f"SELECT {names} FROM examples ORDER BY {_order(split)}"
        ).fetchnumpy()
        return {name: np.ma.asarray(values) for name, values in found.items()}


def _joined(
    connection: duckdb.DuckDBPyConnection, split: TestSplit, predictions: Path, *, labels: bool
) -> Mapping[str, Any]:
    """Predictions beside the truth.

    :param labels: they are names of classes, whatever numbers they are written as.
    """
    answers = match_answers(connection, predictions, keys=split.keys, timestamp=split.timestamp, split="test")
    types = {name.lower(): type_ for name, type_ in answers.types.items()}  # SQL takes names in any case
    types |= _labels(connection, "predicted", types, "prediction", SECOND) if labels else {}
    wanted = [f"p.{_plain('prediction', types)} AS prediction"]
    if SECOND in types:
        wanted.append(f"p.{_plain(SECOND, types)} AS {SECOND}")
    if split.target:
        table = connection.table("examples")
        known = dict(zip(table.columns, map(str, table.types), strict=True))
        known |= _labels(connection, "examples", known, split.target) if labels else {}
        wanted.append(f"e.{_plain(split.target, known)} AS actual")
    wanted.append(f"e.{identifier(split.keys[0])}::VARCHAR AS first_key")
    order = ", ".join(f"e.{identifier(name)}" for name in _order_names(split))
    joined = connection.execute(f"SELECT {', '.join(wanted)} FROM {answers.joined} ORDER BY {order}")
    found: Mapping[str, Any] = joined.fetchnumpy()
    return found


def _plain(name: str, types: Mapping[str, str]) -> str:
    """A column as DOUBLE where it holds numbers, as text elsewhere."""
    kind = types.get(name, "")
    number = kind in _NUMBERS or kind.startswith("DECIMAL")
    return f"{identifier(name)}::{'DOUBLE' if number else 'VARCHAR'}"


def _labels(
    connection: duckdb.DuckDBPyConnection, relation: str, types: Mapping[str, str], *names: str
) -> dict[str, str]:
    """Text as the type of the columns whose whole numbers are too great for a double to tell them apart."""
    wide = [name for name in names if types.get(name) in _WIDE]
    if not wide:
        return {}
    greatest = ", ".join(f"max(abs({identifier(name)}::DOUBLE))" for name in wide)
    found = connection.execute(f"SELECT {greatest} FROM {relation}").fetchall()[0]
    return {name: "VARCHAR" for name, most in zip(wide, found, strict=True) if most and most >= _SAFE}


def _order_names(split: TestSplit) -> tuple[str, ...]:
    return (*split.keys, *([split.timestamp] if split.timestamp else []))


def _order(split: TestSplit) -> str:
    return ", ".join(identifier(name) for name in _order_names(split))


# What the columns mean, by paradigm ------------------------------------------------------------


def _classification(split: TestSplit, found: Mapping[str, Any], threshold: float) -> PredictedRows:
    import numpy as np

    _refuse_missing(found, split.target)
    prediction, actual = _filled(found["prediction"]), _filled(found["actual"])
    numbers = prediction.dtype.kind == "f" and actual.dtype.kind == "f"
    if numbers and np.isin(actual, (0.0, 1.0)).all():
        if len(prediction) and not (prediction.min() >= 0 and prediction.max() <= 1):
            raise ContractError(
                f"output/predictions.parquet: {split.target} is 0 or 1, so prediction must be the probability of 1; got "
                f"values from {prediction.min():g} to {prediction.max():g}."
            )
        return PredictedRows("binary", prediction, actual, threshold)
    predicted, true = _texts(prediction), _texts(actual)
    names, (left, right) = _codes(predicted, true)
    _check_coding(split.target or "target", prediction, set(predicted.tolist()), set(true.tolist()), actual)
    return PredictedRows("classes", left.astype(np.float64), right.astype(np.float64), names=names)


def _refuse_missing(found: Mapping[str, Any], target: str | None) -> None:
    """Rows without target say nothing of a prediction, right or wrong."""
    missing = int((~is_present(found["actual"])).sum())
    if missing:
        raise DataError(
            f"The target {target} is null or NaN in {missing} of {len(found['actual'])} rows of the split test, which "
            "therefore cannot be judged. Cure: provision the dataset again without keep_unlabelled; examples without "
            "target are left out."
        )


def _check_coding(
    target: str, prediction: npt.NDArray[Any], predicted: set[str], true: set[str], actual: npt.NDArray[Any]
) -> None:
    """Predictions must be able to be right: classes as the target spells them, or probabilities of a 0/1 target."""
    if predicted <= true or not len(prediction):
        return
    numbers = prediction.dtype.kind == "f"
    shares = numbers and prediction.min() >= 0 and prediction.max() <= 1
    probabilities = shares and bool((prediction != prediction.round()).any())
    hard = shares and not probabilities and len(true) <= 2
    if not (probabilities or hard or not predicted & true):
        return
    shown = "; ".join(
        f"{name} has {', '.join(sorted(values)[:4])}{', …' if len(values) > 4 else ''}"
        for name, values in (("prediction", predicted), (f"the target {target}", true))
    )
    made = binary_sql(target, dict.fromkeys(actual[:100_000].tolist())) if len(true) <= 2 else ""
    sql = f" (in the examples' SQL: {made})" if made else ""
    raise DataError(
        f"output/predictions.parquet cannot be held against the target: {shown}. Cure: where prediction is a "
        f"probability, let the target be the number 0 or 1{sql}; else write as prediction the class as the target "
        "spells it."
    )


def _regression(split: TestSplit, found: Mapping[str, Any], threshold: float) -> PredictedRows:  # noqa: ARG001
    _refuse_missing(found, split.target)
    return PredictedRows("numbers", _number("prediction", found), _number("actual", found, split.target))


def _ranking(split: TestSplit, found: Mapping[str, Any], threshold: float) -> PredictedRows:  # noqa: ARG001
    _refuse_missing(found, split.target)
    _, (group,) = _codes(_texts(found["first_key"]), most=None)
    rows = _number("prediction", found), _number("actual", found, split.target)
    return PredictedRows("ranking", *rows, group=group)


def _anomaly(split: TestSplit, found: Mapping[str, Any], threshold: float) -> PredictedRows:
    import numpy as np

    score = _number("prediction", found)
    if split.target is None:
        return PredictedRows("anomaly", score, None, threshold)
    if found["actual"].dtype.kind != "f":
        label, known = np.full(len(score), np.nan), set(found["actual"][is_present(found["actual"])].tolist())
    else:
        label = np.ma.filled(np.ma.asarray(found["actual"], dtype=np.float64), np.nan)
        known = set(label[is_present(label)].tolist())
    if not is_binary(known):
        raise DataError(
            f"{split.target} of an anomaly detection must be the number 0, 1, or null for not known; got "
            f"{', '.join(sorted(map(str, known))[:4])}. Cure: in the examples' SQL: {binary_sql(split.target, known)}"
        )
    return PredictedRows("anomaly", score, label, threshold)


def _clustering(split: TestSplit, found: Mapping[str, Any], threshold: float) -> PredictedRows:  # noqa: ARG001
    import numpy as np

    names, (cluster,) = _codes(_texts(found["prediction"]))
    second = _codes(_texts(found[SECOND]))[1][0] if SECOND in found else None
    actual = None
    if split.target:
        known = is_present(found["actual"])
        actual = np.full(len(known), np.nan)
        actual[known] = _codes(_texts(found["actual"][known]), most=None)[1][0]
    return PredictedRows("clusters", cluster.astype(np.float64), actual, second=second, names=names)


def _reinforcement(split: TestSplit, found: Mapping[str, Any], threshold: float) -> PredictedRows:  # noqa: ARG001
    return PredictedRows("returns", _number("prediction", found))


_MAKERS = {
    "classification": _classification,
    "regression": _regression,
    "ranking": _ranking,
    "anomaly": _anomaly,
    "clustering": _clustering,
    "reinforcement": _reinforcement,
}


def _with_points(
    rows: PredictedRows, connection: duckdb.DuckDBPyConnection, split: TestSplit, seed: int
) -> PredictedRows:
    """Add the numeric inputs of the rows that stand for all."""
    import numpy as np

    from airflow_mlops.primitives.statistics.clusters import sample, standardised

    table = connection.table("examples")
    kinds = dict(zip(table.columns, map(str, table.types), strict=True))
    names = [name for name in split.inputs if _plain(name, kinds).endswith("DOUBLE")]
    if not names or not len(rows):
        return rows
    columns = ", ".join(f"{identifier(name)}::DOUBLE AS {identifier(name)}" for name in names)
    found = connection.execute(f"SELECT {columns} FROM examples ORDER BY {_order(split)}").fetchnumpy()
    points = standardised(
        np.column_stack([np.ma.filled(np.ma.asarray(found[name]), np.nan) for name in names])
    )
    chosen = sample(len(rows), seed)
    return replace(rows, points=points[chosen], sampled=chosen)


def _number(name: str, found: Mapping[str, Any], called: str | None = None) -> Floats:
    import numpy as np

    values = _filled(found[name])
    if values.dtype.kind != "f" or not np.isfinite(values).all():
        error = ContractError if called is None else DataError
        where = "output/predictions.parquet: prediction" if called is None else f"The target {called}"
        raise error(f"{where} must be a finite number in every row of the split test.")
    return np.asarray(values, dtype=np.float64)


def _filled(values: Any) -> npt.NDArray[Any]:
    import numpy as np

    if np.ma.isMaskedArray(values):
        return np.ma.filled(values, np.nan if values.dtype.kind == "f" else "")
    return np.asarray(values)


def _texts(values: Any) -> npt.NDArray[Any]:
    """Values as text; whole numbers without their decimals, so that 1 and 1.0 are one class."""
    import numpy as np

    plain = _filled(values)
    if plain.dtype.kind != "f":
        return plain.astype(str)
    # Beyond 2^53 a double is no certain whole number: 1e300 stays 1e+300.
    whole = np.isfinite(plain) & (plain == np.round(plain)) & (np.abs(plain) <= _SAFE)
    return np.where(whole, np.where(whole, plain, 0).astype(np.int64).astype(str), plain.astype(str))


def _codes(
    *columns: npt.NDArray[Any], most: int | None = MOST_CODES
) -> tuple[tuple[str, ...], tuple[Codes, ...]]:
    import numpy as np

    names, codes = np.unique(np.concatenate(columns), return_inverse=True)
    if most is not None and len(names) > most:
        raise ContractError(
            f"output/predictions.parquet: prediction and target have {len(names)} different values; at most {most} "
            "classes or clusters are told apart. Cure: write paradigm: regression if they are numbers."
        )
    return tuple(names.tolist()), tuple(
        np.split(codes.astype(np.int64), np.cumsum([len(c) for c in columns])[:-1])
    )
