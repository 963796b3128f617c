"""A report's figures as SVG, for a page that stands alone: no script, no font, no picture from elsewhere.

Colours are classes of the page's style sheet (``c0``, ``c1``, …), so that one drawing fits a light and a dark page.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

WIDTH, HEIGHT = 440, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 14, 12, 44
ROW, NAMES = 24, 190
#: Series that have a colour of their own.
COLOURS = 3


def draw(figure: Mapping[str, Any]) -> str:
    """One figure as an ``<svg>`` element."""
    return _draw_bars(figure) if figure["kind"] == "bars" else _draw_plane(figure)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two ends, about five."""
    if not math.isfinite(low + high) or high <= low:
        return [low]
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.9)
    first = math.ceil(low / step - 1e-9)
    return [round((first + n) * step, 12) for n in range(int((high - first * step) / step + 1e-9) + 1)]


# A plane with two axes -------------------------------------------------------------------------


def _draw_plane(figure: Mapping[str, Any]) -> str:
    x0, x1, y0, y1 = _ranges(figure)

    def x(value: float) -> float:
        return LEFT + (value - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)

    parts = _axes(figure, (x0, x1, y0, y1), x, y)
    if figure.get("diagonal"):
        low, high = max(x0, y0), min(x1, y1)
        parts.append(_line(x(low), y(low), x(high), y(high), "guide"))
    if figure.get("level") is not None and y0 <= figure["level"] <= y1:
        parts.append(_line(x(x0), y(figure["level"]), x(x1), y(figure["level"]), "guide"))
    # The first one, the candidate, lies on top.
    for place, series in reversed(list(enumerate(figure["series"]))):
        parts += _series(series, f"c{min(place, COLOURS - 1)}", x, y, cloud=figure["kind"] == "points")
    legend = [str(series["name"]) for series in figure["series"]] if len(figure["series"]) > 1 else []
    return _svg(HEIGHT, figure["title"], parts) + _legend(legend)


def _ranges(figure: Mapping[str, Any]) -> tuple[float, float, float, float]:
    xs, ys = [], []
    for series in figure["series"]:
        xs += [point[0] for point in series["points"]]
        ys += [point[1] for point in series["points"]]
        ys += [end for ends in series.get("errors", ()) for end in ends]
        ys += [0.0] if series.get("filled") else []
    if figure.get("level") is not None:
        ys.append(figure["level"])
    found = [*_span(xs), *_span(ys)]
    given = figure.get("range") or [None] * 4
    made = [one if stated is None else float(stated) for stated, one in zip(given, found, strict=True)]
    return made[0], made[1], made[2], made[3]


def _span(values: Sequence[float]) -> tuple[float, float]:
    good = [value for value in values if math.isfinite(value)]
    low, high = (min(good), max(good)) if good else (0.0, 1.0)
    margin = (high - low) * 0.04 or abs(high) * 0.1 or 0.5
    return (low if low == 0 else low - margin), high + margin


