"""One rule held against the evidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import DataError
from airflow_mlops.primitives.evaluation.evidence import find, name_of, number
from airflow_mlops.primitives.evaluation.measures import measure
from airflow_mlops.primitives.evaluation.rules import RATES
from airflow_mlops.primitives.evaluation.slices import slices_of
from airflow_mlops.primitives.statistics.intervals import quantile

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from airflow_mlops.primitives.evaluation.cases import TestSummary
    from airflow_mlops.primitives.evaluation.evidence import Evidence, Figure
    from airflow_mlops.primitives.evaluation.rules import Rule

    Mask = npt.NDArray[np.bool_]

#: Slices that are named in a reason.
NAMED = 3
#: Why a comparison cannot be sure, and what makes it so.
UNSURE = (
    "its error is not known, so nothing is sure; let the model code write predictions, or a stderr with the metric, or "
    "write confidence: 0.5 to let the figures themselves decide"
)


@dataclass(frozen=True)
class Check:
    """One rule and what became of it.

    :param rule: the rule in words.
    :param observed: the figures that decided.
    :param reason: why it did not pass; empty when it passed.
    :param note: what a reader should know although it decided nothing.
    :param slices: name, rows, value and whether it passed, of each slice that was looked at.
    :param worst: the slice with the worst figure, and the figure.
    """

    rule: str
    passed: bool
    observed: str
    reason: str = ""
    note: str = ""
    slices: tuple[Mapping[str, Any], ...] = ()
    worst: str = ""


def check(rule: Rule, evidence: Evidence) -> Iterator[Check]:
    """What became of a rule: one check, or one for each of two bounds."""
    if rule.about == "fairness":
        yield _fairness(rule, evidence)
    elif rule.about == "latency":
        yield _latency(rule, evidence)
    elif rule.about == "size":
        yield _size(rule, evidence)
    elif rule.champion:
        yield _sliced(rule, evidence, _against_champion)
    else:
        if rule.at_least is not None:
            yield _sliced(replace(rule, at_most=None), evidence, _bound)
        if rule.at_most is not None:
            yield _sliced(replace(rule, at_least=None), evidence, _bound)


def check_cases(tests: TestSummary) -> Check:
    """Whether the model's test cases passed."""
    observed = f"{tests.passed} of {tests.total} passed" + (
        f", {tests.skipped} skipped" if tests.skipped else ""
    )
    bad = tests.failures + tests.errors
    reason = ""
    if bad:
        named = ", ".join(str(case.get("name", "?")) for case in tests.failed[:5])
        reason = f"{bad} failed: {named}" + (", …" if bad > 5 else "")
    elif tests.passed < 1:
        reason = "no case ran"
    return Check("test cases pass", passed=not reason, observed=observed, reason=reason)


# Absolute bounds -------------------------------------------------------------------------------


def _bound(rule: Rule, evidence: Evidence, cut: str | None, rows: Mask | None) -> Check:
    lower = rule.at_least is not None
    bound = float(rule.at_least if rule.at_least is not None else rule.at_most or 0.0)
    text = f"{name_of(rule.name, rule.split, cut)} {'≥' if lower else '≤'} {bound:g}"
    text += f" with {_percent(rule.confidence)} confidence" if rule.confidence else ""
    found = evidence.figure(rule.name, rule.split, cut, rows)
    if found.estimate is None:
        return Check(text, passed=False, observed="none", reason=found.problem)
    value, shown = found.estimate.value, found.text
    if rule.confidence:
        bounds = found.estimate.bounds(rule.confidence)
        if bounds is None:
            return Check(text, passed=False, observed=shown, reason="its error is not known")
        value = bounds[0 if lower else 1]
        shown += f", {'at least' if lower else 'at most'} {value:.4f}"
    sign = 1 if lower else -1
    passed = reaches(sign * value, sign * bound)
    reason = "" if passed else f"{value:.6g} is too {'low' if lower else 'high'}"
    return Check(text, passed=passed, observed=shown, reason=reason, note=_contradiction(found))


