"""The six scores by which UltraEdit chooses among edits: CLIP four times, DINOv2 and SSIM."""

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from insvie_lightning.errors import InputError, first_line
from insvie_lightning.files import read_json
from insvie_lightning.metrics.clip import OPENAI_CLIP, caption_of, clip_encoder
from insvie_lightning.metrics.per_sample import EditedSample, PerSample
from insvie_lightning.nets.clip_pixels import Preprocessing
from insvie_lightning.nets.frozen import Frozen
from insvie_lightning.nets.hub import model_folder
from insvie_lightning.nets.recent import Recent, fingerprint

DINOV2 = "facebook/dinov2-with-registers-large"
"""ViT-L/14 with registers at 518 x 518, as UltraEdit has it."""
_DINO_TYPES = ("dinov2", "dinov2_with_registers")
_DINO_KEPT = 32
_DINO_FRAMES_AT_ONCE = 8


class UltraEdit(PerSample):
    """UltraEdit's selection metrics between source x and edit y, frame by frame; the mean over the frames of a clip.

    `clip_sim_source` = cos(x, source caption), `clip_sim_target` = cos(y, edited caption), `clip_sim_dir` =
    cos(y - x, edited caption - source caption) with embeddings of length 1 and 0 where nothing differs,
    `clip_sim_image` = cos(x, y), `dinov2_sim` = cos of DINOv2's embeddings, `ssim_to_source`: all cosines in -1..1
    [UltraEdit `data_generation/metrics/clip_similarity.py`; Instruct-VEdit uses them as its first filter]. Its own
    thresholds are image >= 0.75, dir >= 0.22, DINOv2 >= 0.4, both texts >= 0.2. Without a caption of the source
    `clip_sim_source` and `clip_sim_dir` are missing.

    Args:
        model: The CLIP, as `metrics.clip.ClipFrame`.
        dino: A folder or hub id of a DINOv2; None leaves `dinov2_sim` out.
        preprocessing: UltraEdit squashes frames; `pil` shares its encoding with the other CLIP scores.
        with_source: Also give `clip_sim_target` of the unedited source.
    """

    source_names = ("clip_sim_target",)
    reads_captions = True
    higher_is_better = True

    def __init__(
        self,
        model: str = OPENAI_CLIP,
        dino: str | None = DINOV2,
        preprocessing: Preprocessing = "squash",
        with_source: bool = True,
    ) -> None:
        super().__init__(with_source)
        self.model, self.dino, self.preprocessing = model, dino, preprocessing
        clip_names = ("clip_sim_source", "clip_sim_target", "clip_sim_dir", "clip_sim_image")
        self.names = (*clip_names, *(("dinov2_sim",) if dino else ()), "ssim_to_source")

    def prepare(self) -> None:
        """Load the networks."""
        clip_encoder(self.model).net.on("cpu")
        if self.dino:
            dino_encoder(self.dino).net.on("cpu")

    def score(self, sample: EditedSample) -> tuple[float, ...]:
        """The five or six means, in the order of `names`.

        Raises:
            InputError: The sample has no caption of the edited clip.
        """
        similarities = self._clip(sample)
        if self.dino:
            dino = dino_encoder(self.dino)
            cosines = F.cosine_similarity(dino.frames(sample.source), dino.frames(sample.edited))
            similarities += (float(cosines.mean()),)
        return (*similarities, ssim(sample.source, sample.edited))

    def _clip(self, sample: EditedSample) -> tuple[float, ...]:
        encoder, device = clip_encoder(self.model), sample.edited.device
        asked = F.normalize(encoder.sentence(caption_of(sample), device), dim=0)
        source, edited = (
            F.normalize(encoder.frames(clip, self.preprocessing).projected) for clip in (sample.source, sample.edited)
        )
        target, image = float((edited @ asked).mean()), float((source * edited).sum(1).mean())
        if not sample.source_caption.strip():
            return float("nan"), target, float("nan"), image
        told = F.normalize(encoder.sentence(sample.source_caption, device), dim=0)
        direction = F.cosine_similarity(edited - source, (asked - told)[None])
        return float((source @ told).mean()), target, float(direction.mean()), image


