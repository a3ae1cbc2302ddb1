"""Three-branch guidance: how strongly the result follows the source video and the sentence.

Branches are written (video, text): uu has neither, cu the source only, cc both.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Guidance:
    """InstructPix2Pix guidance: v = v_uu + s_V (v_cu - v_uu) + s_T (v_cc - v_cu).

    This is the form of the released code. The paper prints v_cc - v_uu in the last term (Eq. 2), which would push the
    source by an extra s_T: Eq. 2 with (s_V, s_T) equals this form with (s_V + s_T, s_T).

    The released code lets both scales oscillate with the timestep, s_T in 1..8.5 and s_V in 1..2.2; the defaults here
    are their means over its 50 steps. The paper gives no numbers.

    Attributes:
        guidance_scale: s_T; 1 turns text guidance off.
        video_guidance_scale: s_V; 1 turns video guidance off.
    """

    guidance_scale: float = 4.5
    video_guidance_scale: float = 1.6

    def weights(self) -> tuple[float, float, float]:
        """Weights of the branches uu, cu, cc; they sum to 1."""
        return 1 - self.video_guidance_scale, self.video_guidance_scale - self.guidance_scale, self.guidance_scale


def guided(
    denoise: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    source_latents: Tensor,
    prompt_embeds: Tensor,
    guidance: Guidance,
) -> Callable[[Tensor, Tensor], Tensor]:
    """Bind conditions and guidance to a network.

    Branches of weight zero are not computed; the others run as one batch.

    Args:
        denoise: (z_t, source latents, prompt embeddings, timesteps) -> velocity, on any batch size.
        source_latents: B T C H W.
        prompt_embeds: B L D.
        guidance: The scales.

    Returns:
        (z_t, timestep) -> guided velocity, for `sampling.sample`.
    """
    keeps_video, keeps_text = (0.0, 1.0, 1.0), (0.0, 0.0, 1.0)
    used = [i for i, weight in enumerate(guidance.weights()) if abs(weight) > 1e-8]
    weights = [guidance.weights()[i] for i in used]
    sources = torch.cat([source_latents * keeps_video[i] for i in used])
    prompts = torch.cat([prompt_embeds * keeps_text[i] for i in used])

    def branch_sum(noisy: Tensor, timestep: Tensor) -> Tensor:
        stacked = torch.cat([noisy] * len(used))
        branches = denoise(stacked, sources, prompts, timestep.expand(len(stacked))).float().chunk(len(used))
        return torch.stack([weight * branch for weight, branch in zip(weights, branches, strict=True)]).sum(0)

    return branch_sum
