"""Logged metrics as charts: one run, or several joined in order."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from insvie_lightning.errors import InputError
from insvie_lightning.files import open_text
from insvie_lightning.report.charts import Curve, line_chart
from insvie_lightning.report.values import number, show

STAGE = "stage_index"


@dataclass(frozen=True, slots=True)
class Metric:
    """What was logged under one name: the finite values as a curve, and how many were not finite."""

    curve: Curve
    lost: int

    @property
    def diverged(self) -> bool:
        """Whether no value is finite, so that there is nothing to draw."""
        return self.lost > 0 and not len(self.curve[0])


@dataclass(frozen=True, slots=True)
class Line:
    """A legend's entry: the i-th colour of a chart, the metric's name, its latest value as shown."""

    name: str
    last: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Metrics that differ in their split only (`train/loss`, `val/loss`), in one drawing."""

    title: str
    svg: Markup
    lines: tuple[Line, ...] = ()
    note: str = ""


Metrics = Mapping[str, Metric]


def read_metrics(path: Path) -> dict[str, Metric]:
    """Return the columns of a `metrics.csv`; where a step was logged twice, as after a resume, the later row counts.

    Raises:
        InputError: The file has no column `step`.
    """
    points: dict[str, dict[float, float]] = {}
    with open_text(path, "CSV of metrics") as file, _cells(path):
        rows = csv.DictReader(file)
        if "step" not in (rows.fieldnames or ()):
            raise InputError(f"{path} has no column 'step', which the CSVLogger writes; is it another file?")
        for row in rows:
            step = _number(row["step"])
            for name, text in row.items():
                if name not in (None, "step", "epoch") and text and math.isfinite(step):
                    points.setdefault(name, {})[step] = _number(text)
    return {name: _metric(values) for name, values in points.items()}


@contextmanager
def _cells(path: Path) -> Iterator[None]:
    try:
        yield
    except csv.Error as error:
        raise InputError(f"{path} is no readable CSV: {error}") from None


def metric_groups(runs: Mapping[str, Metrics]) -> dict[str, list[str]]:
    """Return the names of all metrics that make a curve, grouped by what they measure; losses come first."""
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for metrics in runs.values() for name in metrics):
        if name != STAGE and any(_is_curve(metrics, name) for metrics in runs.values()):
            groups.setdefault(_group(name), []).append(name)
    return dict(sorted(groups.items(), key=lambda group: "loss" not in group[0]))


def joined_chart(title: str, names: Sequence[str], runs: Mapping[str, Metrics]) -> Chart:
    """Draw a group of metrics, the runs that logged it end to end; each border is named after its run, or stage."""
    holders = {run: metrics for run, metrics in runs.items() if any(_is_curve(metrics, name) for name in names)}
    series: dict[str, list[Curve]] = {name: [] for name in names}
    borders: dict[str, float] = {}
    offset, lost = 0.0, 0
    for run, metrics in holders.items():
        marks = {run: 0.0} if len(holders) > 1 else _stages(metrics)
        borders |= {mark: offset + step for mark, step in marks.items()}
        for name in names:
            if _is_curve(metrics, name):
                steps, values = metrics[name].curve
                series[name].append((steps + offset, values))
                lost += metrics[name].lost
        offset += last_step(metrics) + 1
    lines = tuple(Line(name, show(name, float(curves[-1][1][-1]))) for name, curves in series.items())
    note = f"{number(lost)} values are not finite and left out" if lost else ""
    return Chart(title, line_chart(list(series.values()), borders), lines, note)


def last_step(metrics: Metrics) -> int:
    """Return the highest step at which anything was logged."""
    return int(max((metric.curve[0].max(initial=0) for metric in metrics.values()), default=0))


def _is_curve(metrics: Metrics, name: str) -> bool:
    return name in metrics and len(metrics[name].curve[0]) > 1


def _stages(metrics: Metrics) -> dict[str, float]:
    if STAGE not in metrics:
        return {}
    steps, stages = metrics[STAGE].curve
    starts = np.flatnonzero(np.diff(stages, prepend=np.nan) != 0)
    return {f"stage {int(stages[start]) + 1}": float(steps[start]) for start in starts} if len(starts) > 1 else {}


def _group(name: str) -> str:
    name = re.sub(r"^(train|val|validation|test)[/_]", "", name)
    return re.sub(r"_(step|epoch)$", "", name)


def _metric(points: Mapping[float, float]) -> Metric:
    steps, values = (np.array(part, dtype=float) for part in zip(*sorted(points.items()), strict=True))
    finite = np.isfinite(values)
    return Metric((steps[finite], values[finite]), int((~finite).sum()))


def _number(text: str | None) -> float:
    """Return NaN for what is no number: the last line of a run that was killed may be cut."""
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