class DinoEncoder:
    """DINOv2 embeddings of frames; the same clip is embedded once.

    Args:
        model: A folder or hub id of a DINOv2 in transformers' layout.
    """

    def __init__(self, model: str) -> None:
        self.net: Frozen[Any] = Frozen(lambda: load_dino(model))
        self._clips: Recent[Tensor] = Recent(_DINO_KEPT)

    def frames(self, clip: Tensor) -> Tensor:
        """Embed a clip F 3 H W, uint8: F D, class tokens after the last norm.

        As UltraEdit feeds them: nearest neighbours at the network's size (518), in [0, 1] and not normalised.
        """
        return self._clips.get((fingerprint(clip), clip.device), lambda: self._embed(clip))

    def _embed(self, clip: Tensor) -> Tensor:
        net = self.net.on(clip.device)
        pixels = F.interpolate(clip.float() / 255, size=(net.config.image_size,) * 2)
        return torch.cat([net(pixel_values=part).pooler_output for part in pixels.split(_DINO_FRAMES_AT_ONCE)])


@lru_cache(maxsize=2)
def dino_encoder(model: str) -> DinoEncoder:
    """The one encoder of a DINOv2 in this process; it loads when it is first used."""
    return DinoEncoder(model)


def load_dino(model: str) -> Any:
    """Read a DINOv2, with or without registers.

    Raises:
        InputError: It is absent, or another model.
    """
    from transformers import AutoModel

    folder = model_folder(model, ["config.json", "model.safetensors"], "give the folder as `dino`")
    config = folder / "config.json"
    kind = read_json(config).get("model_type") if config.is_file() else None
    if kind not in _DINO_TYPES:
        raise InputError(f"{folder} is of a model of type {kind!r}; legal are {' and '.join(_DINO_TYPES)}")
    try:
        net, info = AutoModel.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            local_files_only=True,
        )
    except Exception as error:  # the libraries have errors of their own for a damaged file
        raise InputError(f"the DINOv2 in {folder} cannot be read: {first_line(error)}") from error
    if info["missing_keys"]:
        raise InputError(
            f"the DINOv2 in {folder} lacks {len(info['missing_keys'])} weights, such as {min(info['missing_keys'])}"
        )
    return net


def ssim(one: Tensor, other: Tensor) -> float:
    """Structural similarity of two clips F 3 H W, uint8: the mean over frames, channels and places, at most 1.

    As scikit-image's `structural_similarity` with its defaults, which UltraEdit uses: uniform 7 x 7 windows that lie
    wholly in the picture, sample covariances, K1 = 0.01, K2 = 0.03, values in [0, 1].

    Raises:
        InputError: Frames are smaller than the window.
    """
    if min(one.shape[2:]) < 7:
        raise InputError(f"SSIM has windows of 7 x 7 pixels and frames are {one.shape[2]} x {one.shape[3]}")
    return sum(_ssim_of_frame(a.float() / 255, b.float() / 255) for a, b in zip(one, other, strict=True)) / len(one)


def _ssim_of_frame(x: Tensor, y: Tensor) -> float:
    c1, c2, unbiased = 0.01**2, 0.03**2, 49 / 48
    mean_x, mean_y, xx, yy, xy = F.avg_pool2d(torch.stack([x, y, x * x, y * y, x * y]), 7, stride=1)
    var_x, var_y, covariance = (
        unbiased * (second - product)
        for second, product in ((xx, mean_x * mean_x), (yy, mean_y * mean_y), (xy, mean_x * mean_y))
    )
    above = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    below = (mean_x.square() + mean_y.square() + c1) * (var_x + var_y + c2)
    return float((above / below).mean())
