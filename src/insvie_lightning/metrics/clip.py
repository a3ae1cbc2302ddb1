"""CLIP scores of edited clips: consistency of the frames in both published definitions, and agreement with a caption.

One encoding of a clip serves all metrics that name the same CLIP and see the frames alike.
"""

from functools import lru_cache
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from insvie_lightning.errors import InputError
from insvie_lightning.metrics.per_sample import EditedSample, PerSample
from insvie_lightning.nets.clip_encoder import ClipEncoder, TransformersClip, load_open_clip, load_transformers_clip
from insvie_lightning.nets.clip_pixels import Preprocessing
from insvie_lightning.nets.hub import model_folder

OPENAI_CLIP = "openai/clip-vit-large-patch14"
"""The CLIP of TGVE's and V2VBench's tables."""
PICKSCORE = "yuvalkirstain/PickScore_v1"
PICKSCORE_PROCESSOR = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
"""Where TGVE's and V2VBench's PickScore takes tokenizer and pixels from."""

_PROCESSOR_FILES = [
    "preprocessor_config.json",
    "vocab.json",
    "merges.txt",
    "tokenizer*.json",
    "special_tokens_map.json",
]
_FILES = ["config.json", "model.safetensors", *_PROCESSOR_FILES]
_OPEN_CLIP_FILES = [
    "open_clip_config.json",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "*.txt",
    "tok*",
]
_ADVICE = "give the folder as `model`, or `toy` for the CLIP of the toy world"


class ClipFrame(PerSample):
    """How alike the frames of an edit are: TGVE's CLIPFrame, about 0.9 to 1, not times 100.

    The mean cosine over all pairs of different frames, of projected image embeddings [TGVE `run_eval.py`; EVE Table 1,
    InstructVEdit Table 1, InsViE Table 6]. Still and unedited videos score best: compare with `source_clip_frame`.
    `ClipTemporal` is another metric. A clip of one frame has no value.

    Args:
        model: A folder, a hub id, either of them after `open_clip:` for open_clip's layout, or `toy`.
        preprocessing: See `nets.clip_pixels.Preprocessing`.
        tgve_square: Resize frames to 480 x 480 first, as TGVE's script does; its own videos have that size.
        with_source: Also score the unedited source.
    """

    names = ("clip_frame",)
    source_names = names
    higher_is_better = True

    def __init__(
        self,
        model: str = OPENAI_CLIP,
        preprocessing: Preprocessing = "pil",
        tgve_square: bool = False,
        with_source: bool = True,
    ) -> None:
        super().__init__(with_source)
        self.model, self.preprocessing, self.tgve_square = model, preprocessing, tgve_square

    def prepare(self) -> None:
        """Load the CLIP."""
        clip_encoder(self.model).net.on("cpu")

    def score(self, sample: EditedSample) -> tuple[float, ...]:
        """The mean over all pairs."""
        frames = clip_encoder(self.model).frames(sample.edited, self.preprocessing, self.tgve_square)
        return (all_pairs_cosine(frames.projected),)


class ClipTemporal(PerSample):
    """How alike neighbouring frames of an edit are: V2VBench's CLIP consistency, in 0..1.

    The mean of max(0, cosine) over consecutive frames, of pooled image embeddings before their projection [V2VBench
    `clip_consistency.py`; InsViE Table 4 follows it]. `ClipFrame` is another metric. A clip of one frame has no value.

    Args:
        model: As `ClipFrame`.
        preprocessing: As `ClipFrame`.
        with_source: Also score the unedited source.
    """

    names = ("clip_temporal",)
    source_names = names
    higher_is_better = True

    def __init__(
        self, model: str = OPENAI_CLIP, preprocessing: Preprocessing = "pil", with_source: bool = True
    ) -> None:
        super().__init__(with_source)
        self.model, self.preprocessing = model, preprocessing

    def prepare(self) -> None:
        """Load the CLIP."""
        clip_encoder(self.model).net.on("cpu")

    def score(self, sample: EditedSample) -> tuple[float, ...]:
        """The mean over consecutive pairs."""
        frames = clip_encoder(self.model).frames(sample.edited, self.preprocessing)
        return (consecutive_cosine(frames.pooled),)


class ClipText(PerSample):
    """How well the frames of an edit match the caption of the edited clip: exp(logit_scale) times the mean cosine.

    About 20 to 35 with OpenAI's weights, whose scale is 100 [TGVE `run_eval.py`, V2VBench `clip_text_alignment.py`].
    The caption says what the edited clip should show; the instruction is not looked at.

    Args:
        model: As `ClipFrame`.
        preprocessing: As `ClipFrame`.
        tgve_square: As `ClipFrame`.
        with_source: Also score the unedited source against the same caption.
    """

    names = ("clip_text",)
    source_names = names
    reads_captions = True
    higher_is_better = True

    def __init__(
        self,
        model: str = OPENAI_CLIP,
        preprocessing: Preprocessing = "pil",
        tgve_square: bool = False,
        with_source: bool = True,
    ) -> None:
        super().__init__(with_source)
        self.model, self.preprocessing, self.tgve_square = model, preprocessing, tgve_square

    def prepare(self) -> None:
        """Load the CLIP."""
        clip_encoder(self.model).net.on("cpu")

    def score(self, sample: EditedSample) -> tuple[float, ...]:
        """The mean over frames.

        Raises:
            InputError: The sample has no caption of the edited clip.
        """
        encoder = clip_encoder(self.model)
        return (caption_score(encoder, sample, self.preprocessing, self.tgve_square),)


