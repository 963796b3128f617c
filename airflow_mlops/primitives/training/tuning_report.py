"""Plots of a tuning as SVG: how the objective went from trial to trial, and which parameters mattered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from airflow_mlops.primitives.training.tuning import Trial, Tuning

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 720, 360, 70, 40, 40
_COLOURS = {"complete": "#1f77b4", "pruned": "#ff7f0e"}


def history_svg(tuning: Tuning) -> str:
    """Value of every trial by its number, and the best so far as a line.

    A pruned trial stands where its last step left it. Of several objectives the first is shown.
    """
    points = [(trial, value) for trial in tuning.trials if (value := _value(trial)) is not None]
    objective, direction = tuning.plan.objectives[0], tuning.plan.directions[0]
    if not points:
        return _svg(f"{objective}: no trial has a value", [])
    values = [value for _, value in points]
    low, high = min(values), max(values)
    margin = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    low, high, last = low - margin, high + margin, max(1, tuning.trials[-1].number)

    def place(number: int, value: float) -> tuple[float, float]:
        x = _LEFT + number / last * (_WIDTH - _LEFT - 20)
        return x, _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    marks = [_axis_label(place(0, value)[1], value) for value in _ticks(low, high)]
    best: list[tuple[float, float]] = []
    for trial, value in points:
        x, y = place(trial.number, value)
        if trial.state == "complete":
            better = min if direction == "minimize" else max
            held = value if not best else better(value, best[-1][1])
            best.append((float(trial.number), held))
        marks.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{_COLOURS[trial.state]}">'
            f"<title>{escape(_hint(trial, value))}</title></circle>"
        )
    line = " ".join("{:.1f},{:.1f}".format(*place(int(number), value)) for number, value in best)
    marks.append(f'<polyline points="{line}" fill="none" stroke="#2ca02c" stroke-width="2"/>')
    middle = (_WIDTH + _LEFT) / 2
    marks.append(f'<text x="{middle}" y="{_HEIGHT - 10}" text-anchor="middle">trial 0 to {last}</text>')
    return _svg(f"{objective} ({direction}); line: best so far, orange: pruned", marks)


def importance_svg(importance: Mapping[str, float]) -> str:
    """A bar for each parameter, the most important first."""
    bars, ordered = [], sorted(importance.items(), key=lambda pair: -pair[1])
    step = min(40.0, (_HEIGHT - _TOP - 20) / max(1, len(ordered)))
    for number, (name, share) in enumerate(ordered):
        y, width = _TOP + number * step, share * (_WIDTH - 300)
        bars.append(
            f'<text x="190" y="{y + step * 0.6:.1f}" text-anchor="end">{escape(name[:30])}</text>'
            f'<rect x="200" y="{y + step * 0.15:.1f}" width="{width:.1f}" height="{step * 0.7:.1f}" fill="#1f77b4"/>'
            f'<text x="{205 + width:.1f}" y="{y + step * 0.6:.1f}">{share:.0%}</text>'
        )
    return _svg("Share of each parameter in what made trials good (PED-ANOVA)", bars)


def trial_rows(tuning: Tuning) -> list[dict[str, object]]:
    """All trials as JSON values, for a file beside the plots."""
    best = tuning.best()
    return [
        {
            "number": trial.number,
            "state": trial.state,
            "parameters": trial.parameters,
            "values": trial.values,
            "best": best is not None and trial.number == best.number,
            "last_step": max(trial.steps, default=None),
            "seconds": None if trial.finished_at is None else round(trial.finished_at - trial.started_at, 1),
            "reason": trial.reason,
        }
        for trial in tuning.trials
    ]


def _value(trial: Trial) -> float | None:
    if trial.state == "complete":
        return trial.values[0]
    return trial.steps[max(trial.steps)] if trial.state == "pruned" and trial.steps else None


def _hint(trial: Trial, value: float) -> str:
    return f"trial {trial.number}, {trial.state}: {value:g}; {trial.parameters}"


def _ticks(low: float, high: float) -> Sequence[float]:
    return [low + (high - low) * share / 4 for share in range(5)]


def _axis_label(y: float, value: float) -> str:
    return (
        f'<line x1="{_LEFT}" x2="{_WIDTH - 20}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>'
    )


def _svg(title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/><text x="{_LEFT}" y="20" font-size="14">'
        f"{escape(title)}</text>{''.join(parts)}</svg>\n"
    )
