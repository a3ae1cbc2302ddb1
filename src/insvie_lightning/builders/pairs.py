"""The pair route: an edited image pair that belongs together becomes a source clip and its edit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from insvie_lightning.batch import Clip, Draft, Rejected, Triplet
from insvie_lightning.builders.builder import Builder, Built
from insvie_lightning.builders.drafts import edited_picture, seed_of, still_picture
from insvie_lightning.builders.propagation import Propagation, Propagator
from insvie_lightning.builders.videos import check_size
from insvie_lightning.diffusion.inversion import regenerate
from insvie_lightning.errors import InputError
from insvie_lightning.nets.stable_video import SVD, Precision, StableVideo, check_sampling
from insvie_lightning.video import fit_clip


class PairEncoder(Protocol):
    """What the selection needs of a CLIP."""

    def frames(self, clip: Tensor) -> Any:
        """Embed pictures F 3 H W, uint8; `projected` of the result is F D, in the space of sentences."""

    def sentence(self, sentence: str, device: torch.device) -> Tensor:
        """Embed a sentence: D."""


@dataclass(frozen=True)
class PairSelection:
    """Which image pairs are worth a video; cosines, each compared where the draft has what it needs.

    The defaults are those by which InstructPix2Pix made its own set (`generate_img_dataset.py` of its released code);
    the InsViE paper (section 3.2) names the two similarities of the images and gives no thresholds.

    Attributes:
        min_image_similarity: Between the images. Lower ones do not show the same scene.
        min_direction: Between the change of the images and the change of the captions, if there are both captions.
        min_caption_similarity: Of each image and its caption, if there is one.
    """

    min_image_similarity: float = 0.7
    min_direction: float = 0.2
    min_caption_similarity: float = 0.2


@dataclass(frozen=True, slots=True)
class PairSimilarity:
    """Cosines of an image pair; None where a caption is missing."""

    image: float
    source_caption: float | None = None
    edited_caption: float | None = None
    direction: float | None = None

    @property
    def known(self) -> dict[str, float]:
        """Score's name -> value, of those that are known."""
        values = {"clip_image": self.image, "clip_direction": self.direction}
        values |= {"clip_source_caption": self.source_caption, "clip_edited_caption": self.edited_caption}
        return {name: round(value, 4) for name, value in values.items() if value is not None}


def pair_similarity(images: Tensor, source_caption: Tensor | None, edited_caption: Tensor | None) -> PairSimilarity:
    """Compare a pair by embeddings.

    Args:
        images: 2 D, of source and edited image; of any length.
        source_caption: D, or None.
        edited_caption: D, or None.
    """
    source, edited = F.normalize(images.double(), dim=-1)
    before, after = (
        None if text is None else F.normalize(text.double(), dim=-1) for text in (source_caption, edited_caption)
    )
    return PairSimilarity(
        image=float(source @ edited),
        source_caption=None if before is None else float(source @ before),
        edited_caption=None if after is None else float(edited @ after),
        direction=None
        if before is None or after is None
        else float(F.cosine_similarity(edited - source, after - before, dim=-1)),
    )


def why_not(similarity: PairSimilarity, selection: PairSelection) -> str:
    """The reason why a pair is not selected, in one sentence; empty if it is."""
    for name, value, least in (
        ("CLIP similarity of the images", similarity.image, selection.min_image_similarity),
        ("directional CLIP similarity", similarity.direction, selection.min_direction),
        ("CLIP similarity of source and caption", similarity.source_caption, selection.min_caption_similarity),
        ("CLIP similarity of edit and caption", similarity.edited_caption, selection.min_caption_similarity),
    ):
        if value is not None and value < least:
            return f"the {name} is {value:.3f}, below {least:g}"
    return ""


@dataclass(frozen=True)
class Animation:
    """How Stable Video Diffusion makes a clip of an image; the defaults are those of its pipeline in diffusers.

    Attributes:
        num_inference_steps: Number of steps.
        min_guidance_scale: Of the first frame; scales rise evenly to the last frame's.
        max_guidance_scale: Of the last frame.
        fps: Frames per second that the clip is to look like, and gets.
        motion_bucket_id: From 0, hardly any motion, to 255.
        noise_aug_strength: Standard deviation of the noise on the image, in pixels of [-1, 1].
    """

    num_inference_steps: int = 25
    min_guidance_scale: float = 1.0
    max_guidance_scale: float = 3.0
    fps: int = 7
    motion_bucket_id: int = 127
    noise_aug_strength: float = 0.02

    def __post_init__(self) -> None:
        scales = self.min_guidance_scale, self.max_guidance_scale
        check_sampling(self.num_inference_steps, *scales, self.fps, self.motion_bucket_id)


