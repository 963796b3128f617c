"""The figures of a report as numbers: which curves and bars there are, by what was learned.

A figure is a mapping with ``kind`` (``lines``, ``points``, ``bars``), ``title``, ``note``, names of both axes, and its
``series``; :mod:`.drawing` draws it, and anybody else can.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from airflow_mlops.primitives.evaluation.estimators import silhouettes_of
from airflow_mlops.primitives.sql.present import is_present
from airflow_mlops.primitives.statistics.intervals import of_few, of_mean, of_share

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

    from airflow_mlops.primitives.evaluation.predicted import PredictedRows

    Floats = npt.NDArray[np.float64]

Figure = dict[str, Any]

CANDIDATE, CHAMPION = "candidate", "champion"
#: Points of a curve, and of a cloud, that are kept.
CURVE, CLOUD = 160, 400
BINS = 10
BARS = 25


def figures_of(rows: PredictedRows, champion: PredictedRows | None = None) -> list[Figure]:
    """All figures of one kind of predictions, the champion's beside them where there is one."""
    both = [(CANDIDATE, rows), *([(CHAMPION, champion)] if champion is not None else [])]
    return [figure for make in _FIGURES[rows.kind] if (figure := make(both))]


def _lines(title: str, note: str, axes: tuple[str, str], series: list[dict[str, Any]], **more: Any) -> Figure:
    return {
        "kind": "lines",
        "title": title,
        "note": note,
        "x": axes[0],
        "y": axes[1],
        "series": series,
        **more,
    }


def _known(rows: PredictedRows) -> tuple[Floats, Floats] | None:
    """Scores, highest first, and labels of the rows that have one; ``None`` with one class only."""
    import numpy as np

    if rows.actual is None:
        return None
    known = is_present(rows.actual)
    score, label = rows.prediction[known], rows.actual[known]
    order = np.argsort(-score, kind="stable")
    return (score[order], label[order]) if 0 < label.sum() < len(label) else None


def _thin(*columns: Floats) -> list[list[float]]:
    """Few enough points, first and last among them."""
    import numpy as np

    n = len(columns[0])
    kept = np.unique(np.linspace(0, n - 1, min(n, CURVE)).astype(np.int64))
    return [[round(float(column[place]), 5) for column in columns] for place in kept]


# Two classes -----------------------------------------------------------------------------------


def _roc(both: Sequence[tuple[str, PredictedRows]]) -> Figure | None:
    import numpy as np

    series = []
    for name, rows in both:
        if found := _known(rows):
            score, label = found
            last = np.flatnonzero(np.append(np.diff(score) != 0, True))
            hits, false = np.cumsum(label)[last], np.cumsum(1 - label)[last]
            xs, ys = np.append(0.0, false / false[-1]), np.append(0.0, hits / hits[-1])
            series.append({"name": name, "points": _thin(xs, ys)})
    note = "How many of the positives are found, for each share of the negatives that are taken for positive."
    axes = "false positive rate", "true positive rate"
    return _lines("ROC curve", note, axes, series, range=[0, 1, 0, 1], diagonal=True) if series else None


def _precision_recall(both: Sequence[tuple[str, PredictedRows]]) -> Figure | None:
    import numpy as np

    series, share = [], 0.0
    for name, rows in both:
        if found := _known(rows):
            score, label = found
            last = np.flatnonzero(np.append(np.diff(score) != 0, True))
            hits = np.cumsum(label)[last]
            series.append({"name": name, "points": _thin(hits / hits[-1], hits / (last + 1.0))})
            share = float(label.mean())
    note = f"Without a model the precision is {share:.3f}, the share of positives."
    axes = "recall", "precision"
    return (
        _lines("Precision and recall", note, axes, series, range=[0, 1, 0, 1], level=share)
        if series
        else None
    )


def _calibration(both: Sequence[tuple[str, PredictedRows]]) -> Figure | None:
    """Observed share in each tenth of the predictions, with Wilson's interval."""
    import numpy as np

    series = []
    for name, rows in both:
        order = np.argsort(rows.prediction, kind="stable")
        points, errors = [], []
        for part in np.array_split(order, min(BINS, len(order))):
            share = of_share(float(rows.truth[part].sum()), len(part))
            points.append([round(float(rows.prediction[part].mean()), 5), round(share.value, 5)])
            errors.append([round(end, 5) for end in share.interval or (share.value, share.value)])
        series.append({"name": name, "points": points, "errors": errors, "dots": True})
    note = "Where a tenth of the rows was predicted, and how often it came true; on the diagonal probabilities are what they say."
    axes = "predicted probability", "observed share"
    return _lines("Calibration", note, axes, series, range=[0, 1, 0, 1], diagonal=True)


