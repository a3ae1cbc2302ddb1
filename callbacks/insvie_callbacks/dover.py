"""DOVER scores of the edits of validation and test."""

from insvie_callbacks.edit_metric import EditMetric
from insvie_lightning.metrics import dover


class Dover(EditMetric):
    """Log DOVER's quality of the edits in 0..1: `dover_technical`, `dover_aesthetic` and `dover_overall`.

    The weights are not part of this package, and forbid commercial use (S-Lab License 1.0).

    Args:
        weights: `DOVER.pth`, its folder, or a hub id.
        antialias: Smooth frames when they are made smaller; published values come without.
        samples: Draws of the random views that are averaged; see `insvie_lightning.metrics.dover.Dover`.
        with_source: Also score the unedited source.
        max_seconds: Of each validation; see `EditMetric`.
    """

    def __init__(
        self,
        weights: str = dover.WEIGHTS,
        antialias: bool = False,
        samples: int = 1,
        with_source: bool = True,
        max_seconds: float | None = None,
    ) -> None:
        super().__init__(dover.Dover(weights, antialias, samples, with_source), max_seconds)
