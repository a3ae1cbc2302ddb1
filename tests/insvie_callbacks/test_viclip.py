"""The callback of ViCLIP's scores hands its arguments on."""

from typing import Any

from insvie_callbacks import ViClip
from insvie_lightning.metrics.viclip import VICLIP


def test_arguments_reach_the_metric() -> None:
    callback = ViClip("weights.pth", "official", with_source=False, max_seconds=5)
    metric: Any = callback.metric
    assert (metric.model, metric.preset, metric.with_source) == ("weights.pth", "official", False)
    assert callback.max_seconds == 5
    plain: Any = ViClip().metric
    assert (plain.model, plain.preset, plain.with_source) == (VICLIP, "clip", True)
