"""ViCLIP scores: does the video change as its captions do, and does the result show what its caption says."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from insvie_lightning.errors import InputError, nearest
from insvie_lightning.metrics.clip import caption_of
from insvie_lightning.metrics.per_sample import EditedSample, PerSample
from insvie_lightning.nets.clip_pixels import clip_pixels
from insvie_lightning.nets.frozen import Frozen
from insvie_lightning.nets.hub import model_file
from insvie_lightning.nets.recent import Recent, fingerprint

if TYPE_CHECKING:
    from insvie_lightning.nets.viclip import ViClipNet

VICLIP = "OpenGVLab/ViCLIP-L-14-hf"
Preset = Literal["clip", "official"]
PRESETS = ("clip", "official")
_WEIGHTS = ("model.safetensors", "ViClip-InternVid-10M-FLT.pth")
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_KEPT = 64


class ViClip(PerSample):
    """ViCLIP_dir and ViCLIP_out of EVE's protocol, both cosines in -1..1.

    `viclip_out` = cos(V(edit), T(edited caption)). `viclip_dir` = cos(V(edit) - V(source), T(edited caption) -
    T(source caption)), each embedding of length 1 before the difference. EVE (arXiv 2403.09334, section 4) says this in
    words only; the formula is the convention of InstructPix2Pix and InsV2V, and published values can be compared
    approximately. Where edit and source, or the captions, are the same, the direction is undefined: `viclip_dir` is 0
    and `viclip_dir_undefined` 1, so that its mean is the share of such samples. Without a caption of the source both
    are missing.

    Args:
        model: A folder with `model.safetensors` or `ViClip-InternVid-10M-FLT.pth`, one of these files, or a hub id.
        preset: `clip` sees frames int(i n / 8), shorter side to 224 (bicubic) and its middle, CLIP's mean and deviation
            [EditVerse `video_text_alignment.py`, V2VBench `image_transform.py`]; `official` the first 8 of every
            floor(n / 8)-th frame, squashed to 224 x 224 (bilinear), ImageNet's mean and deviation [InternVideo
            `viclip/__init__.py`].
        with_source: Also score the unedited source against the edited caption (`source_viclip_out`).

    Raises:
        InputError: There is no such preset.
    """

    names = ("viclip_dir", "viclip_out", "viclip_dir_undefined")
    source_names = ("viclip_out",)
    reads_captions = True
    higher_is_better = True

    def __init__(self, model: str = VICLIP, preset: Preset = "clip", with_source: bool = True) -> None:
        super().__init__(with_source)
        if preset not in PRESETS:
            raise InputError(
                f"ViCLIP has no preset {preset!r}; legal are {', '.join(PRESETS)}{nearest(preset, PRESETS)}"
            )
        self.model, self.preset = model, preset

    def prepare(self) -> None:
        """Load the network."""
        viclip_encoder(self.model).net.on("cpu")

    def score(self, sample: EditedSample) -> tuple[float, ...]:
        """Direction, agreement with the caption, and 1 where there is no direction.

        Raises:
            InputError: There is no caption of the edited clip, or the clip is too short for the preset.
        """
        encoder, device = viclip_encoder(self.model), sample.edited.device
        edited_caption = caption_of(sample)
        try:
            edited = encoder.video(sample.edited, self.preset)
            source = encoder.video(sample.source, self.preset)
        except InputError as error:
            raise InputError(f"sample {sample.key!r}: {error}") from error
        asked = encoder.sentence(edited_caption, device)
        agreement = float(edited @ asked)
        if not sample.source_caption.strip():
            return float("nan"), agreement, float("nan")
        direction = direction_cosine(edited - source, asked - encoder.sentence(sample.source_caption, device))
        return (0.0, agreement, 1.0) if direction is None else (direction, agreement, 0.0)


def direction_cosine(change: Tensor, asked: Tensor) -> float | None:
    """Cosine between two differences of embeddings (D each); None where one of them is zero."""
    if not change.any() or not asked.any():
        return None
    return float(F.cosine_similarity(change.double(), asked.double(), dim=0))


class ViClipEncoder:
    """Embeddings of length 1 of videos and sentences; the same video or sentence is embedded once.

    Args:
        model: As `ViClip`.
    """

    def __init__(self, model: str) -> None:
        self.net = Frozen(lambda: load_viclip(model_file(model, _WEIGHTS, "give the folder or the file as `model`")))
        self._videos: Recent[Tensor] = Recent(_KEPT)
        self._sentences: Recent[Tensor] = Recent(_KEPT)
        self._tokenizer: Any = None

    def video(self, clip: Tensor, preset: Preset) -> Tensor:
        """Embed a clip F 3 H W, uint8: D.

        Raises:
            InputError: The clip is too short for the preset.
        """

        def embed() -> Tensor:
            net = self.net.on(clip.device)
            frames = clip[frame_indices(len(clip), net.size.frames, preset)]
            return F.normalize(net.embed_video(viclip_pixels(frames, net.size.side, preset)[None])[0], dim=0)

        return self._videos.get((fingerprint(clip), preset, clip.device), embed)

    def sentence(self, sentence: str, device: torch.device) -> Tensor:
        """Embed a sentence, cut to 32 tokens of which the last is the end's: D."""

        def embed() -> Tensor:
            net = self.net.on(device)
            tokens = self._tokenize(sentence, net.size.tokens).to(device)
            return F.normalize(net.embed_tokens(tokens)[0], dim=0)

        return self._sentences.get((sentence, device), embed)

    def _tokenize(self, sentence: str, length: int) -> Tensor:
        from open_clip import SimpleTokenizer  # CLIP's vocabulary; pads with zeros and keeps the end token, as ViCLIP

        self._tokenizer = self._tokenizer or SimpleTokenizer()
        return self._tokenizer([sentence], context_length=length)


