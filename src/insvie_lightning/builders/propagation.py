"""From an edited first frame to an edited clip: the source is inverted once, and regenerated for each edit of it."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from insvie_lightning.builders.drafts import seed_of
from insvie_lightning.diffusion.inversion import Extrapolation, invert, match_first_frame, normalise, regenerate
from insvie_lightning.errors import InputError, nearest
from insvie_lightning.nets.recent import Recent, fingerprint
from insvie_lightning.nets.stable_video import Condition, StableVideo, check_sampling

Normalization = Literal["both", "released", "none"]


@dataclass(frozen=True)
class Propagation:
    """How an edited first frame is carried through a clip by Stable Video Diffusion, after Videoshop.

    The InsViE paper (section 3.1) cites Videoshop (arXiv 2403.14617) and AnyV2V for this step and gives no numbers;
    where not said otherwise the defaults are those of Videoshop's released `run.py`.

    Normalizations of latents (mean 0, standard deviation 1 in every frame):

    - `both`: source latents, and the first frame's latents in inversion and generation. The source comes back if its
      first frame is not edited.
    - `released`: as `both`, but the generation sees the edited frame's latents as they are, as Videoshop's code has it.
    - `none`: nothing is normalised, and the result's first frame is not matched to the edited one.

    Attributes:
        num_inference_steps: Of the whole schedule.
        strength: Share of it, from its end, that is inverted and regenerated; above 0, and 1 is all.
        min_guidance_scale: Of the first frame, in the generation; the inversion has none.
        max_guidance_scale: Of the last frame; scales in between rise evenly.
        fps: Frames per second that the network is told; Videoshop tells it so of any video.
        motion_bucket_id: From 0, hardly any motion, to 255.
        noise_aug_strength: Standard deviation of the noise on the first frame, in pixels of [-1, 1].
        extrapolation: How the inversion guesses (see `diffusion.inversion.invert`); Videoshop's code is `released`,
            its paper, and the default here, is `linear`, which gives an unedited source back.
        refinements: See `invert`; 0 in Videoshop.
        normalization: As above.
        chunk: Frames that the autoencoder sees at once; fewer need less memory and may flicker.
    """

    num_inference_steps: int = 25
    strength: float = 0.55
    min_guidance_scale: float = 4.0
    max_guidance_scale: float = 4.0
    fps: int = 7
    motion_bucket_id: int = 127
    noise_aug_strength: float = 0.2
    extrapolation: Extrapolation = "linear"
    refinements: int = 0
    normalization: Normalization = "both"
    chunk: int = 8

    def __post_init__(self) -> None:
        for name, kind in (("extrapolation", Extrapolation), ("normalization", Normalization)):
            value, legal = getattr(self, name), get_args(kind)
            if value not in legal:
                raise InputError(f"{name} is {value!r}; legal are {', '.join(legal)}{nearest(value, legal)}")
        if not 0 < self.strength <= 1 or self.start == self.num_inference_steps:
            raise InputError(
                f"strength is {self.strength} of {self.num_inference_steps} steps; legal are shares that make 1 step "
                "or more, up to 1"
            )
        for name, least in (("refinements", 0), ("chunk", 1), ("noise_aug_strength", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; legal is {least} or more")
        scales = self.min_guidance_scale, self.max_guidance_scale
        check_sampling(self.num_inference_steps, *scales, self.fps, self.motion_bucket_id)

    @property
    def start(self) -> int:
        """Number of the step of the schedule up to which the source is inverted."""
        return self.num_inference_steps - int(self.num_inference_steps * self.strength)


@dataclass(frozen=True, slots=True)
class Inverted:
    """A source that was inverted.

    Attributes:
        latents: 1 T C h w at the noise level of the first step of the generation.
        mean: 1 T 1 1 1, of the source's latents before they were normalised; 0 where they were not.
        std: 1 T 1 1 1, likewise; 1 where they were not.
        noise: 3 H W, what the first frame is disturbed by in inversion and generation alike.
    """

    latents: Tensor
    mean: Tensor
    std: Tensor
    noise: Tensor


class Propagator:
    """Edits clips by their first frames; the last few inversions are kept for further edits of the same clip.

    Args:
        model: On its device.
        settings: How.
        seed: Of the noise on the first frame; it is drawn by the clip's content, so that its edits share it.
        kept: Inversions that are kept, about 4 MB each at 25 frames of 576 x 1024.
    """

    def __init__(self, model: StableVideo, settings: Propagation, seed: int = 0, kept: int = 8) -> None:
        self.model, self.settings, self.seed = model, settings, seed
        self._inverted: Recent[Inverted] = Recent(kept)

    def edit(self, source: np.ndarray, edited_first: np.ndarray) -> np.ndarray:
        """The edited clip, F 3 H W, uint8, of a source F 3 H W and its edited first frame 3 H W.

        Heights and widths are multiples of the model's `factor`. The same input gives the same output on one device.
        """
        settings, model = self.settings, self.model
        clip = torch.from_numpy(source)
        content = fingerprint(clip)
        inverted = self._inverted.get(content, lambda: self._invert(clip, seed_of(self.seed, content)))
        first = torch.from_numpy(edited_first)
        condition = self._condition(first, inverted.noise)
        if settings.normalization == "both":
            condition = self._normalised(condition)
        scales = settings.min_guidance_scale, settings.max_guidance_scale
        network = model.network(condition, settings.num_inference_steps, *scales)
        sigmas, _ = model.schedule(settings.num_inference_steps)
        latents = regenerate(network, inverted.latents, sigmas, settings.start) * inverted.std + inverted.mean
        if settings.normalization != "none":
            latents = match_first_frame(latents, model.encode(first[None], 1)[:, 0])
        return model.decode(latents, settings.chunk).numpy()

    def _invert(self, source: Tensor, seed: int) -> Inverted:
        settings, model = self.settings, self.model
        generator = torch.Generator().manual_seed(seed)  # on the CPU, so that every device draws the same
        noise = torch.randn(source.shape[1:], generator=generator)
        condition = self._condition(source[0], noise)
        clean = model.encode(source, settings.chunk)
        mean, std = torch.zeros_like(clean[..., :1, :1, :1]), torch.ones_like(clean[..., :1, :1, :1])
        if settings.normalization != "none":
            clean, mean, std = normalise(clean)
            condition = self._normalised(condition)
        network = model.network(condition, settings.num_inference_steps)
        sigmas, _ = model.schedule(settings.num_inference_steps)
        aside = torch.randn(clean.shape, generator=generator).to(clean.device)
        latents = invert(network, clean, sigmas, settings.start, settings.extrapolation, settings.refinements, aside)
        return Inverted(latents, mean, std, noise)

    def _condition(self, first: Tensor, noise: Tensor) -> Condition:
        told = self.settings
        return self.model.condition(first, noise, told.fps, told.motion_bucket_id, told.noise_aug_strength)

    def _normalised(self, condition: Condition) -> Condition:
        """The condition with normalised latents of the size that unscaled ones have (`run.py` of Videoshop)."""
        latents, _, _ = normalise(condition.latents[:, None])
        scale = self.model.pipeline.vae.config.scaling_factor
        return Condition(condition.embedding, latents[:, 0] / scale, condition.time_ids)
