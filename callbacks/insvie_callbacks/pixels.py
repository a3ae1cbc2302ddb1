"""How near the pixels of an edit are to its source, and to the truth: scores at validation and test."""

from __future__ import annotations

from insvie_callbacks.edit_metric import EditMetric
from insvie_lightning.metrics import pixels


class Pixels(EditMetric):
    """PSNR and SSIM against the source, outside of the edited region, and against the target where it is known.

    Args:
        threshold: The edited region is where source and target differ by more than this, of 255 levels.
        max_seconds: Of each validation; see `EditMetric`.
    """

    def __init__(self, threshold: int = 16, max_seconds: float | None = None) -> None:
        super().__init__(pixels.Pixels(threshold), max_seconds)
