"""The report as one HTML page that stands alone. Every value is escaped: many of them come from containers."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from airflow_mlops.primitives.pages.drawing import draw
from airflow_mlops.primitives.pages.style import STYLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_WORDS = {
    "passed": ("Passed", "good"),
    "failed": ("Not passed", "bad"),
    "dry_run_failed": ("Not passed, registered all the same (dry run)", "warn"),
}
_HEADS = {
    "application": "Application",
    "run_id": "MLflow run",
    "dataset_id": "Dataset version",
    "rows": "Test rows",
    "champion": "Champion",
    "paradigm": "Paradigm",
    "threshold": "Threshold",
    "dag_run": "Airflow run",
    "made_at": "Made at",
}


def render_page(report: Mapping[str, Any]) -> str:
    """The page of :func:`~.content.build_report`'s report."""
    about, decision = report["about"], report["decision"]
    word, tone = _WORDS[decision["outcome"]]
    title = f"Evaluation of {about.get('application', 'a model')}"
    sections = [
        _section("Gate", _gate(decision)),
        _section("Metrics", _metrics(report)),
        _section("Figures", _figures(report["figures"])),
        _section("Slices", _slices(report["slices"])),
        _section("Test cases", _tests(report["tests"])),
        _section("Reported by the model code", _own(report["own_metrics"])),
    ]
    failure = report.get("champion_failure")
    notice = (
        f'<p class="notice">The champion could not be evaluated on this test split, so that no comparison with it is '
        f"conclusive: {escape(str(failure))}</p>"
        if failure
        else ""
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # Whatever is in the values: this page loads nothing and runs nothing.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f'<header><h1>{escape(title)}</h1><p class="verdict {tone}">{word}</p>{_about(about)}</header>'
        f"{notice}{''.join(sections)}</main></body></html>"
    )


def _about(about: Mapping[str, Any]) -> str:
    items = [
        f"<div><dt>{_HEADS.get(key, escape(str(key)))}</dt><dd>{escape(str(value))}</dd></div>"
        for key, value in about.items()
    ]
    return f"<dl>{''.join(items)}</dl>"


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>" if content else ""


def _gate(decision: Mapping[str, Any]) -> str:
    if not decision["results"]:
        return "<p>No rule was given: every candidate passes.</p>"
    rows = []
    for check in decision["results"]:
        mark = '<b class="good">pass</b>' if check["passed"] else '<b class="bad">fail</b>'
        reason = escape(check["reason"])
        reason += f'<span class="note">{escape(check["note"])}</span>' if check["note"] else ""
        rows.append((mark, escape(check["rule"]), escape(check["observed"]), reason))
    table = _table(("", "Rule", "Observed", "Reason"), rows)
    details = [_check_slices(check) for check in decision["results"] if check["slices"]]
    return table + "".join(details)


def _check_slices(check: Mapping[str, Any]) -> str:
    rows = [
        (
            '<b class="good">pass</b>' if part["passed"] else '<b class="bad">fail</b>',
            escape(str(part["slice"])),
            f"{part['rows']:,}",
            escape(str(part["observed"])),
        )
        for part in check["slices"]
    ]
    opened = "" if check["passed"] else " open"
    return (
        f"<details{opened}><summary>{escape(check['rule'])}</summary>"
        f"{_table(('', 'Part', 'Rows', 'Observed'), rows, numbers=(2,))}</details>"
    )


def _metrics(report: Mapping[str, Any]) -> str:
    compared = any(metric.get("champion") for metric in report["metrics"])
    rows = []
    for metric in report["metrics"]:
        line = [
            escape(metric["name"]),
            _figure(metric["value"], metric["interval"]),
            f"{metric['n']:,}",
        ]
        if compared:
            old, gain = metric.get("champion"), metric.get("gain")
            line.append(_figure(old["value"], old["interval"]) if old else "")
            line.append(_gain(gain) if gain else "")
        rows.append(tuple(line))
    for name, entry in report["latency"].items():
        line = [f"latency {escape(name)}", _milliseconds(entry["value"]), f"{entry['n'] or ''}"]
        rows.append(tuple([*line, _milliseconds(entry["champion"]), ""] if compared else line))
    if report["model_bytes"] is not None:
        line = ["size of the model", f"{report['model_bytes'] / 1024**2:,.2f} MiB", ""]
        rows.append(tuple([*line, "", ""] if compared else line))
    heads = ("Metric", "Candidate", "Rows", *(("Champion", "Better by") if compared else ()))
    note = (
        '<p class="note">Measured from the predictions and the targets of the dataset version, with 95 % intervals. '
        "Better by: positive when the candidate is better, on the same rows.</p>"
    )
    return _table(heads, rows, numbers=(1, 2, 3, 4)) + note if rows else ""


