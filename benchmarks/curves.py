"""Cost against amount of work, both on logarithmic scales, as text and as SVG. A line that rises one decade for each
decade to the right grows with the work; a flat one does not depend on it.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

Point = tuple[float, float]
Curves = Mapping[str, Sequence[Point]]
"""Name → (amount, cost), both above 0."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
COLOURS = ("#1b6ca8", "#c1440e", "#3a7d44", "#7b4fa0", "#a88a1b", "#444444", "#0e8c8c", "#b03a6f")


class Frame:
    """The decades that a set of curves spans, and where in it a point lies."""

    def __init__(self, curves: Curves) -> None:
        points = [point for curve in curves.values() for point in curve]
        self.left, self.right = _decades([x for x, _ in points])
        self.bottom, self.top = _decades([y for _, y in points])

    def place(self, point: Point) -> Point:
        """Return where the point lies, 0 to 1 from the left and from the bottom."""
        x, y = math.log10(point[0]), math.log10(point[1])
        return (x - self.left) / (self.right - self.left), (y - self.bottom) / (self.top - self.bottom)


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def text_plot(curves: Curves, unit: str, width: int = 72, height: int = 20) -> str:
    """Return a plot for a terminal, a letter for each curve; where two meet, the later one is seen."""
    frame = Frame(curves)
    grid = [[" "] * (width + 1) for _ in range(height + 1)]
    for letter, curve in zip(LETTERS, curves.values(), strict=False):
        for point in curve:
            across, up = frame.place(point)
            grid[height - round(up * height)][round(across * width)] = letter
    decades = {
        height - round((at - frame.bottom) / (frame.top - frame.bottom) * height): at
        for at in range(frame.bottom, frame.top + 1)
    }
    lines = [
        f"{_power(decades[row]) if row in decades else '':>8} |{''.join(cells).rstrip()}"
        for row, cells in enumerate(grid)
    ]
    lines.append(" " * 9 + "+" + "-" * width)
    lines.append(" " * 10 + f"{_power(frame.left)}{_power(frame.right):>{width - len(_power(frame.left))}}")
    legend = [f"  {letter}  {name}" for letter, name in zip(LETTERS, curves, strict=False)]
    return "\n".join([unit, *lines, *legend])


def svg_plot(curves: Curves, unit: str, width: int = 720, height: int = 420) -> str:
    """Return the plot as an SVG document."""
    frame, margin, legend = Frame(curves), 60, 240
    inner_width, inner_height = width - margin - legend, height - 2 * margin

    def at(point: Point) -> str:
        across, up = frame.place(point)
        return f"{margin + across * inner_width:.1f},{height - margin - up * inner_height:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{margin}" y="{margin - 20}">{escape(unit)}</text>',
    ]
    for decade in range(frame.bottom, frame.top + 1):
        y = height - margin - (decade - frame.bottom) / (frame.top - frame.bottom) * inner_height
        parts.append(f'<path d="M{margin},{y:.1f}h{inner_width}" stroke="#ddd"/>')
        parts.append(f'<text x="{margin - 6}" y="{y + 4:.1f}" text-anchor="end">{_power(decade)}</text>')
    for decade in range(frame.left, frame.right + 1):
        x = margin + (decade - frame.left) / (frame.right - frame.left) * inner_width
        parts.append(f'<path d="M{x:.1f},{margin}v{inner_height}" stroke="#ddd"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{height - margin + 18}" text-anchor="middle">{_power(decade)}</text>'
        )
    for number, (name, curve) in enumerate(curves.items()):
        colour, y = COLOURS[number % len(COLOURS)], margin + 18 * number
        line = " ".join(at(point) for point in curve)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{width - legend + 12}" y="{y}" fill="{colour}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _power(exponent: int) -> str:
    return f"{10.0**exponent:g}"
