"""Small drawings in SVG, by plain Python: bars that compare, and lines that show growth.

They stand on light and on dark pages: nothing is filled behind them, text is grey, and colours are of middle lightness.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

__all__ = ["bars", "lines"]

_GREY, _OWN = "#808080", "#2a8f6d"
_COLOURS = (_OWN, "#c2703d", "#6a7fc1", "#b0628f", "#97883a", "#4f97b0", "#a05252", "#7a6fae")
_WIDTH = 640


def _text(x: float, y: float, words: str, anchor: str = "start", size: int = 12, colour: str = _GREY) -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {where} font-size="{size}" fill="{colour}">{escape(words)}</text>'


def _drawing(height: float, title: str, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" width="{_WIDTH}" '
        f'height="{height:.0f}" role="img" font-family="sans-serif"><title>{escape(title)}</title>'
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def short(value: float) -> str:
    """A number in a few characters."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.3g}"


def bars(title: str, unit: str, values: Mapping[str, float], own: str) -> str:
    """One horizontal bar each, ``own`` in a colour of its own."""
    left, right, row, top = 190, 70, 20, 30
    most = max(values.values(), default=0) or 1
    parts = [_text(0, 16, f"{title} ({unit})", size=13)]
    for number, (name, value) in enumerate(values.items()):
        y = top + number * row
        length = (_WIDTH - left - right) * value / most
        colour = _OWN if name.startswith(own) else _GREY
        opacity = 1 if name == own else 0.55
        parts.append(_text(left - 8, y + 13, name, "end"))
        parts.append(
            f'<rect x="{left}" y="{y + 3}" width="{max(length, 1):.1f}" height="{row - 6}" fill="{colour}" '
            f'fill-opacity="{opacity}"/>'
        )
        parts.append(_text(left + length + 6, y + 13, short(value)))
    return _drawing(top + len(values) * row + 6, title, parts)


def lines(title: str, across: str, unit: str, curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Points joined by lines, both axes logarithmic; what is missing in a curve is not invented."""
    left, right, top, bottom, height = 60, 180, 30, 44, 300
    points = [point for curve in curves.values() for point in curve]
    parts = [_text(0, 16, f"{title} ({unit})", size=13)]
    if not points:
        return _drawing(top, title, parts)
    low_x, high_x = _decades([x for x, _ in points])
    low_y, high_y = _decades([y for _, y in points])

    def place(x: float, y: float) -> tuple[float, float]:
        right_edge, lower_edge = _WIDTH - right, height - bottom
        return (
            left + (right_edge - left) * (math.log10(x) - low_x) / (high_x - low_x),
            lower_edge - (lower_edge - top) * (math.log10(y) - low_y) / (high_y - low_y),
        )

    for power in range(low_y, high_y + 1):
        x, y = place(10**low_x, 10.0**power)
        parts.append(f'<path d="M{x:.1f} {y:.1f}H{_WIDTH - right}" stroke="{_GREY}" stroke-opacity="0.3"/>')
        parts.append(_text(left - 6, y + 4, short(10.0**power), "end"))
    for power in range(low_x, high_x + 1):
        x, y = place(10.0**power, 10**low_y)
        parts.append(f'<path d="M{x:.1f} {y:.1f}V{top}" stroke="{_GREY}" stroke-opacity="0.3"/>')
        parts.append(_text(x, y + 16, short(10.0**power), "middle"))
    parts.append(_text((left + _WIDTH - right) / 2, height - 8, across, "middle"))
    for number, (name, curve) in enumerate((name, curve) for name, curve in curves.items() if curve):
        colour = _COLOURS[number % len(_COLOURS)]
        placed = [place(x, y) for x, y in sorted(curve)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
        parts.append(_text(_WIDTH - right + 12, top + 14 + 18 * number, name, colour=colour))
    return _drawing(height, title, parts)


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten around all of them, at least one apart."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)