def _scores(both: Sequence[tuple[str, PredictedRows]]) -> Figure | None:
    """Where the candidate's scores lie, by what is true."""
    rows = both[0][1]
    if rows.actual is None or not len(rows):
        return _histogram("Scores", "How the scores are spread.", "score", [("all", rows.prediction)])
    groups = [
        (name, rows.prediction[rows.actual == label]) for name, label in (("negative", 0), ("positive", 1))
    ]
    unknown = rows.prediction[~is_present(rows.actual)]
    groups += [("not known", unknown)] if len(unknown) else []
    note = "Share of each group by score: the further apart, the better."
    return _histogram("Scores", note, "score", [(name, values) for name, values in groups if len(values)])


def _histogram(title: str, note: str, axis: str, groups: list[tuple[str, Floats]]) -> Figure | None:
    import numpy as np

    whole = np.concatenate([values for _, values in groups]) if groups else np.array([])
    if not len(whole):
        return None
    edges = np.histogram_bin_edges(whole, bins=30)
    middles = (edges[:-1] + edges[1:]) / 2
    series = []
    for name, values in groups:
        counts = np.histogram(values, bins=edges)[0] / len(values)
        series.append({"name": name, "points": _thin(middles, counts), "filled": True})
    return _lines(title, note, (axis, "share of rows"), series)


# Numbers ---------------------------------------------------------------------------------------


def _predicted_actual(both: Sequence[tuple[str, PredictedRows]]) -> Figure | None:
    import numpy as np

    rows = both[0][1]
    kept = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), CLOUD)).astype(np.int64))
    points = [[_short(rows.prediction[i]), _short(rows.truth[i])] for i in kept]
    note = f"{len(kept)} of {len(rows)} rows of the candidate; on the diagonal the prediction is right."
    return {
        **_lines(
            "Predicted and actual", note, ("predicted", "actual"), [{"name": CANDIDATE, "points": points}]
        ),
        "kind": "points",
        "diagonal": True,
    }


def _residuals(both: Sequence[tuple[str, PredictedRows]]) -> Figure | None:
    groups = [(name, rows.prediction - rows.truth) for name, rows in both]
    return _histogram("Residuals", "Prediction minus truth: around zero, and narrow.", "residual", groups)


def _errors_by_size(both: Sequence[tuple[str, PredictedRows]]) -> Figure | None:
    """Mean residual in each tenth of the predictions, with its interval."""
    import numpy as np

    series = []
    for name, rows in both:
        order = np.argsort(rows.prediction, kind="stable")
        points, errors = [], []
        for part in np.array_split(order, min(BINS, len(order))):
            mean = of_mean(rows.prediction[part] - rows.truth[part])
            points.append([_short(rows.prediction[part].mean()), _short(mean.value)])
            errors.append([_short(end) for end in mean.interval or (mean.value, mean.value)])
        series.append({"name": name, "points": points, "errors": errors, "dots": True})
    note = (
        "Mean residual of each tenth of the predictions; off zero, the model is wrong in one direction there."
    )
    return _lines("Residuals by prediction", note, ("predicted", "mean residual"), series, level=0.0)


# Several classes, lists, few labels, clusters, episodes ----------------------------------------


def _confusion(both: Sequence[tuple[str, PredictedRows]]) -> Figure | None:
    """Share of each true class that is predicted as itself."""
    import numpy as np

    rows = both[0][1]
    bars = []
    for code, name in enumerate(rows.names[:BARS]):
        of_class = rows.truth == code
        if of_class.any():
            hit = of_share(float((rows.prediction[of_class] == code).sum()), int(of_class.sum()))
            wrong = rows.prediction[of_class & (rows.prediction != code)].astype(np.int64)
            taken = rows.names[int(np.bincount(wrong).argmax())] if len(wrong) else ""
            bars.append(
                _bar(name, hit, f"{hit.n} rows" + (f", most often taken for {taken}" if taken else ""))
            )
    note = "Recall of each class, with its interval."
    return _bars("Classes", note, "recall", bars, [0.0, 1.0])


