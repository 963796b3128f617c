"""Whether a candidate may become the champion."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_mlops.primitives.evaluation.cases import TestSummary

#: Directions of well-known metrics, for entries that do not say theirs.
MAXIMIZED = frozenset(
    {
        "accuracy",
        "auc",
        "average_precision",
        "balanced_accuracy",
        "f1",
        "precision",
        "r2",
        "recall",
        "roc_auc",
    }
)
MINIMIZED = frozenset({"brier", "error", "log_loss", "loss", "mae", "mape", "mse", "rmse"})

_KEYS = {"metric", "split", "slice", "at_least", "at_most", "against", "no_worse_by"}


@dataclass(frozen=True)
class Check:
    """One rule and what became of it.

    :param rule: the rule in words.
    :param observed: the figures that decided.
    :param reason: why it did not pass; empty when it passed.
    """

    rule: str
    passed: bool
    observed: str
    reason: str = ""


@dataclass(frozen=True)
class GateDecision:
    """The outcome of all rules together."""

    results: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every rule passed."""
        return all(check.passed for check in self.results)

    @property
    def message(self) -> str:
        """One sentence for people."""
        failed = [check for check in self.results if not check.passed]
        if not failed:
            return f"The candidate passed all {len(self.results)} checks."
        reasons = "; ".join(f"{check.rule}: {check.reason}" for check in failed)
        return f"The candidate failed {len(failed)} of {len(self.results)} checks: {reasons}."

    def table(self) -> str:
        """The checks in aligned columns, one a line."""
        rows = [("", "rule", "observed", "reason")]
        rows += [("pass" if c.passed else "FAIL", c.rule, c.observed, c.reason) for c in self.results]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return "\n".join(
            "  ".join([*(row[column].ljust(widths[column]) for column in range(3)), row[3]]).rstrip()
            for row in rows
        )

    def to_dict(self) -> dict[str, Any]:
        """The decision as JSON values: ``passed``, ``results``, ``message``."""
        return {
            "passed": self.passed,
            "results": [asdict(check) for check in self.results],
            "message": self.message,
        }


def decide(
    rules: Sequence[Mapping[str, Any]],
    candidate: Sequence[Mapping[str, Any]],
    champion: Sequence[Mapping[str, Any]] | None = None,
    tests: TestSummary | None = None,
) -> GateDecision:
    """Hold a candidate against the rules, against the champion, and against its test cases.

    A metric that is missing or not a number fails its rule. A rule against the champion passes while there is no
    champion.

    :param rules: each with ``metric``, optionally ``split`` (default ``test``) and ``slice``, and either bounds
        ``at_least``, ``at_most``, or ``against: champion`` with ``no_worse_by`` (in units of the metric, default 0).
    :param candidate: metrics as in ``metrics.json``.
    :param champion: the champion's metrics on the same examples; ``None`` when there is no champion.
    :param tests: the candidate's test cases; ``None`` when they are not asked for.
    :raises SpecError: a rule that says something it cannot mean.
    """
    checks: list[Check] = []
    for number, stated in enumerate(rules):
        rule = {key: value for key, value in stated.items() if value is not None}
        _validate(number, rule)
        if "against" in rule:
            checks.append(_against_champion(rule, candidate, champion))
        else:
            checks += _bounds(rule, candidate)
    if tests is not None:
        checks.append(_cases(tests))
    return GateDecision(tuple(checks))


def _validate(number: int, rule: Mapping[str, Any]) -> None:
    where = f"evaluation.require[{number}]"
    unknown = set(rule) - _KEYS
    if unknown or not isinstance(rule.get("metric"), str):
        raise SpecError(
            f"{where} must have the key metric and none but {', '.join(sorted(_KEYS))}, got {dict(rule)}."
        )
    bounds = [key for key in ("at_least", "at_most") if key in rule]
    if ("against" in rule) == bool(bounds):
        raise SpecError(f"{where} needs either at_least/at_most or against: champion, got {dict(rule)}.")
    if rule.get("against", "champion") != "champion":
        raise SpecError(f"{where}.against must be champion, got {rule['against']!r}.")
    if "no_worse_by" in rule and "against" not in rule:
        raise SpecError(f"{where}.no_worse_by means nothing without against: champion.")
    for key in ("at_least", "at_most", "no_worse_by"):
        value = rule.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise SpecError(f"{where}.{key} must be a finite number, got {value!r}.")
    if rule.get("no_worse_by", 0) < 0:
        raise SpecError(f"{where}.no_worse_by must not be negative, got {rule['no_worse_by']}.")