# Against the champion --------------------------------------------------------------------------


def _against_champion(rule: Rule, evidence: Evidence, cut: str | None, rows: Mask | None) -> Check:
    text = _comparison(rule, cut)
    new = evidence.figure(rule.name, rule.split, cut, rows)
    if new.estimate is None:
        return Check(text, passed=False, observed="none", reason=new.problem)
    if evidence.champion_failure:
        said = f"inconclusive, the champion could not be evaluated: {evidence.champion_failure}"
        reason, note = ("", said) if rule.lenient else (said, "")
        observed = f"{new.text}, champion not evaluated"
        return Check(text, passed=rule.lenient, observed=observed, reason=reason, note=note)
    if evidence.champion is None:
        return Check(text, passed=True, observed=f"{new.text}, no champion yet")
    old = evidence.champion_figure(rule.name, rule.split, cut, rows)
    sign = evidence.direction(rule.name, new, old)
    if old.estimate is None or sign is None:
        unknown = "whether more or less is better is not known; let the model code write its direction"
        reason = old.problem if old.estimate is None else unknown
        return Check(text, passed=False, observed=f"{new.text} against {old.text}", reason=reason)
    found = _gain(rule, evidence, (new, old), sign, cut, rows)
    if found is None:
        return Check(text, passed=False, observed=f"{new.text} against {old.text}", reason=UNSURE)
    return _weigh(rule, text, (new, old), sign, found)


def _weigh(
    rule: Rule, text: str, figures: tuple[Figure, Figure], sign: int, found: tuple[float, float, str]
) -> Check:
    """Whether a gain is enough."""
    (new, old), (gain, surely, how) = figures, found
    observed = f"{new.text} against {old.text}, better by {gain:+.4f}" + (
        f", surely by {surely:+.4f}" if how else ""
    )
    direction = f"({'more' if sign > 0 else 'less'} is better)"
    if rule.better_by is None:
        passed, reason = reaches(surely, -rule.no_worse_by), f"worse by {-surely:.6g} {direction}{how}"
    else:
        passed = surely > rule.better_by and not _equal(surely, rule.better_by)
        reason = f"better by {surely:.6g} {direction}{how}"
    return Check(
        text, passed=passed, observed=observed, reason="" if passed else reason, note=_contradiction(new)
    )


def _gain(
    rule: Rule,
    evidence: Evidence,
    figures: tuple[Figure, Figure],
    sign: int,
    cut: str | None,
    rows: Mask | None,
) -> tuple[float, float, str] | None:
    """The gain, the gain that is sure, and how that was worked out: empty where the figures themselves decide.

    ``None`` where it must be sure and nobody knows how sure it is.
    """
    confidence = rule.confidence or 0.5
    if confidence > 0.5 and (paired := evidence.difference(rule.name, rule.split, cut, rows)) is not None:
        how = f" at {_percent(confidence)} confidence ({paired.method}, {paired.n} rows)"
        return paired.gain, paired.at_least(confidence), how
    new, old = (figure.estimate for figure in figures)
    if new is None or old is None:
        return None
    gain = sign * (new.value - old.value)
    if confidence <= 0.5:
        return gain, gain, ""
    if new.stderr is None or old.stderr is None:
        return None
    # Without the rows nobody knows how alike the two are: as if they were measured apart.
    half = quantile(confidence, min(new.n, old.n) or 1_000) * math.hypot(new.stderr, old.stderr)
    return gain, gain - half, f" at {_percent(confidence)} confidence (not paired)"


def _comparison(rule: Rule, cut: str | None) -> str:
    name = name_of(rule.name, rule.split, cut)
    if rule.better_by is not None:
        return f"{name} better than champion" + (
            f" by more than {rule.better_by:g}" if rule.better_by else ""
        )
    slack = rule.no_worse_by
    return f"{name} no worse than champion" + (f" by more than {slack:g}" if slack else "")


