"""Plots as SVG text."""

import math
from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 560, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 30, 34
_COLORS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2")


def line_plot(title: str, unit: str, lines: Mapping[str, Points]) -> str:
    """Values over time, from 0; an empty text without points."""
    drawn = {name: points for name, points in lines.items() if points}
    if not drawn:
        return ""
    last = max(x for points in drawn.values() for x, _ in points) or 1.0
    top = _round_up(max(y for points in drawn.values() for _, y in points))
    seconds = [(last * fifth / 5, f"{last * fifth / 5:.3g} s") for fifth in range(6)]
    parts = [*_frame(title), *_rows(top, unit), *_columns(seconds, last)]
    for number, (name, points) in enumerate(drawn.items()):
        color = _COLORS[number % len(_COLORS)]
        path = " ".join(f"{_x(x / last):.1f},{_y(y / top):.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.6"/>')
        if len(points) == 1:
            x, y = points[0]
            parts.append(f'<circle cx="{_x(x / last):.1f}" cy="{_y(y / top):.1f}" r="2.5" fill="{color}"/>')
        parts.append(_text(_WIDTH - _RIGHT - 70 * (len(drawn) - number - 1), 16, name, "end", color))
    return _svg(parts)


def distribution_plot(title: str, ordered_ms: Sequence[float]) -> str:
    """A histogram with a logarithmic scale."""
    if not ordered_ms:
        return ""
    low = math.floor(math.log10(max(ordered_ms[0], 0.01)))
    high = max(low + 1, math.ceil(math.log10(max(ordered_ms[-1], 0.01))))
    steps = 20 * (high - low)
    counts = [0] * steps
    for value in ordered_ms:
        position = (math.log10(max(value, 0.01)) - low) / (high - low)
        counts[min(steps - 1, max(0, int(position * steps)))] += 1
    top = _round_up(max(counts) * 100 / len(ordered_ms))
    named = [(float(n), f"{10.0 ** (low + n):g} ms") for n in range(high - low + 1)]
    parts = [*_frame(title), *_rows(top, "%"), *_columns(named, float(high - low))]
    width = (_WIDTH - _LEFT - _RIGHT) / steps
    for number, count in enumerate(counts):
        y = _y(count * 100 / len(ordered_ms) / top)
        parts.append(
            f'<rect x="{_LEFT + number * width:.1f}" y="{y:.1f}" width="{max(0.5, width - 0.5):.1f}"'
            f' height="{_HEIGHT - _BOTTOM - y:.1f}" fill="{_COLORS[0]}"/>'
        )
    return _svg(parts)


def _frame(title: str) -> list[str]:
    return [
        _text(_LEFT, 16, title, "start", "#111827"),
        f'<path d="M{_LEFT} {_TOP}V{_HEIGHT - _BOTTOM}H{_WIDTH - _RIGHT}" fill="none" stroke="#6b7280"/>',
    ]


def _rows(top: float, unit: str) -> list[str]:
    parts = []
    for number in range(5):
        y = _y(number / 4)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#e5e7eb"/>')
        parts.append(_text(_LEFT - 6, y + 4, f"{top * number / 4:,.4g} {unit}", "end", "#6b7280"))
    return parts


def _columns(named: Sequence[tuple[float, str]], last: float) -> list[str]:
    return [_text(_x(x / last), _HEIGHT - _BOTTOM + 18, name, "middle", "#6b7280") for x, name in named]


def _x(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _round_up(value: float) -> float:
    """The end of an axis: the next 1, 2 or 5 times a power of 10."""
    if value <= 0:
        return 1.0
    decade = 10.0 ** math.floor(math.log10(value))
    return next(step * decade for step in (1, 2, 5, 10) if step * decade >= value)


def _text(x: float, y: float, text: str, anchor: str, color: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">{escape(text)}</text>'


def _svg(parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>'
