"""UltraEdit's six selection scores of the edits of validation and test."""

from insvie_callbacks.edit_metric import EditMetric
from insvie_lightning.metrics import ultra_edit
from insvie_lightning.metrics.clip import OPENAI_CLIP
from insvie_lightning.nets.clip_pixels import Preprocessing


class UltraEdit(EditMetric):
    """Log `clip_sim_source`, `clip_sim_target`, `clip_sim_dir`, `clip_sim_image`, `dinov2_sim` and `ssim_to_source`.

    Args:
        model: Folder or hub id of a CLIP, either of them after `open_clip:` for open_clip's layout, or `toy`.
        dino: Folder or hub id of a DINOv2; null leaves `dinov2_sim` out.
        preprocessing: `squash` as UltraEdit; `pil` shares its encoding with the other CLIP scores.
        with_source: Also score the unedited source.
        max_seconds: Of each validation; see `EditMetric`.
    """

    def __init__(
        self,
        model: str = OPENAI_CLIP,
        dino: str | None = ultra_edit.DINOV2,
        preprocessing: Preprocessing = "squash",
        with_source: bool = True,
        max_seconds: float | None = None,
    ) -> None:
        super().__init__(ultra_edit.UltraEdit(model, dino, preprocessing, with_source), max_seconds)
