"""Inline SVG charts that take colours and fonts from the page's style sheet, so one drawing serves both themes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

Curve = tuple[np.ndarray, np.ndarray]
"""Steps and values, both of shape N, finite, in ascending order of step."""

BINS = 300
"""A longer curve is drawn as the means of this many bins over a band of their ranges."""

# Matplotlib writes these colours into the SVG; they are then replaced by the variables of page.css.
INK, GRID = "#010203", "#040506"
SERIES = tuple(f"#0a0b0{i}" for i in range(6))
THEME = {INK: "var(--muted)", GRID: "var(--line)", **{colour: f"var(--series-{i})" for i, colour in enumerate(SERIES)}}
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "insvie",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.6,
    "lines.markersize": 3.5,
}


def line_chart(series: Sequence[Sequence[Curve]], borders: Mapping[str, float]) -> Markup:
    """Draw series over the step, the i-th in colour `--series-i`, and a dotted line at each border's step.

    A series is one or more curves, which are not connected: the runs that it was logged in.

    The value axis is logarithmic where the values are positive and span more than two decades.
    """

    def draw(axes: Axes) -> None:
        for i, (steps, values) in ((i, curve) for i, curves in enumerate(series) for curve in curves):
            colour = SERIES[i % len(SERIES)]
            if len(steps) > BINS:
                low, mean, high = (_binned(values, reduce) for reduce in (np.min, np.mean, np.max))
                steps, values = _binned(steps, np.mean), mean
                axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
            axes.plot(steps, values, color=colour, marker="o" if len(steps) < 12 else None)
        together = np.concatenate([values for curves in series for _, values in curves])
        if together.min() > 0 and together.max() > 100 * together.min():
            axes.set_yscale("log")
            axes.yaxis.set_minor_locator(NullLocator())
        for name, step in borders.items():
            axes.axvline(step, color=INK, linewidth=0.8, linestyle=(0, (2, 2)))
            axes.text(step, 1.01, name, transform=axes.get_xaxis_transform(), fontsize=8, va="bottom")
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.set_xlabel("step")
        axes.margins(x=0.015)

    return _svg(draw, 4.6, 2.3)


def histogram(values: np.ndarray) -> Markup:
    """Draw the counts of finite values: a bar a value for a few whole numbers (a judge's 1 to 5), else 24 bins."""

    def draw(axes: Axes) -> None:
        distinct, counts = np.unique(values, return_counts=True)
        if len(distinct) <= 12 and np.all(distinct == np.round(distinct)):
            axes.bar(distinct, counts, color=SERIES[0], width=0.75)
            axes.set_xticks(distinct)
        else:
            axes.hist(values, bins=24, color=SERIES[0], rwidth=0.88)
        axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))

    return _svg(draw, 3.3, 1.7)


def _binned(values: np.ndarray, reduce: Callable[[np.ndarray], float]) -> np.ndarray:
    return np.array([reduce(part) for part in np.array_split(values, BINS)])


def _svg(draw: Callable[[Axes], None], width: float, height: float) -> Markup:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:.6g}")
        stream = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, variable in THEME.items():
        svg = svg.replace(colour, variable)
    # Matplotlib escapes the text that it draws.
    return Markup(svg)