class PickScore(PerSample):
    """How people would like the frames of an edit for its caption: exp(logit_scale) times the mean cosine, about 20.

    `ClipText` with weights trained on people's choices among generated images [TGVE `run_eval.py`, V2VBench
    `pick_score.py`].

    Args:
        model: As `ClipFrame`.
        processor: Folder or hub id of tokenizer and pixels, where the model's folder has none.
        preprocessing: As `ClipFrame`.
        tgve_square: As `ClipFrame`.
        with_source: Also score the unedited source against the same caption.
    """

    names = ("pick_score",)
    source_names = names
    reads_captions = True
    higher_is_better = True

    def __init__(
        self,
        model: str = PICKSCORE,
        processor: str = PICKSCORE_PROCESSOR,
        preprocessing: Preprocessing = "pil",
        tgve_square: bool = False,
        with_source: bool = True,
    ) -> None:
        super().__init__(with_source)
        self.model, self.processor = model, processor
        self.preprocessing, self.tgve_square = preprocessing, tgve_square

    def prepare(self) -> None:
        """Load the network."""
        clip_encoder(self.model, self.processor).net.on("cpu")

    def score(self, sample: EditedSample) -> tuple[float, ...]:
        """The mean over frames.

        Raises:
            InputError: The sample has no caption of the edited clip.
        """
        encoder = clip_encoder(self.model, self.processor)
        return (caption_score(encoder, sample, self.preprocessing, self.tgve_square),)


@lru_cache(maxsize=4)
def clip_encoder(model: str, processor: str = "") -> ClipEncoder:
    """The one encoder of a CLIP in this process; it loads when it is first used.

    Args:
        model: A folder, a hub id, either of them after `open_clip:`, or `toy`.
        processor: Folder or hub id of tokenizer and preprocessing, where the model's folder has none.
    """
    if model == "toy":
        from insvie_lightning.toy.clip import load_toy_clip

        return ClipEncoder(load_toy_clip)
    if model.startswith("open_clip:"):
        name = model.removeprefix("open_clip:")
        return ClipEncoder(lambda: load_open_clip(model_folder(name, _OPEN_CLIP_FILES, _ADVICE)))

    def load() -> TransformersClip:
        folder = model_folder(model, _FILES, _ADVICE)
        elsewhere = processor and _lacks_processor(folder)
        return load_transformers_clip(folder, _processor_folder(processor) if elsewhere else folder)

    return ClipEncoder(load)


def caption_of(sample: EditedSample) -> str:
    """What the edited clip should show.

    Raises:
        InputError: The sample does not say.
    """
    if not sample.edited_caption.strip():
        raise InputError(
            f"sample {sample.key!r} has no caption of the edited clip; scores against text compare with what the edit "
            "should show, not with the instruction: give its edited_caption"
        )
    return sample.edited_caption


def caption_score(encoder: ClipEncoder, sample: EditedSample, preprocessing: Preprocessing, tgve_square: bool) -> float:
    """exp(logit_scale) times the mean cosine between the edited frames and their caption.

    Raises:
        InputError: The sample has no caption of the edited clip.
    """
    caption, device = caption_of(sample), sample.edited.device
    frames = encoder.frames(sample.edited, preprocessing, tgve_square).projected
    cosines = F.cosine_similarity(frames, encoder.sentence(caption, device)[None])
    return encoder.logit_scale(device) * float(cosines.mean())


def all_pairs_cosine(embeddings: Tensor) -> float:
    """Mean cosine over all pairs of different rows of F D, nan if F is 1: (|sum of unit rows|^2 - F) / (F (F - 1))."""
    count = len(embeddings)
    if count < 2:
        return float("nan")
    total = F.normalize(embeddings.double()).sum(0)
    return float((total.square().sum() - count) / (count * (count - 1)))


def consecutive_cosine(embeddings: Tensor) -> float:
    """Mean of max(0, cosine) over consecutive rows of F D, nan if F is 1."""
    if len(embeddings) < 2:
        return float("nan")
    return float(F.cosine_similarity(embeddings[1:], embeddings[:-1]).clamp(min=0).mean())


def _lacks_processor(folder: Path) -> bool:
    tokenizers = (folder / "tokenizer.json", folder / "vocab.json")
    return not ((folder / "preprocessor_config.json").is_file() and any(path.is_file() for path in tokenizers))


def _processor_folder(name: str) -> Path:
    return model_folder(name, _PROCESSOR_FILES, "give the folder as `processor`")
