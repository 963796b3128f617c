"""Whether a candidate may become the champion."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from airflow_mlops.primitives.evaluation.checks import Check, check, check_cases
from airflow_mlops.primitives.evaluation.evidence import Evidence
from airflow_mlops.primitives.evaluation.rules import read_rules

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_mlops.primitives.evaluation.cases import TestSummary

__all__ = ["Check", "GateDecision", "Mode", "decide", "judge"]

Mode = Literal["enforce", "dry_run"]


@dataclass(frozen=True)
class GateDecision:
    """The outcome of all rules together.

    :param mode: ``dry_run`` lets the candidate through whatever the outcome.
    """

    results: tuple[Check, ...]
    mode: Mode = "enforce"

    @property
    def passed(self) -> bool:
        """Whether every rule passed."""
        return all(check.passed for check in self.results)

    @property
    def register(self) -> bool:
        """Whether the candidate may be registered."""
        return self.passed or self.mode == "dry_run"

    @property
    def outcome(self) -> str:
        """In one word, for a tag: ``passed``, ``failed``, ``dry_run_failed``."""
        if self.passed:
            return "passed"
        return "dry_run_failed" if self.mode == "dry_run" else "failed"

    @property
    def message(self) -> str:
        """One sentence for people."""
        failed = [check for check in self.results if not check.passed]
        notes = "".join(f" Note on {one.rule}: {one.note}." for one in self.results if one.note)
        if not failed:
            return f"The candidate passed all {len(self.results)} checks.{notes}"
        reasons = "; ".join(f"{check.rule}: {check.reason}" for check in failed)
        said = f"The candidate failed {len(failed)} of {len(self.results)} checks: {reasons}.{notes}"
        return f"{said} It goes on all the same: evaluation.mode is dry_run." if self.register else said

    def table(self) -> str:
        """The checks in aligned columns, one a line."""
        rows = [("", "rule", "observed", "reason")]
        rows += [
            (
                "pass" if c.passed else "FAIL",
                c.rule,
                c.observed,
                "; ".join(
                    part
                    for part in (
                        c.reason or (f"note: {c.note}" if c.note else ""),
                        f"worst: {c.worst}" if c.worst else "",
                    )
                    if part
                ),
            )
            for c in self.results
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return "\n".join(
            "  ".join([*(row[column].ljust(widths[column]) for column in range(3)), row[3]]).rstrip()
            for row in rows
        )

    def to_dict(self) -> dict[str, Any]:
        """The decision as JSON values: ``passed``, ``register``, ``mode``, ``results``, ``message``."""
        return {
            "passed": self.passed,
            "register": self.register,
            "mode": self.mode,
            "results": [
                {**asdict(one), "slices": [dict(part) for part in one.slices]} for one in self.results
            ],
            "message": self.message,
        }


def decide(
    rules: Sequence[Mapping[str, Any]],
    candidate: Sequence[Mapping[str, Any]],
    champion: Sequence[Mapping[str, Any]] | None = None,
    tests: TestSummary | None = None,
) -> GateDecision:
    """Hold a candidate's reported metrics against the rules, against the champion, and against its test cases.

    A metric that is missing or not a number fails its rule. A rule against the champion passes while there is no
    champion.

    :param rules: each with ``metric``, optionally ``split`` (default ``test``) and ``slice``, and either bounds
        ``at_least``, ``at_most``, or ``against: champion`` with ``no_worse_by`` or ``better_by`` (in units of the
        metric) and ``confidence``; or with ``fairness``, ``latency`` or ``size``, and ``at_most``.
    :param candidate: metrics as in ``metrics.json``.
    :param champion: the champion's metrics on the same examples; ``None`` when there is no champion.
    :param tests: the candidate's test cases; ``None`` when they are not asked for.
    :raises SpecError: a rule that says something it cannot mean.
    """
    return judge(rules, Evidence(metrics=candidate, champion=champion, tests=tests))


def judge(rules: Sequence[Mapping[str, Any]], evidence: Evidence, mode: Mode = "enforce") -> GateDecision:
    """Hold a candidate against the rules by all that is known.

    :raises SpecError: a rule that says something it cannot mean.
    """
    checks = [one for rule in read_rules(rules) for one in check(rule, evidence)]
    if evidence.tests is not None:
        checks.append(check_cases(evidence.tests))
    return GateDecision(tuple(checks), mode)