# Slices ----------------------------------------------------------------------------------------


def _sliced(
    rule: Rule, evidence: Evidence, judge: Callable[[Rule, Evidence, str | None, Mask | None], Check]
) -> Check:
    """The rule for the whole split, for one slice, or for each slice of the columns."""
    if not rule.per_slice:
        return judge(rule, evidence, rule.slice, None)
    whole = judge(replace(rule, per_slice=()), evidence, None, None).rule
    text = f"{whole} in each {', '.join(rule.per_slice)} of {rule.minimum_rows} rows or more"
    try:
        parts = list(_parts(rule, evidence))
    except DataError as error:
        return Check(text, passed=False, observed="none", reason=str(error))
    large = [(cut, rows, size) for cut, rows, size in parts if size >= rule.minimum_rows]
    small = len(parts) - len(large)
    if not large:
        reason = f"no slice has {rule.minimum_rows} rows" if parts else _no_slices(rule, evidence)
        return Check(text, passed=False, observed=f"{small} slices, all too small", reason=reason)
    found = [(cut, size, judge(rule, evidence, cut, rows)) for cut, rows, size in large]
    bad = [(cut, one) for cut, _, one in found if not one.passed]
    named = "; ".join(f"{cut}: {one.reason}" for cut, one in bad[:NAMED]) + (
        "; …" if len(bad) > NAMED else ""
    )
    told = [
        {"slice": cut, "rows": size, "observed": one.observed, "passed": one.passed}
        for cut, size, one in found
    ]
    return Check(
        text,
        passed=not bad,
        observed=f"{len(found) - len(bad)} of {len(found)} slices"
        + (f", {small} too small" if small else ""),
        reason=named,
        note=next((one.note for _, _, one in found if one.note), ""),
        slices=tuple(told),
        worst=_worst(rule, evidence, large),
    )


def _worst(rule: Rule, evidence: Evidence, parts: Sequence[tuple[str, Mask | None, int]]) -> str:
    """The slice with the worst figure, for people; empty where nobody knows which way is worse."""
    figures = [(cut, evidence.figure(rule.name, rule.split, cut, rows)) for cut, rows, _ in parts]
    sign = evidence.direction(rule.name, *(figure for _, figure in figures))
    known = [
        (sign * figure.estimate.value, cut, figure.text)
        for cut, figure in figures
        if sign and figure.estimate
    ]
    if not known:
        return ""
    _, cut, text = min(known)
    return f"{cut}: {text}"


def _parts(rule: Rule, evidence: Evidence) -> Iterator[tuple[str, Mask | None, int]]:
    """Name, rows and size of each slice; of those that the model code reported where the rows are not known."""
    for column in rule.per_slice:
        if evidence.rows is not None and column in evidence.columns:
            for one in slices_of(column, evidence.columns[column]):
                yield one.name, one.rows, one.size
        else:
            for entry in evidence.metrics:
                cut = str(entry.get("slice") or "")
                told = entry.get("name") == rule.name and entry.get("split", rule.split) == rule.split
                if told and cut.startswith(f"{column}="):
                    yield cut, None, int(entry.get("n") or 0)


def _no_slices(rule: Rule, evidence: Evidence) -> str:
    absent = [column for column in rule.per_slice if column not in evidence.columns]
    if evidence.rows is None:
        return "the model code wrote no predictions to measure slices of, and reported none with their n"
    return f"the test split has no column {', '.join(absent) or 'of these'}"


# Fairness, latency, size -----------------------------------------------------------------------


