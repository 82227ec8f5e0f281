"""Plot: the figures of *scale* as an SVG, one panel for each axis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_PANEL, _HEIGHT, _LEFT, _TOP, _BOTTOM = 260, 200, 56, 48, 46
_SERIES = (("worker_us", "#1f6fb2"), ("server_us", "#b2471f"))
_LABELS = ("workers", "Redis")
_STYLE = "font-family='sans-serif' font-size='12' fill='#222'"


def draw(report: dict[str, Any], axes: dict[str, tuple[int, ...]], usual: dict[str, int]) -> str:
    """The SVG of a report of `scale.measure`."""
    points = [one for one in report["points"] if not one["is_created_anew"]]
    top = 1.15 * max(one[name]["max"] for one in points for name, _ in _SERIES)
    width = len(axes) * (_PANEL + _LEFT) + 20
    height = _TOP + _HEIGHT + _BOTTOM
    title = f"CPU for each message, us, at {report['rate']:,} messages a second"
    title += " (median, least and most of all windows)"
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' {_STYLE}>",
        f"<rect width='{width}' height='{height}' fill='#fff'/>",
        f"<text x='{_LEFT}' y='18'>{title}</text>",
    ]
    for place, (label, (_, colour)) in enumerate(zip(_LABELS, _SERIES, strict=True)):
        x = _LEFT + 90 * place
        parts.append(f"<rect x='{x}' y='26' width='10' height='10' fill='{colour}'/>")
        parts.append(f"<text x='{x + 14}' y='35'>{label}</text>")
    for place, (axis, values) in enumerate(axes.items()):
        found = {
            one[axis]: one
            for one in points
            if all(one[other] == usual[other] for other in axes if other != axis)
        }
        left = _LEFT + place * (_PANEL + _LEFT)
        parts += _panel(left, top, axis, [found[value] for value in values])
    return "\n".join([*parts, "</svg>", ""])


def _panel(left: float, top: float, axis: str, points: list[dict[str, Any]]) -> list[str]:
    bottom = _TOP + _HEIGHT
    parts = [f"<path d='M{left} {_TOP}V{bottom}H{left + _PANEL}' fill='none' stroke='#888'/>"]
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = bottom - share * _HEIGHT
        parts.append(f"<text x='{left - 6}' y='{y + 4}' text-anchor='end'>{share * top:.0f}</text>")
    steps = [left + _PANEL * (place + 0.5) / len(points) for place in range(len(points))]
    for x, one in zip(steps, points, strict=True):
        parts.append(f"<text x='{x}' y='{bottom + 18}' text-anchor='middle'>{one[axis]:,}</text>")
    middle = left + _PANEL / 2
    parts.append(f"<text x='{middle}' y='{bottom + 36}' text-anchor='middle'>{axis}</text>")
    for name, colour in _SERIES:
        line = ""
        for x, one in zip(steps, points, strict=True):
            low, y, high = (
                bottom - _HEIGHT * one[name][which] / top for which in ("min", "median", "max")
            )
            parts.append(f"<path d='M{x} {low:.1f}V{high:.1f}' stroke='{colour}' opacity='0.5'/>")
            parts.append(f"<circle cx='{x}' cy='{y:.1f}' r='3' fill='{colour}'/>")
            line += f"{'L' if line else 'M'}{x} {y:.1f}"
        parts.append(f"<path d='{line}' fill='none' stroke='{colour}'/>")
    return parts


def write(
    path: Path, report: dict[str, Any], axes: dict[str, tuple[int, ...]], usual: dict[str, int]
) -> None:
    """Draw into a file."""
    path.write_text(draw(report, axes, usual), encoding="utf-8")
