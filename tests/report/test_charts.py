import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from insvie_lightning.report.charts import BINS, GRID, INK, SERIES, histogram, line_chart


def test_line_chart_is_themed_by_variables() -> None:
    steps = np.arange(10.0)
    svg = line_chart([[(steps, steps)], [(steps, 2 * steps)]], {})
    assert all(f"var(--{name})" in svg for name in ("series-0", "series-1", "muted", "line"))
    assert not any(colour in svg for colour in (INK, GRID, *SERIES))


def test_border_name_is_escaped_and_no_mathematics() -> None:
    svg = line_chart([[(np.arange(3.0), np.arange(3.0))]], {"<script>$x": 1.0})
    ElementTree.fromstring(svg)
    assert "<script>" not in svg
    assert "&lt;script&gt;$x" in svg


def test_long_curve_is_binned() -> None:
    steps = np.arange(100 * BINS, dtype=float)
    assert len(line_chart([[(steps, np.sin(steps))]], {})) < 120_000


@pytest.mark.parametrize("values", [[3.0, 4.0, 4.0, 5.0], [0.5], [0.25, 1e6], list(np.linspace(0, 1, 50))])
def test_histogram_of_few_or_many_values(values: list[float]) -> None:
    assert ElementTree.fromstring(histogram(np.array(values))).tag.endswith("svg")


def test_equal_data_give_equal_drawings() -> None:
    values = np.array([1.0, 2.0, 2.0])
    assert histogram(values) == histogram(values)