def animate(
    model: StableVideo, picture: np.ndarray, frames: int, settings: Animation, seed: int, chunk: int
) -> np.ndarray:
    """A clip F 3 H W, uint8, that begins with about the picture 3 H W (uint8).

    Args:
        model: On its device.
        picture: Height and width are multiples of the model's `factor`.
        frames: F.
        settings: How.
        seed: Of the noise on the picture and of the noise that the clip is made of.
        chunk: Frames that are decoded at once.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(picture.shape, generator=generator)
    told = settings.fps, settings.motion_bucket_id, settings.noise_aug_strength
    condition = model.condition(torch.from_numpy(picture), noise, *told)
    scales = settings.min_guidance_scale, settings.max_guidance_scale
    network = model.network(condition, settings.num_inference_steps, *scales)
    sigmas, _ = model.schedule(settings.num_inference_steps)
    shape = (1, frames, *condition.latents.shape[1:])
    noise = torch.randn(shape, generator=generator).to(model.device)
    start = (sigmas[0] ** 2 + 1) ** 0.5  # as `init_noise_sigma` of diffusers: noise and a picture of variance 1
    return model.decode(regenerate(network, noise * start, sigmas), chunk).numpy()


class BuildPairs(Builder[Draft]):
    """Makes triplets of image pairs, by Stable Video Diffusion (paper, section 3.2).

    A pair that is selected by CLIP gets a source clip out of its source image, and the edited image is carried through
    that as `BuildVideos` does. Every pair is selected where CLIP is not asked (`clip=""`), as the paper does with
    MagicBrush.

    Args:
        output: Shard folder.
        base: As of `BuildVideos`.
        clip: CLIP of the selection, as of `metrics.clip.clip_encoder`; empty selects all.
        selection: What is selected.
        animation: How the source clip is made.
        propagation: How the edit is carried through it.
        frames: Of each clip, two or more.
        size: Height and width of the clips in px, multiples of 8; images of another shape are cut.
        seed: Of all noise, with the key.
        dtype: As of `BuildVideos`.
        low_memory: As of `BuildVideos`.
        shard_size: As of `Builder`.
        max_bad_rate: As of `Builder`.

    Raises:
        InputError: One of them is not legal.
    """

    takes = Draft
    elsewhere = Builder.elsewhere | {"low_memory"}

    def __init__(
        self,
        output: Path,
        base: str = SVD,
        clip: str = "openai/clip-vit-large-patch14",
        selection: PairSelection = PairSelection(),
        animation: Animation = Animation(),
        propagation: Propagation = Propagation(),  # noqa: B008 (frozen)
        frames: int = 25,
        size: tuple[int, int] = (576, 1024),
        seed: int = 0,
        dtype: Precision = "bfloat16",
        low_memory: bool = False,
        shard_size: int = 64,
        max_bad_rate: float = 0.5,
    ) -> None:
        super().__init__(output, shard_size, max_bad_rate)
        if frames < 2:
            raise InputError(f"frames is {frames}; legal are 2 or more")
        self.base, self.clip, self.frames, self.size, self.seed = base, clip, frames, size, seed
        self.selection, self.animation = selection, animation
        self.propagation, self.base_dtype, self.low_memory = propagation, dtype, low_memory
        self.encoder: PairEncoder | None = None
        self._propagator: Propagator | None = None

    def configure_model(self) -> None:
        """Load the models."""
        if self._propagator is None:
            model = StableVideo.load(self.base, self.base_dtype)
            check_size(self.size, model.factor)
            if self.sharing is not None:  # by all ranks, also by those that will have nothing to do
                model.to(self.trainer.strategy.root_device, self.low_memory)
            self._propagator = Propagator(model, self.propagation, self.seed)
        if self.clip and self.encoder is None:
            from insvie_lightning.metrics.clip import clip_encoder

            self.encoder = clip_encoder(self.clip)

    def make(self, drafts: Sequence[Draft]) -> list[Built]:
        """A triplet of origin `pair` for each pair that is selected; the others are rejected with the reason.

        Raises:
            InputError: A source is a video, or has no edit.
        """
        prepared = [(draft, still_picture(draft), edited_picture(draft)) for draft in drafts]
        return [self._build(*parts) for parts in prepared]

    def _build(self, draft: Draft, source: np.ndarray, edited: np.ndarray) -> Triplet | Rejected:
        if self.encoder is not None:
            similarity = self._compare(self.encoder, draft, source, edited)
            draft = replace(draft, scores={**draft.scores, **similarity.known})
            if reason := why_not(similarity, self.selection):
                return Rejected(replace(draft, origin="pair"), reason)
        assert self._propagator is not None
        model = self._propagator.model.to(torch.device(self.device), self.low_memory)
        fps = float(self.animation.fps)
        first, edited_first = (fit_clip(Clip(p[None], fps), self.size).frames[0] for p in (source, edited))
        seed, chunk = seed_of(self.seed, draft.key), self.propagation.chunk
        clip = Clip(animate(model, first, self.frames, self.animation, seed, chunk), fps)
        after = Clip(self._propagator.edit(clip.frames, edited_first), fps)
        lineage = {**draft.lineage, type(self).__name__: {"noise_seed": seed}}
        return replace(draft, origin="pair", lineage=lineage).triplet(clip, after)

    def _compare(self, encoder: PairEncoder, draft: Draft, source: np.ndarray, edited: np.ndarray) -> PairSimilarity:
        device = torch.device(self.device)
        images = encoder.frames(torch.from_numpy(np.stack([source, edited])).to(device)).projected
        captions = (draft.source_caption, draft.edited_caption)
        texts = [encoder.sentence(text, device) if text.strip() else None for text in captions]
        return pair_similarity(images, *texts)
