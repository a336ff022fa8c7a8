"""Small inline SVG plots for the report: curves, intervals and bars.

Each function returns an `<svg>` element as text. Labels are escaped here; colours and fonts are the
style sheet's, by class, so that plots follow the page on screen and on paper.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Points = Sequence[tuple[float, float]]
COLORS = 7
NOISY_POINTS = 20
"""A curve of so many points is smoothed, over a twentieth of them to either side."""
SMALL = 0.5
"""Shares are drawn from 0 to 1 unless none of them passes this."""


@dataclass(frozen=True)
class Frame:
    """A plot's coordinates: data limits and where they lie in the drawing, in pixels."""

    left: float
    right: float
    top: float
    bottom: float
    x_limits: tuple[float, float]
    y_limits: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_limits
        return self.left + (value - low) / (high - low or 1) * (self.right - self.left)

    def y(self, value: float) -> float:
        low, high = self.y_limits
        return self.bottom - (value - low) / (high - low or 1) * (self.bottom - self.top)


@dataclass(frozen=True)
class Mark:
    """A value with its interval at one place of an interval plot."""

    place: int
    series: int
    mean: float
    low: float
    high: float


def draw_svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def draw_text(x: float, y: float, text: str, css: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{css}">{escape(text)}</text>'


def choose_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round values from `low` to `high`."""
    raw = (high - low or 1) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def draw_y_axis(frame: Frame, percent: bool = False) -> str:
    parts = []
    for tick in choose_ticks(*frame.y_limits):
        y, label = frame.y(tick), f"{100 * tick:g}" if percent else f"{tick:g}"
        parts.append(f'<line x1="{frame.left}" x2="{frame.right}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(draw_text(frame.left - 6, y + 3.5, label, "tick", "end"))
    return "".join(parts)


def draw_curves(title: str, series: Mapping[str, Points], width: int = 284, height: int = 200) -> str:
    """Curves over training steps; a noisy one is drawn pale under its moving average."""
    curves = {name: points for name, points in series.items() if points}
    steps = [x for points in curves.values() for x, _ in points]
    values = [y for points in curves.values() for _, y in points]
    top = 26 + 15 * math.ceil(len(curves) / 2) if len(curves) > 1 else 30
    frame = Frame(44, width - 12, top, height - 24, (min(steps), max(steps)), choose_limits(values))
    ticks = [draw_text(frame.x(x), height - 8, f"{x:g}", "tick", "middle") for x in choose_ticks(*frame.x_limits)]
    parts = [draw_text(0, 13, title, "title"), draw_y_axis(frame), *ticks]
    for number, (name, points) in enumerate(curves.items()):
        parts.append(draw_curve(frame, points, number))
        if len(curves) > 1:
            parts.append(draw_key(frame.left + number % 2 * 110, 30 + number // 2 * 15, name, number))
    return draw_svg(width, height, parts, title)


def choose_limits(values: Sequence[float]) -> tuple[float, float]:
    """From 0 to a little above the highest value; 0 to 1 for what looks like a share."""
    low, high = min(values), max(values)
    if low >= 0 and SMALL < high <= 1:
        return 0.0, 1.0
    return min(0.0, low), max(0.0, high) * 1.08 or float(low == 0)


def draw_curve(frame: Frame, points: Points, number: int) -> str:
    color = f"c{number % COLORS}"
    if len(points) == 1:
        x, y = frame.x(points[0][0]), frame.y(points[0][1])
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" class="dot {color}"/>'
    if len(points) < NOISY_POINTS:
        return draw_path(frame, points, f"line {color}")
    return draw_path(frame, points, f"pale {color}") + draw_path(frame, smooth(points), f"line {color}")


def draw_path(frame: Frame, points: Points, css: str) -> str:
    path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in points)
    return f'<polyline points="{path}" class="{css}"/>'


def draw_key(x: float, y: float, name: str, number: int) -> str:
    color = f"c{number % COLORS}"
    return f'<rect x="{x}" y="{y - 7}" width="12" height="3" class="fill {color}"/>' + draw_text(x + 17, y, name, "key")


def smooth(points: Points) -> Points:
    """Centred moving average, over fewer points at the ends."""
    reach = max(1, len(points) // 20)
    windows = (points[max(0, n - reach) : n + reach + 1] for n in range(len(points)))
    return [(x, sum(y for _, y in window) / len(window)) for (x, _), window in zip(points, windows, strict=True)]


def draw_intervals(
    title: str, places: Sequence[str], marks: Sequence[Mark], percent: bool, width: int = 284, height: int = 180
) -> str:
    """Means with whiskers at named places, series side by side; `percent` shows shares from 0 to 1 as 0 to 100."""
    limits = (0.0, 1.0) if percent else (0.0, 1.1 * max((mark.high for mark in marks), default=1.0))
    frame = Frame(36, width - 8, 30, height - 24, (-0.5, len(places) - 0.5), limits)
    parts = [draw_text(0, 13, title, "title"), draw_y_axis(frame, percent)]
    parts += [draw_text(frame.x(n), height - 7, place, "tick", "middle") for n, place in enumerate(places)]
    for number in sorted({mark.series for mark in marks}):
        line = [(mark.place - 0.09 + 0.18 * number, mark.mean) for mark in marks if mark.series == number]
        parts.append(draw_path(frame, line, f"pale c{number % COLORS}"))
    return draw_svg(width, height, [*parts, *(draw_mark(frame, mark) for mark in marks)], title)


def draw_mark(frame: Frame, mark: Mark) -> str:
    x, color = frame.x(mark.place - 0.09 + 0.18 * mark.series), f"c{mark.series % COLORS}"
    low, high = frame.y(mark.low), frame.y(mark.high)
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" class="line {color}"/>'
        f'<circle cx="{x:.1f}" cy="{frame.y(mark.mean):.1f}" r="3.5" class="dot {color}"/>'
    )


def draw_bars(title: str, bars: Sequence[tuple[str, float, str]], width: int = 580) -> str:
    """Horizontal bars from (label, value, note)."""
    left, row, longest = 130, 22, max((value for _, value, _ in bars), default=0) or 1
    parts = [draw_text(0, 13, title, "title")]
    for number, (label, value, note) in enumerate(bars):
        y, length = 24 + number * row, (width - left - 120) * value / longest
        parts.append(draw_text(left - 8, y + 13, label, "key", "end"))
        parts.append(f'<rect x="{left}" y="{y + 2}" width="{max(length, 1):.1f}" height="15" class="fill c0"/>')
        parts.append(draw_text(left + length + 7, y + 13, f"{value:,.0f}{note}", "value"))
    return draw_svg(width, 28 + row * len(bars), parts, title)