@lru_cache(maxsize=2)
def viclip_encoder(model: str) -> ViClipEncoder:
    """The one encoder of a ViCLIP in this process; it loads when it is first used."""
    return ViClipEncoder(model)


def frame_indices(count: int, wanted: int, preset: Preset) -> list[int]:
    """The frames of a clip of `count` frames that are seen; see `ViClip`.

    Raises:
        InputError: The official rule needs as many frames as it takes.
    """
    if preset == "clip":
        return [i * count // wanted for i in range(wanted)]
    if count < wanted:
        raise InputError(
            f"ViCLIP's official frame rule needs {wanted} frames and the clip has {count}; use preset 'clip'"
        )
    return list(range(0, count, count // wanted))[:wanted]


def viclip_pixels(frames: Tensor, side: int, preset: Preset) -> Tensor:
    """Frames T 3 H W, uint8 -> normalised float32 T 3 side side; see `ViClip`.

    The official demo's OpenCV resizes in fixed point; this is at most one level of 255 away.
    """
    if preset == "official":
        small = F.interpolate(frames.float(), size=(side, side), mode="bilinear", align_corners=False).round()
        mean, std = (torch.tensor(values, device=frames.device)[:, None, None] for values in _IMAGENET)
        return (small / 255 - mean) / std
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    square = {"height": side, "width": side}
    return clip_pixels(frames, CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=square), (side, side))


def load_viclip(path: Path) -> "ViClipNet":
    """Read a released ViCLIP: 447 weights for L/14, in `.safetensors` or under `model` in a `.pth`.

    Raises:
        InputError: The file is absent, or holds something else.
    """
    from insvie_lightning.nets.viclip import ViClipNet, ViClipSize
    from insvie_lightning.weights.checks import require_fit
    from insvie_lightning.weights.sat_checkpoint import read_tensors

    state, _ = read_tensors(path)
    try:
        net = ViClipNet(ViClipSize.of(state))
    except KeyError as error:
        raise InputError(f"{path} holds the weights of another model than ViCLIP: it has no {error}") from error
    require_fit(state, net.state_dict(), str(path))
    net.load_state_dict(state)
    return net
