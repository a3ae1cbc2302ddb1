"""Does an edit move as its source does: a score at validation and test."""

from __future__ import annotations

from typing import Literal

from insvie_callbacks.edit_metric import EditMetric
from insvie_lightning.metrics import epe


class EPE(EditMetric):
    """End-point error between the flows of source and edit, `epe_BACKEND_px` in pixels; lower is better.

    Args:
        backend: Whose flow: `dis` (OpenCV, no weights), `raft` (torchvision) or `gmflow` (the published numbers').
        weights: A local file: GMFlow's checkpoint, or RAFT's instead of torchvision's own download.
        max_seconds: Of each validation; see `EditMetric`.
    """

    def __init__(
        self,
        backend: Literal["dis", "raft", "gmflow"] = "dis",
        weights: str | None = None,
        max_seconds: float | None = None,
    ) -> None:
        super().__init__(epe.EPE(backend, weights), max_seconds)