def _fairness(rule: Rule, evidence: Evidence) -> Check:
    """The gap between the groups of a column: of a rate of decisions, or of a metric.

    Sources: C. Dwork and others, 2012, *Fairness through awareness* (demographic parity); M. Hardt, E. Price and
    N. Srebro, 2016, *Equality of opportunity in supervised learning*.
    """
    text = f"{rule.name.replace('_', ' ')} gap by {rule.column} ≤ {rule.at_most:g}"
    rows = evidence.rows
    if rows is None or rule.column not in evidence.columns:
        reason = (
            "the model code wrote no predictions to measure it of"
            if rows is None
            else f"the test split has no column {rule.column}"
        )
        return Check(text, passed=False, observed="none", reason=reason)
    if rule.name in RATES and rows.kind != "binary":
        return Check(text, passed=False, observed="none", reason="it needs a target of 0 and 1")
    name = {"demographic_parity": "selection_rate", "equal_opportunity": "recall"}.get(rule.name, rule.name)
    try:
        groups = slices_of(rule.column, evidence.columns[rule.column])
    except DataError as error:
        return Check(text, passed=False, observed="none", reason=str(error))
    told: list[dict[str, Any]] = []
    for group in groups:
        counted = group.rows & (rows.truth == 1) if rule.name == "equal_opportunity" else group.rows
        if int(counted.sum()) < rule.minimum_rows:
            continue
        found = measure(name, rows.part(counted))
        if found is not None:
            told.append(
                {"slice": group.name, "rows": found.n, "observed": f"{found.value:.4f}", "value": found.value}
            )
    if len(told) < 2:
        reason = f"fewer than two groups have {rule.minimum_rows} rows"
        return Check(text, passed=False, observed=f"{len(groups)} groups", reason=reason, slices=tuple(told))
    told.sort(key=lambda one: one["value"])
    low, high = told[0], told[-1]
    gap = high["value"] - low["value"]
    passed = reaches(-gap, -float(rule.at_most or 0))
    reason = f"{high['observed']} for {high['slice']}, {low['observed']} for {low['slice']}"
    marked = tuple({**one, "passed": passed or one not in (low, high)} for one in told)
    return Check(
        text, passed=passed, observed=f"gap {gap:.4f}", reason="" if passed else reason, slices=marked
    )


def _latency(rule: Rule, evidence: Evidence) -> Check:
    text = f"latency {rule.name} ≤ {_seconds(float(rule.at_most or 0))}"
    entry = find(f"latency_{rule.name}", "test", None, evidence.metrics)
    value = number(entry)
    if value is None:
        reason = "the model code reported none; let evaluate call job.measure_latency"
        return Check(text, passed=False, observed="none", reason=reason)
    calls = f" over {entry['n']} calls" if entry and entry.get("n") else ""
    passed = reaches(-value, -float(rule.at_most or 0))
    return Check(
        text,
        passed=passed,
        observed=_seconds(value) + calls,
        reason="" if passed else f"{_seconds(value)} is too slow",
    )


def _size(rule: Rule, evidence: Evidence) -> Check:
    text = f"model ≤ {_bytes(float(rule.at_most or 0))}"
    size = evidence.model_bytes
    if size is None:
        return Check(text, passed=False, observed="none", reason="the size of the model is not known")
    passed = size <= float(rule.at_most or 0)
    return Check(
        text, passed=passed, observed=_bytes(size), reason="" if passed else f"{_bytes(size)} is too large"
    )


# Words -----------------------------------------------------------------------------------------


def reaches(value: float, bound: float) -> bool:
    """Whether a value is at least the bound, whatever its last bits say."""
    return value >= bound or _equal(value, bound)


def _equal(value: float, bound: float) -> bool:
    # 0.61 - 0.60 is 0.010000000000000009: the last bits decide nothing.
    return math.isclose(value, bound, rel_tol=1e-9, abs_tol=1e-12)


def _contradiction(found: Figure) -> str:
    """What to say when the model code's figure is another one than that measured here."""
    said = number(found.entry)
    if not found.measured or said is None or found.estimate is None:
        return ""
    if math.isclose(said, found.estimate.value, rel_tol=1e-3, abs_tol=1e-4):
        return ""
    return f"the model code says {said:.4f}, its predictions give {found.estimate.value:.4f}"


def _percent(share: float | None) -> str:
    return f"{100 * (share or 0):.4g} %"


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"


def _bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.4g} {unit}"