def _ndcg(both: Sequence[tuple[str, PredictedRows]]) -> Figure | None:
    from airflow_mlops.primitives.evaluation.measures import measure

    series = []
    for name, rows in both:
        found = [(k, measure(f"ndcg_at_{k}", rows)) for k in (1, 2, 3, 5, 10, 20, 50)]
        good = [(k, one) for k, one in found if one]
        points = [[k, _short(one.value)] for k, one in good]
        errors = [[_short(end) for end in one.interval or (one.value, one.value)] for _, one in good]
        series.append({"name": name, "points": points, "errors": errors, "dots": True})
    return _lines(
        "Quality of the first places", "NDCG by how many places are looked at.", ("k", "NDCG"), series
    )


def _precision_at(both: Sequence[tuple[str, PredictedRows]]) -> Figure | None:
    """Precision among the highest scores whose label is known, with the interval of Clopper and Pearson."""
    import numpy as np

    series = []
    for name, rows in both:
        if rows.actual is None or not is_present(rows.actual).any():
            continue
        label = rows.actual[np.argsort(-rows.prediction, kind="stable")]
        points, errors = [], []
        for k in sorted({*(10, 20, 30, 50, 75, 100, 150, 200, 300, 500), math.ceil(len(label) / 10)}):
            known = label[:k][is_present(label[:k])]
            if k <= len(label) and len(known):
                share = of_few(int(known.sum()), len(known))
                points.append([k, _short(share.value)])
                errors.append([_short(end) for end in share.interval or (share.value, share.value)])
        if points:
            series.append({"name": name, "points": points, "errors": errors, "dots": True})
    note = (
        "Share of anomalies among the k highest scores whose label is known; wide intervals mean few labels."
    )
    axes = "k, the rows that are looked at", "precision"
    return _lines("Precision at k", note, axes, series, range=[None, None, 0, 1]) if series else None


def _silhouette(both: Sequence[tuple[str, PredictedRows]]) -> Figure | None:
    import numpy as np

    rows = both[0][1]
    found = silhouettes_of(rows)
    if found is None:
        return None
    values, cluster = found
    sizes = np.bincount(rows.prediction.astype(np.int64), minlength=len(rows.names))
    bars = [
        _bar(name, of_mean(values[cluster == code]), f"{int(sizes[code])} rows")
        for code, name in enumerate(rows.names[:BARS])
        if (cluster == code).any()
    ]
    note = f"Mean silhouette of each cluster, over {len(values)} rows: 1 far from all others, 0 on a border."
    return _bars("Clusters", note, "silhouette", bars, [min(0.0, *(bar["low"] for bar in bars)), 1.0])


def _episodes(both: Sequence[tuple[str, PredictedRows]]) -> Figure | None:
    """Mean return over the episodes so far, with its interval."""
    import numpy as np

    series = []
    for name, rows in both:
        marks = np.unique(np.linspace(min(10, len(rows)), len(rows), 40).astype(np.int64))
        means = [of_mean(rows.prediction[:mark]) for mark in marks]
        points = [[int(mark), _short(mean.value)] for mark, mean in zip(marks, means, strict=True)]
        errors = [[_short(end) for end in mean.interval or (mean.value, mean.value)] for mean in means]
        series.append({"name": name, "points": points, "errors": errors, "band": True})
    note = "Mean return over the test episodes so far, with Student's interval."
    return _lines("Return", note, ("episodes", "mean return"), series)


def _returns(both: Sequence[tuple[str, PredictedRows]]) -> Figure | None:
    groups = [(name, rows.prediction) for name, rows in both]
    return _histogram("Returns of the episodes", "How the returns are spread.", "return", groups)


def _bars(title: str, note: str, axis: str, bars: list[dict[str, Any]], span: list[float]) -> Figure | None:
    figure = {"kind": "bars", "title": title, "note": note, "x": axis, "bars": bars, "range": span}
    return figure if bars else None


def _bar(name: str, found: Any, note: str) -> dict[str, Any]:
    low, high = found.interval or (found.value, found.value)
    return {
        "name": name,
        "value": _short(found.value),
        "low": _short(low),
        "high": _short(high),
        "note": note,
    }


def _short(value: Any) -> float:
    return float(f"{float(value):.5g}")


_FIGURES: dict[str, tuple[Callable[[Sequence[tuple[str, PredictedRows]]], Figure | None], ...]] = {
    "binary": (_roc, _precision_recall, _calibration, _scores),
    "classes": (_confusion,),
    "numbers": (_predicted_actual, _residuals, _errors_by_size),
    "ranking": (_ndcg,),
    "anomaly": (_precision_at, _precision_recall, _scores),
    "clusters": (_silhouette,),
    "returns": (_episodes, _returns),
}
