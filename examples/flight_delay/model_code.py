"""Will a flight arrive more than 15 minutes late? Asked one hour before its departure.

Gradient boosting on the weather, the plane, how late its last leg was, and how the airport, the
carrier and the destination are doing. ``python model_code.py describe`` says what it can do; its
files are below ``/opt/ml``, or ``$MLOPS_ROOT``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from checks import check_auc, check_no_weather, check_order, check_range, check_riskier, check_unseen
from measures import SLICED_BY, auc, log_measures, slices
from tables import Inputs, as_strings, inputs_of, labels, read_split, target_of, write_predictions

from airflow_mlops.contract import Case, DataError, Job, ModelCode, main

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pandas as pd
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import Pipeline

# A column of more levels names single planes and airports rather than kinds of flights.
MOST_CATEGORIES = 64
CURVE_STEP = 10
TESTED_ROWS = 5000
# Flights that are asked for one by one, as a consumer would.
TIMED_ROWS = 50
# What skops may rebuild beyond scikit-learn's public estimators: the trees, and the check of the
# categorical columns (`functools.partial` of `check_array`). Nothing of it runs code of the file.
TRUSTED = [
    "functools.partial",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.utils.validation.check_array",
]
REQUIREMENTS = ("scikit-learn", "skops", "pandas", "numpy")


class FlightDelay(ModelCode):
    """Probability that a flight is late."""

    name = "flight-delay"
    version = "1.0.0"
    paradigm = "classification"
    parameters: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "learning_rate": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "default": 0.1,
            "search": {"low": 0.02, "high": 0.3, "log": True},
            "description": "How much of each tree counts.",
        },
        "max_iter": {
            "type": "integer",
            "minimum": 1,
            "maximum": 5000,
            "default": 200,
            "description": "Most trees; fewer when the validation split says so.",
        },
        "max_leaf_nodes": {
            "type": "integer",
            "minimum": 2,
            "maximum": 1024,
            "default": 31,
            "search": {"low": 8, "high": 128, "log": True},
            "description": "Most leaves of a tree.",
        },
        "min_samples_leaf": {
            "type": "integer",
            "minimum": 1,
            "default": 200,
            "search": {"low": 20, "high": 1000, "log": True},
            "description": "Fewest flights in a leaf.",
        },
        "l2_regularization": {
            "type": "number",
            "minimum": 0,
            "default": 1.0,
            "description": "Pulls the leaves towards zero.",
        },
    }

    def train(self, job: Job) -> Pipeline:
        """Fit on ``train``; stop, and measure every tenth tree, on ``validation``."""
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.pipeline import Pipeline

        target, inputs = target_of(job), inputs_of(job, "train")
        train = read_split(job, "train", inputs, [target])
        validation = read_split(job, "validation", inputs, [target])
        inputs = Inputs(
            inputs.numbers,
            tuple(name for name in inputs.strings if train[name].nunique() <= MOST_CATEGORIES),
        )
        encoder = make_encoder(inputs)
        classifier = HistGradientBoostingClassifier(
            **job.parameters,
            categorical_features=range_after(inputs),
            early_stopping=True,
            n_iter_no_change=15,
            random_state=job.seed,
        )
        rows, actual = encoder.fit_transform(train[inputs.all]), labels(train, target, "train")
        seen, truth = encoder.transform(validation[inputs.all]), labels(validation, target, "validation")
        classifier.fit(rows, actual, X_val=seen, y_val=truth)
        log_curve(job, classifier, seen, truth)
        job.log_metric("rows", len(train), split="train")
        return Pipeline([("columns", encoder), ("trees", classifier)])

    def save(self, model: Pipeline, directory: Path, job: Job) -> None:  # noqa: ARG002
        """As an MLflow model: skops instead of pickle, and ``pyfunc`` gives probabilities."""
        from importlib.metadata import version

        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow.sklearn

        # It warns when its environment has no pip, whose version nobody asked for.
        logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)
        mlflow.sklearn.save_model(
            model,
            str(directory),
            serialization_format="skops",
            skops_trusted_types=TRUSTED,
            pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
            signature=signature_of(inputs_of_model(model)),
            pyfunc_predict_fn="predict_proba",
        )

    def load(self, directory: Path) -> Pipeline:
        """Without MLflow, whose import takes longer than a month of predictions."""
        from skops.io import load

        return load(directory / "model.skops", trusted=TRUSTED)

    def evaluate(self, model: Pipeline, job: Job) -> None:
        """Measure on ``test``, as a whole and by origin."""
        target, inputs = target_of(job), inputs_of_model(model)
        by = [SLICED_BY] if SLICED_BY in job.columns.features else []
        test = read_split(job, "test", inputs, [*job.columns.keys, *by, target])
        actual, probability = labels(test, target, "test"), late(model, test, inputs)
        log_measures(job, actual, probability)
        for name, where in slices(test, target):
            log_measures(job, actual[where], probability[where], part=name)
        singles = (test.iloc[[row]] for row in range(min(TIMED_ROWS, len(test))))
        job.measure_latency(partial(late, model, inputs=inputs), singles)
        write_predictions(job, test, probability)

    def predict(self, model: Pipeline, job: Job) -> None:
        """Keys and probability of every flight."""
        inputs = inputs_of_model(model)
        flights = read_split(job, "predict", inputs, job.columns.keys)
        write_predictions(job, flights, late(model, flights, inputs))

    def serve(self, model: Pipeline, rows: list[dict[str, Any]]) -> list[float]:
        """Probabilities for the rows of a request; columns beyond the model's are no matter."""
        inputs = inputs_of_model(model)
        for index, row in enumerate(rows):
            check_row(index, row, inputs)
        return late(model, as_frame(rows, inputs), inputs).tolist()

    def test_cases(self, model: Pipeline, job: Job) -> Iterator[Case]:
        """What must be true of this very model, on flights that it was not fitted to."""
        target, inputs = target_of(job), inputs_of_model(model)
        test = read_split(job, "test", inputs, [target])
        flights = test[inputs.all].head(TESTED_ROWS)
        tail = "tail_last_arr_delay"
        yield Case("probabilities lie between 0 and 1, and differ", partial(check_range, model, flights))
        yield Case("the order of rows does not matter", partial(check_order, model, flights))
        yield Case("an unseen carrier is no reason to fail", partial(check_unseen, model, flights, "carrier"))
        yield Case("missing weather is no reason to fail", partial(check_no_weather, model, flights))
        yield Case(
            "an aircraft that comes in two hours late is riskier than one on time",
            partial(check_riskier, model, flights, {tail: 120.0}, {tail: 0.0}, by=0.05),
        )
        yield Case(
            "a storm is no better than a clear sky",
            partial(
                check_riskier,
                model,
                flights,
                {"precip": 0.4, "visib": 1.0},
                {"precip": 0.0, "visib": 10.0},
                by=0.0,
            ),
        )
        for name, where in slices(test, target):
            yield Case(
                f"no worse than a coin for {name}",
                partial(check_auc, model, test[where], inputs.all, target),
            )


