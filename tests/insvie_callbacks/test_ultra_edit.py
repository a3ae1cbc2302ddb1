"""The callback of UltraEdit's scores hands its arguments on."""

from typing import Any

from insvie_callbacks import UltraEdit
from insvie_lightning.metrics.clip import OPENAI_CLIP
from insvie_lightning.metrics.ultra_edit import DINOV2


def test_arguments_reach_the_metric() -> None:
    callback = UltraEdit("m", "d", "pil", with_source=False, max_seconds=5)
    metric: Any = callback.metric
    assert (metric.model, metric.dino, metric.preprocessing, metric.with_source) == ("m", "d", "pil", False)
    assert callback.max_seconds == 5
    plain: Any = UltraEdit().metric
    assert (plain.model, plain.dino, plain.preprocessing) == (OPENAI_CLIP, DINOV2, "squash")