def _axes(
    figure: Mapping[str, Any],
    ends: tuple[float, float, float, float],
    x: Callable[[float], float],
    y: Callable[[float], float],
) -> list[str]:
    x0, x1, y0, y1 = ends
    parts = []
    for value in ticks(x0, x1):
        parts.append(_line(x(value), y(y0), x(value), y(y1), "grid"))
        parts.append(_text(x(value), HEIGHT - BOTTOM + 16, _number(value), "tick middle"))
    for value in ticks(y0, y1):
        parts.append(_line(x(x0), y(value), x(x1), y(value), "grid"))
        parts.append(_text(LEFT - 7, y(value) + 4, _number(value), "tick end"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, str(figure["x"]), "axis middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text class="axis middle" transform="translate(12 {middle:.1f}) rotate(-90)">{escape(str(figure["y"]))}</text>'
    )
    return parts


def _series(
    series: Mapping[str, Any],
    colour: str,
    x: Callable[[float], float],
    y: Callable[[float], float],
    *,
    cloud: bool,
) -> list[str]:
    points = [(x(a), y(b)) for a, b in series["points"]]
    if not points:
        return []
    if cloud:
        return [f'<circle class="cloud {colour}" cx="{a:.1f}" cy="{b:.1f}" r="2"/>' for a, b in points]
    parts = []
    errors = [
        (place[0], y(low), y(high))
        for place, (low, high) in zip(points, series.get("errors", ()), strict=False)
    ]
    if series.get("band") and errors:
        outline = [(a, high) for a, _, high in errors] + [(a, low) for a, low, _ in reversed(errors)]
        parts.append(f'<polygon class="area {colour}" points="{_points(outline)}"/>')
    elif errors:
        parts += [_line(a, low, a, high, f"error {colour}") for a, low, high in errors]
    if series.get("filled"):
        ground = y(0.0)
        outline = [(points[0][0], ground), *points, (points[-1][0], ground)]
        parts.append(f'<polygon class="area {colour}" points="{_points(outline)}"/>')
    parts.append(f'<polyline class="curve {colour}" points="{_points(points)}"/>')
    if series.get("dots"):
        parts += [f'<circle class="dot {colour}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in points]
    return parts


# Bars ------------------------------------------------------------------------------------------


def _draw_bars(figure: Mapping[str, Any]) -> str:
    bars = figure["bars"]
    x0, x1 = figure["range"]
    height = TOP + ROW * len(bars) + BOTTOM

    def x(value: float) -> float:
        inside: float = min(max(value, x0), x1) - x0
        return NAMES + inside / ((x1 - x0) or 1.0) * (WIDTH - NAMES - RIGHT)

    parts = []
    for value in ticks(x0, x1):
        parts.append(_line(x(value), TOP, x(value), height - BOTTOM, "grid"))
        parts.append(_text(x(value), height - BOTTOM + 16, _number(value), "tick middle"))
    for place, bar in enumerate(bars):
        top = TOP + ROW * place + 4
        zero, end = sorted((x(max(x0, 0.0)), x(bar["value"])))
        name, whole = str(bar["name"]), f"{bar['name']}: {_number(bar['value'])}"
        whole += f", {bar['note']}" if bar.get("note") else ""
        parts.append(_text(NAMES - 8, top + 12, name if len(name) <= 30 else f"{name[:29]}…", "tick end"))
        parts.append(
            f'<rect class="bar {"c2" if bar.get("bad") else "c0"}" x="{zero:.1f}" y="{top}" '
            f'width="{max(end - zero, 0.5):.1f}" height="{ROW - 9}"><title>{escape(whole)}</title></rect>'
        )
        if bar.get("low") is not None:
            parts.append(_line(x(bar["low"]), top + 7.5, x(bar["high"]), top + 7.5, "whisker"))
        if bar.get("champion") is not None:
            parts.append(_line(x(bar["champion"]), top - 2, x(bar["champion"]), top + ROW - 7, "mark c1"))
    parts.append(_text((NAMES + WIDTH - RIGHT) / 2, height - 8, str(figure["x"]), "axis middle"))
    compared = any(bar.get("champion") is not None for bar in bars)
    return _svg(height, figure["title"], parts) + _legend(["candidate", "champion"] if compared else [])


# Elements --------------------------------------------------------------------------------------


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(str(title), quote=True)}">'
        f"{''.join(parts)}</svg>"
    )


def _legend(names: Sequence[str]) -> str:
    shown = [
        f'<span><i class="key c{min(place, COLOURS - 1)}"></i>{escape(name)}</span>'
        for place, name in enumerate(names)
    ]
    return f'<p class="legend">{"".join(shown)}</p>' if shown else ""


def _line(x0: float, y0: float, x1: float, y1: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in points)


def _number(value: float) -> str:
    return f"{value:.4g}"