def make_encoder(inputs: Inputs) -> Any:
    """Numbers as they are, strings as ordinals; an unseen string is a missing value."""
    import numpy as np
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OrdinalEncoder

    ordinal = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=np.nan
    )
    return ColumnTransformer(
        [
            ("numbers", "passthrough", list(inputs.numbers)),
            ("strings", ordinal, list(inputs.strings)),
        ]
    )


def range_after(inputs: Inputs) -> list[int]:
    """Positions of the strings behind the numbers."""
    return list(range(len(inputs.numbers), len(inputs.all)))


def log_curve(
    job: Job, classifier: HistGradientBoostingClassifier, rows: np.ndarray, truth: np.ndarray
) -> None:
    """Log validation figures of every tenth tree and of the last one."""
    from sklearn.metrics import log_loss

    total = classifier.n_iter_
    for step, probability in enumerate(classifier.staged_predict_proba(rows), start=1):
        if step % CURVE_STEP and step != total:
            continue
        loss, (area, error) = log_loss(truth, probability), auc(truth, probability[:, 1])
        common = {"step": step, "split": "validation", "n": len(truth)}
        job.log_metric("log_loss", loss, direction="minimize", **common)
        job.log_metric("auc", area, direction="maximize", stderr=error, **common)
        figures = {"validation.log_loss": round(loss, 5), "validation.auc": round(area, 5)}
        job.progress(figures, step=step, total=total)


def inputs_of_model(model: Pipeline) -> Inputs:
    """The columns that the model was fitted to."""
    columns = {name: tuple(names) for name, _, names in model.named_steps["columns"].transformers_}
    return Inputs(numbers=columns["numbers"], strings=columns["strings"])


def signature_of(inputs: Inputs) -> Any:
    """What MLflow writes beside the model: every input may be missing."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    columns = [ColSpec("double", name, required=False) for name in inputs.numbers]
    columns += [ColSpec("string", name, required=False) for name in inputs.strings]
    return ModelSignature(Schema(columns), Schema([TensorSpec(np.dtype("float64"), (-1, 2))]))


def late(model: Pipeline, flights: pd.DataFrame, inputs: Inputs) -> np.ndarray:
    """Probability that each flight is late."""
    return model.predict_proba(flights[inputs.all])[:, 1]


def check_row(index: int, row: Mapping[str, Any], inputs: Inputs) -> None:
    """Refuse a row of a request that lacks an input, or has it of a wrong type."""
    missing = [name for name in inputs.all if name not in row]
    if missing:
        raise DataError(f"Row {index} lacks {', '.join(missing)}; null says that a value is not known.")
    for names, kinds, word in (
        (inputs.numbers, (int, float), "a number"),
        (inputs.strings, (str,), "a string"),
    ):
        for name in names:
            if row[name] is not None and not isinstance(row[name], kinds):
                raise DataError(
                    f"Row {index}: {name}: expected {word} or null, got {str(row[name])[:100]!r}."
                )


def as_frame(rows: list[dict[str, Any]], inputs: Inputs) -> pd.DataFrame:
    """The rows of a request as the table that the model was fitted to."""
    import pandas as pd

    frame = pd.DataFrame({name: [row[name] for row in rows] for name in inputs.all}, dtype="object")
    return frame.astype(dict.fromkeys(inputs.numbers, "float64")).assign(
        **{name: as_strings(frame[name]) for name in inputs.strings}
    )


if __name__ == "__main__":
    # Threads that spin while they wait take the cores from whatever else the machine does.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main(FlightDelay)
