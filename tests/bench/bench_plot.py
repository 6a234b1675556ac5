# SPDX-License-Identifier: BSD-2-Clause
"""The benchmark's plot: instructions against frames held, ours and others', as an SVG written by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Sequence

WIDTH, HEIGHT = 1000, 620
LEFT, RIGHT, TOP, BOTTOM = 90, 250, 70, 70  # margins around the axes
X_DECADES, Y_DECADES = (1, 6), (1, 6)  # powers of ten
LABEL_STEP = 17  # pixels between two labels, at least

HELD = ("100", "1000", "10000", "100000")
# Measured by the same counting; random order. KTF c1ab591, lk bd45103.
OTHERS: dict[str, dict[str, float]] = {
    "KTF put": dict(zip(HELD, (9078, 5709, 25032, 251483))),
    "KTF find mfn": dict(zip(HELD, (276, 2484, 24503, 260750))),
    "KTF find kernel VA": dict(zip(HELD, (942, 3150, 25169, 261416))),
    "lk get": dict.fromkeys(HELD, 174),
    "lk put": dict.fromkeys(HELD, 169),
}
OURS = {
    "get_frame": "get",
    "put_frame": "put",
    "find_mfn_frame": "find mfn",
    "find_kern_va_frame": "find kernel VA",
}
COLOUR = {
    "get": "#1f77b4",
    "put": "#d62728",
    "find mfn": "#2ca02c",
    "find kernel VA": "#9467bd",
}


@dataclass
class Line:
    """One curve: its points by frames held."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    dashed: bool


def x_at(held: float) -> float:
    """Where so many frames lie on the horizontal axis."""
    low, high = X_DECADES
    return LEFT + (math.log10(held) - low) / (high - low) * (WIDTH - LEFT - RIGHT)


def y_at(cost: float) -> float:
    """Where so many instructions lie on the vertical axis."""
    low, high = Y_DECADES
    return HEIGHT - BOTTOM - (math.log10(cost) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def lines_of(results: dict[str, Any]) -> list[Line]:
    """All curves, others' dashed."""
    lines = []
    for key, operation in OURS.items():
        points = sorted((float(k), max(v, 10.0)) for k, v in results.get(key, {}).items())
        if points:
            lines.append(Line(f"ours: {operation}", points, COLOUR[operation], False))
    for name, values in OTHERS.items():
        points = [(float(k), v) for k, v in values.items()]
        lines.append(Line(name, points, COLOUR[name.split(" ", 1)[1]], True))
    return lines


def spread_labels(wanted: Sequence[float]) -> list[float]:
    """Heights for labels, near those wanted, none on another."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    at = list(wanted)
    for _ in range(200):
        for above, below in zip(order, order[1:]):
            lack = LABEL_STEP - (at[below] - at[above])
            if lack > 0:
                at[above] -= lack / 2
                at[below] += lack / 2
    return at


def text(x: float, y: float, words: str, **attributes: str) -> str:
    """A piece of text."""
    more = "".join(f' {k.replace("_", "-")}="{v}"' for k, v in attributes.items())
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{words}</text>'


def axes() -> list[str]:
    """Grid, numbers and titles."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    out = []
    for power in range(X_DECADES[0], X_DECADES[1] + 1):
        x = x_at(10**power)
        out.append(f'<path d="M{x:.1f} {TOP}V{bottom}" stroke="#dddddd"/>')
        out.append(text(x, bottom + 20, f"{10**power:,}", text_anchor="middle"))
    for power in range(Y_DECADES[0], Y_DECADES[1] + 1):
        y = y_at(10**power)
        out.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#dddddd"/>')
        out.append(text(LEFT - 8, y + 4, f"{10**power:,}", text_anchor="end"))
    out.append(f'<path d="M{LEFT} {TOP}V{bottom}H{right}" stroke="#444444" fill="none"/>')
    out.append(text((LEFT + right) / 2, bottom + 46, "frames held", text_anchor="middle"))
    middle = (TOP + bottom) / 2
    turn = f"rotate(-90 22 {middle:.1f})"
    out.append(text(22, middle, "instructions per operation", text_anchor="middle", transform=turn))
    return out


def curve(line: Line) -> list[str]:
    """The line and its points."""
    path = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in line.points)
    dash = ' stroke-dasharray="6 4"' if line.dashed else ""
    out = [f'<polyline points="{path}" fill="none" stroke="{line.colour}" stroke-width="2"{dash}/>']
    fill = "white" if line.dashed else line.colour
    for x, y in line.points:
        out.append(
            f'<circle cx="{x_at(x):.1f}" cy="{y_at(y):.1f}" r="3" fill="{fill}" stroke="{line.colour}"/>'
        )
    return out


def labels(lines: Sequence[Line]) -> list[str]:
    """Each curve's name and last figure, right of the axes, with a thin line to its end."""
    out = []
    heights = spread_labels([y_at(line.points[-1][1]) for line in lines])
    for line, y in zip(lines, heights):
        held, cost = line.points[-1]
        end_x, end_y, x = x_at(held), y_at(cost), WIDTH - RIGHT + 24
        out.append(
            f'<path d="M{end_x + 5:.1f} {end_y:.1f}L{x - 4} {y:.1f}" stroke="{line.colour}" '
            'stroke-width="0.6" opacity="0.6"/>'
        )
        out.append(text(x, y + 4, f"{line.name}: {cost:,.0f}", fill=line.colour))
    return out


def svg(results: dict[str, Any]) -> str:
    """The plot of these figures (bench.json's `results`)."""
    lines = lines_of(results)
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        text(LEFT, 28, "Cost against frames held", font_size="18"),
        text(
            LEFT,
            50,
            "Guest instructions, random order; dashed: KTF c1ab591 and lk bd45103, measured up to 100,000",
            fill="#555555",
        ),
        *axes(),
    ]
    for line in lines:
        body += curve(line)
    return "\n".join([*body, *labels(lines), "</svg>"]) + "\n"
