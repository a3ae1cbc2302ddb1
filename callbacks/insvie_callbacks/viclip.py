"""ViCLIP scores of the edits of validation and test."""

from insvie_callbacks.edit_metric import EditMetric
from insvie_lightning.metrics import viclip


class ViClip(EditMetric):
    """Log `viclip_dir`, `viclip_out` and the share of edits without a direction, `viclip_dir_undefined`.

    Args:
        model: Folder, file or hub id of ViCLIP's weights.
        preset: `clip` as EditVerse sees videos, `official` as ViCLIP's demo does.
        with_source: Also score the unedited source.
        max_seconds: Of each validation; see `EditMetric`.
    """

    def __init__(
        self,
        model: str = viclip.VICLIP,
        preset: viclip.Preset = "clip",
        with_source: bool = True,
        max_seconds: float | None = None,
    ) -> None:
        super().__init__(viclip.ViClip(model, preset, with_source), max_seconds)
