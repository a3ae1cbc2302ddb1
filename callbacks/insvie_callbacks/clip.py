"""CLIP scores of the edits of validation and test: consistency in both published definitions, and captions."""

from insvie_callbacks.edit_metric import EditMetric
from insvie_lightning.metrics import clip
from insvie_lightning.nets.clip_pixels import Preprocessing


class ClipFrame(EditMetric):
    """Log TGVE's CLIPFrame as `clip_frame`: the mean cosine over all pairs of frames.

    Args:
        model: Folder or hub id of a CLIP, either of them after `open_clip:` for open_clip's layout, or `toy`.
        preprocessing: `pil` as published, `tensor` for speed, `squash` as UltraEdit.
        tgve_square: Resize frames to 480 x 480 first, as TGVE's script does.
        with_source: Also score the unedited source.
        max_seconds: Of each validation; see `EditMetric`.
    """

    def __init__(
        self,
        model: str = clip.OPENAI_CLIP,
        preprocessing: Preprocessing = "pil",
        tgve_square: bool = False,
        with_source: bool = True,
        max_seconds: float | None = None,
    ) -> None:
        super().__init__(clip.ClipFrame(model, preprocessing, tgve_square, with_source), max_seconds)


class ClipTemporal(EditMetric):
    """Log V2VBench's CLIP consistency as `clip_temporal`: the mean cosine over consecutive frames.

    Args:
        model: As `ClipFrame`.
        preprocessing: As `ClipFrame`.
        with_source: Also score the unedited source.
        max_seconds: Of each validation; see `EditMetric`.
    """

    def __init__(
        self,
        model: str = clip.OPENAI_CLIP,
        preprocessing: Preprocessing = "pil",
        with_source: bool = True,
        max_seconds: float | None = None,
    ) -> None:
        super().__init__(clip.ClipTemporal(model, preprocessing, with_source), max_seconds)


class ClipText(EditMetric):
    """Log the agreement of frames and edited caption as `clip_text`, about 20 to 35 with OpenAI's weights.

    Args:
        model: As `ClipFrame`.
        preprocessing: As `ClipFrame`.
        tgve_square: As `ClipFrame`.
        with_source: Also score the unedited source.
        max_seconds: Of each validation; see `EditMetric`.
    """

    def __init__(
        self,
        model: str = clip.OPENAI_CLIP,
        preprocessing: Preprocessing = "pil",
        tgve_square: bool = False,
        with_source: bool = True,
        max_seconds: float | None = None,
    ) -> None:
        super().__init__(clip.ClipText(model, preprocessing, tgve_square, with_source), max_seconds)


class PickScore(EditMetric):
    """Log PickScore as `pick_score`: how people would like the frames for the edited caption, about 20.

    Args:
        model: As `ClipFrame`.
        processor: Folder or hub id of tokenizer and pixels, where the model's folder has none.
        preprocessing: As `ClipFrame`.
        tgve_square: As `ClipFrame`.
        with_source: Also score the unedited source.
        max_seconds: Of each validation; see `EditMetric`.
    """

    def __init__(
        self,
        model: str = clip.PICKSCORE,
        processor: str = clip.PICKSCORE_PROCESSOR,
        preprocessing: Preprocessing = "pil",
        tgve_square: bool = False,
        with_source: bool = True,
        max_seconds: float | None = None,
    ) -> None:
        super().__init__(clip.PickScore(model, processor, preprocessing, tgve_square, with_source), max_seconds)