def _bounds(rule: Mapping[str, Any], candidate: Sequence[Mapping[str, Any]]) -> Iterable[Check]:
    name = _name(rule)
    entry = _find(rule, candidate)
    value = _value(entry)
    for key, sign in (("at_least", 1), ("at_most", -1)):
        if key not in rule:
            continue
        bound = float(rule[key])
        text = f"{name} {'≥' if sign > 0 else '≤'} {bound:g}"
        if value is None:
            yield Check(
                text, passed=False, observed="none", reason=_absent(rule, entry, candidate, "the candidate")
            )
        else:
            passed = _reaches(sign * value, sign * bound)
            reason = "" if passed else f"{value:.6g} is too {'low' if sign > 0 else 'high'}"
            yield Check(text, passed=passed, observed=_figure(entry), reason=reason)


def _against_champion(
    rule: Mapping[str, Any],
    candidate: Sequence[Mapping[str, Any]],
    champion: Sequence[Mapping[str, Any]] | None,
) -> Check:
    slack = float(rule.get("no_worse_by", 0))
    text = f"{_name(rule)} no worse than champion" + (f" by more than {slack:g}" if slack else "")
    new = _find(rule, candidate)
    if _value(new) is None:
        return Check(
            text, passed=False, observed="none", reason=_absent(rule, new, candidate, "the candidate")
        )
    if champion is None:
        return Check(text, passed=True, observed=f"{_figure(new)}, no champion yet")
    old = _find(rule, champion)
    observed = f"{_figure(new)} against {_figure(old)}"
    if _value(old) is None:
        return Check(
            text, passed=False, observed=observed, reason=_absent(rule, old, champion, "the champion")
        )
    sign = _direction(rule["metric"], new, old)
    if sign is None:
        reason = "whether more or less is better is not known; let the model code write its direction"
        return Check(text, passed=False, observed=observed, reason=reason)
    gain = sign * (float(new["value"]) - float(old["value"]))  # type: ignore[index]
    passed = _reaches(gain, -slack)
    reason = "" if passed else f"worse by {-gain:.6g} ({'more' if sign > 0 else 'less'} is better)"
    return Check(text, passed=passed, observed=observed, reason=reason)


def _cases(tests: TestSummary) -> Check:
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


def _find(rule: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The entry that a rule means: of its split, or of none; the last step."""
    split, cut = rule.get("split", "test"), rule.get("slice")
    found = [
        entry
        for entry in metrics
        if entry.get("name") == rule["metric"]
        and entry.get("slice") == cut
        and entry.get("split", split) == split
    ]
    # An entry that names the split is meant before one that names none.
    return max(found, key=lambda entry: ("split" in entry, entry.get("step") or 0), default=None)


def _value(entry: Mapping[str, Any] | None) -> float | None:
    value = None if entry is None else entry.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _absent(
    rule: Mapping[str, Any], entry: Mapping[str, Any] | None, metrics: Sequence[Mapping[str, Any]], whose: str
) -> str:
    if entry is not None:
        return f"{whose}'s value is {entry.get('value')!r}, which is no finite number"
    known = sorted({_name({"metric": m.get("name"), **m}) for m in metrics})
    return f"{whose} has no metric {_name(rule)}; it has: {', '.join(known[:20]) or 'none'}"


def _direction(metric: str, *entries: Mapping[str, Any] | None) -> int | None:
    said = {entry.get("direction") for entry in entries if entry and entry.get("direction")}
    if said == {"maximize"} or (not said and metric in MAXIMIZED):
        return 1
    if said == {"minimize"} or (not said and metric in MINIMIZED):
        return -1
    return None


def _reaches(value: float, bound: float) -> bool:
    # 0.61 - 0.60 is 0.010000000000000009: the last bits decide nothing.
    return value >= bound or math.isclose(value, bound, rel_tol=1e-9, abs_tol=1e-12)


def _name(entry: Mapping[str, Any]) -> str:
    name = f"{entry.get('split', 'test')}.{entry['metric']}"
    return f"{name}[{entry['slice']}]" if entry.get("slice") else name


def _figure(entry: Mapping[str, Any] | None) -> str:
    value = _value(entry)
    if entry is None or value is None:
        return "none"
    error = entry.get("stderr")
    return f"{value:.4f}" + (f" ± {error:.4f}" if isinstance(error, int | float) else "")