def _gain(gain: Mapping[str, Any]) -> str:
    low, high = gain["interval"]
    tone = "good" if low > 0 else "bad" if high < 0 else ""
    return f'<span class="{tone}">{gain["value"]:+.4f}</span> <small>{low:+.4f} to {high:+.4f}</small>'


def _figures(figures: Sequence[Mapping[str, Any]]) -> str:
    shown = [
        f"<figure><figcaption>{escape(figure['title'])}</figcaption>{draw(figure)}"
        f'<p class="note">{escape(figure["note"])}</p></figure>'
        for figure in figures
    ]
    return f'<div class="figures">{"".join(shown)}</div>' if shown else ""


def _slices(slices: Sequence[Mapping[str, Any]]) -> str:
    shown = []
    for group in slices:
        bars = [
            {
                "name": part["slice"],
                "value": part["value"],
                "low": part["interval"][0] if part["interval"] else None,
                "high": part["interval"][1] if part["interval"] else None,
                "champion": part["champion"],
                "note": f"{part['rows']} rows",
            }
            for part in group["slices"]
            if part["value"] is not None
        ]
        ends = [end for bar in bars for end in (bar["value"], bar["low"], bar["high"]) if end is not None]
        span = [min(0.0, *ends), max(ends) * 1.02 if max(ends) > 1 else 1.0]
        more = f" {group['more']} smaller ones are not shown." if group["more"] else ""
        figure = {"kind": "bars", "title": f"{group['metric']} by {group['column']}", "x": group["metric"]}
        shown.append({**figure, "note": f"With 95 % intervals.{more}", "bars": bars, "range": span})
    return _figures(shown)


def _tests(tests: Mapping[str, Any] | None) -> str:
    if tests is None:
        return ""
    bad = tests["failures"] + tests["errors"]
    passed = tests["total"] - bad - tests["skipped"]
    said = f"<p>{passed} of {tests['total']} passed, {bad} failed, {tests['skipped']} skipped.</p>"
    rows = [(escape(str(one.get("name"))), escape(str(one.get("message")))) for one in tests["failed"]]
    return said + (_table(("Failed case", "Message"), rows) if rows else "")


def _own(entries: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            escape(str(entry["name"])),
            escape(str(entry.get("split") or "")),
            escape(str(entry.get("slice") or "")),
            _figure(entry["value"], None)
            + (f" <small>± {1.96 * entry['stderr']:.4g}</small>" if entry.get("stderr") else ""),
            "" if entry.get("champion") is None else _figure(entry["champion"], None),
        )
        for entry in entries
    ]
    if not rows:
        return ""
    table = _table(("Metric", "Split", "Slice", "Candidate", "Champion"), rows, numbers=(3, 4))
    return f"<details><summary>{len(rows)} figures that were not measured here (± is 95 %)</summary>{table}</details>"


def _table(heads: Iterable[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table of cells that are HTML already."""

    def cells(tag: str, values: Iterable[str]) -> str:
        return "".join(
            f"<{tag}{' class=number' if place in numbers else ''}>{value}</{tag}>"
            for place, value in enumerate(values)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{cells("th", heads)}</tr></thead><tbody>{body}</tbody></table></div>'


def _figure(value: float, interval: Sequence[float] | None) -> str:
    ends = f" <small>{_number(interval[0])} to {_number(interval[1])}</small>" if interval else ""
    return f"{_number(value)}{ends}"


def _number(value: float) -> str:
    return f"{value:,.4g}" if abs(value) >= 1000 else f"{value:.4f}"


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.3g} ms"
