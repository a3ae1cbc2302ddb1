"""Three-branch guidance: how strongly the result follows the source video and the sentence.

Branches are written (video, text): uu has neither, cu the source only, cc both.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor

from insvie_lightning.diffusion.schedule import NUM_TRAIN_TIMESTEPS
from insvie_lightning.errors import InputError, nearest

Form = Literal["instruct_pix2pix", "paper_eq2"]
Schedule = Literal["constant", "cosine_ramp", "oscillating"]
CC = 2
"""The branch that sees both; uu is 0, cu is 1."""


@dataclass(frozen=True)
class Guidance:
    """How the branches are mixed, and how the two scales s_T and s_V change over the steps.

    Forms:

    - `instruct_pix2pix`: v = v_uu + s_V (v_cu - v_uu) + s_T (v_cc - v_cu); also the form of the released code.
    - `paper_eq2`: v = v_uu + s_V (v_cu - v_uu) + s_T (v_cc - v_uu), as the paper prints it. It pushes the source by an
      extra s_T: with (s_V, s_T) it equals the first form with (s_V + s_T, s_T).

    Schedules; f = (1 - cos(pi u^exponent)) / 2 lies in 0..1, u depends on timestep t (999 is noise) and the number of
    steps n:

    - `constant`: the scales as they are. The defaults are near the means of the released schedule over its 50 steps;
      the paper gives no numbers.
    - `cosine_ramp`: 1 + scale f with u = 1 - (t + 1) / 1000, the share of the way that is done: from 1 up to 1 + scale.
    - `oscillating`: 1 + scale f with u = (n - t) / n, as released (DynamicCFG, and `use_dynamic_cfg` of diffusers). A
      timestep stands where a step number was meant, so f jumps up and down. The released scales are 7.5 for text and
      1.2 for video, with n = 50: s_T in 1..8.5 and s_V in 1..2.2.

    Attributes:
        guidance_scale: Of the text, from 0; s_T itself or, in the last two schedules, what is added to 1 at most.
        video_guidance_scale: Of the source video, likewise.
        form: How the branches are mixed.
        schedule: How the scales change over the steps.
        exponent: Of the last two schedules, 1 or more; 5 in the released code.
        reuse: Compute the branches uu and cu at every so many-th step only; in between stands what they differed by
            from cc. 1 is exact, 2 or 3 of 50 steps need 100 or 84 evaluations instead of 150. As FasterCache does with
            two branches (CFG-Cache, arXiv 2410.19355; without its weighting of frequencies).
        step_cache: Leave out all blocks of the network but the first at steps where what that one adds differs by less
            than this share from the last step that computed all, and add again what they added then (First Block
            Cache of diffusers). 0 is exact; 0.05 to 0.2 are usual. One decision is for a whole batch.
    """

    guidance_scale: float = 4.5
    video_guidance_scale: float = 1.6
    form: Form = "instruct_pix2pix"
    schedule: Schedule = "constant"
    exponent: int = 5
    reuse: int = 1
    step_cache: float = 0.0

    def __post_init__(self) -> None:
        for name in ("guidance_scale", "video_guidance_scale", "step_cache"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise InputError(f"guidance.{name} is {value}; legal are finite values from 0")
        for name, kind in (("form", Form), ("schedule", Schedule)):
            value, legal = getattr(self, name), get_args(kind)
            if value not in legal:
                raise InputError(f"guidance.{name} is {value!r}; legal are {', '.join(legal)}{nearest(value, legal)}")
        for name in ("exponent", "reuse"):
            value = getattr(self, name)
            if value != int(value) or value < 1:
                raise InputError(f"guidance.{name} is {value}; legal are whole numbers from 1")

    def scales(self, timestep: int, num_inference_steps: int) -> tuple[float, float]:
        """s_T and s_V at a timestep of a run of so many steps."""
        if self.schedule == "constant":
            return self.guidance_scale, self.video_guidance_scale
        if self.schedule == "cosine_ramp":
            position = 1 - (timestep + 1) / NUM_TRAIN_TIMESTEPS
        else:
            position = (num_inference_steps - timestep) / num_inference_steps
        factor = (1 - math.cos(math.pi * position**self.exponent)) / 2
        return 1 + self.guidance_scale * factor, 1 + self.video_guidance_scale * factor

    def weights(self, timestep: int, num_inference_steps: int) -> tuple[float, float, float]:
        """Weights of the branches uu, cu, cc at a timestep; they sum to 1."""
        text, video = self.scales(timestep, num_inference_steps)
        if self.form == "paper_eq2":
            video += text
        return 1 - video, video - text, text

    def branches(self, timestep: int, num_inference_steps: int) -> list[int]:
        """Which of uu, cu, cc (0, 1, 2) have a weight at a timestep and must be computed."""
        weights = self.weights(timestep, num_inference_steps)
        return [branch for branch, weight in enumerate(weights) if abs(weight) > 1e-8]


class BranchPlan:
    """Says step by step which branches must be computed, for guidance that may reuse what they differ by.

    Args:
        guidance: Form, schedule, scales and reuse.
        num_inference_steps: Number of sampler steps.
    """

    def __init__(self, guidance: Guidance, num_inference_steps: int) -> None:
        self._guidance = guidance
        self._steps = num_inference_steps
        self._kept: list[int] = []
        self._age = 0

    def next(self, timestep: int) -> list[int]:
        """Which of uu, cu, cc (0, 1, 2) to compute at the next step; cc alone if the others are reused."""
        needed = self._guidance.branches(timestep, self._steps)
        if self._guidance.reuse == 1:
            return needed
        self._age += 1
        if self._kept and self._age < self._guidance.reuse and {*needed} <= {*self._kept, CC}:
            return [CC]
        self._kept, self._age = sorted({*needed, CC}), 0
        return self._kept


def guided(
    denoise: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    source_latents: Tensor,
    prompt_embeds: Tensor,
    guidance: Guidance,
    num_inference_steps: int,
) -> Callable[[Tensor, Tensor], Tensor]:
    """Bind conditions and guidance to a network.

    Branches of weight zero are not computed, step by step; the others run as one batch. What is returned remembers
    what `reuse` needs, so it serves one run of the sampler.

    Args:
        denoise: (z_t, source latents, prompt embeddings, timesteps) -> velocity, on any batch size.
        source_latents: B T C H W.
        prompt_embeds: B L D.
        guidance: Form, schedule and scales.
        num_inference_steps: Number of sampler steps.

    Returns:
        (z_t, timestep) -> guided velocity, for `sampling.sample`.
    """
    keeps_video, keeps_text = (0.0, 1.0, 1.0), (0.0, 0.0, 1.0)

    @cache  # the same tensors at every step, so that what is computed of them can be kept
    def conditions(used: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        sources = torch.cat([source_latents * keeps_video[branch] for branch in used])
        return sources, torch.cat([prompt_embeds * keeps_text[branch] for branch in used])

    plan = BranchPlan(guidance, num_inference_steps)
    differences: dict[int, Tensor] = {}

    def branch_sum(noisy: Tensor, timestep: Tensor) -> Tensor:
        weights = guidance.weights(int(timestep), num_inference_steps)
        used = plan.next(int(timestep))
        sources, prompts = conditions(tuple(used))
        stacked = torch.cat([noisy] * len(used))
        chunks = denoise(stacked, sources, prompts, timestep.expand(len(stacked))).float().chunk(len(used))
        velocities = dict(zip(used, chunks, strict=True))
        if guidance.reuse == 1:
            return torch.stack([weights[i] * velocity for i, velocity in velocities.items()]).sum(0)
        differences.update({i: velocity - velocities[CC] for i, velocity in velocities.items() if i != CC})
        # The weights sum to 1.
        return velocities[CC] + sum(weights[i] * difference for i, difference in differences.items())

    return branch_sum
