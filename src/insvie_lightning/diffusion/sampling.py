"""The denoising loop: a network in velocity form, a scheduler of diffusers' interface, a start."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler
from torch import Tensor

from insvie_lightning.diffusion.released_dpm import ReleasedDPMScheduler
from insvie_lightning.errors import InputError, nearest

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(z_t of shape B T C h w, timestep scalar) -> velocity of the shape of z_t."""

Sampler = Literal["dpm", "ddim", "released"]
SAMPLERS: dict[str, Any] = {
    "dpm": CogVideoXDPMScheduler,
    "ddim": CogVideoXDDIMScheduler,
    "released": ReleasedDPMScheduler,
}


def build_scheduler(sampler: Sampler, config: Mapping[str, Any]) -> Any:
    """The scheduler of a sampler's name, with the schedule that the base's own scheduler is configured to.

    Raises:
        InputError: There is no sampler of that name.
    """
    if sampler not in SAMPLERS:
        raise InputError(f"sampler is {sampler!r}; legal are {', '.join(SAMPLERS)}{nearest(sampler, SAMPLERS)}")
    return SAMPLERS[sampler].from_config(config)


@torch.no_grad()
def sample(
    denoise: Denoiser,
    scheduler: Any,
    noise: Tensor,
    num_inference_steps: int,
    generator: torch.Generator | list[torch.Generator] | None = None,
    step_noises: Sequence[Tensor] | None = None,
) -> Tensor:
    """Turn noise B T C h w into latents by `num_inference_steps` steps of a CogVideoX scheduler.

    Args:
        denoise: The network, conditions and guidance bound.
        scheduler: One of `SAMPLERS`, v-prediction; its state is overwritten.
        noise: Standard normal start; kept in float32.
        num_inference_steps: Number of network evaluations.
        generator: Noise of stochastic schedulers (DPM); a list has one for each sample.
        step_noises: Recorded noise of every step but the last, B T C h w each, instead of draws; `released` only.

    Raises:
        InputError: The scheduler cannot replay `step_noises`, or not make so few steps.
    """
    if step_noises is not None and not isinstance(scheduler, ReleasedDPMScheduler):
        raise InputError(f"step_noises can be replayed by the sampler released, not by {type(scheduler).__name__}")
    scheduler.set_timesteps(num_inference_steps, device=noise.device)
    latents = noise * scheduler.init_noise_sigma
    timesteps, old_clean = scheduler.timesteps, None
    for i, timestep in enumerate(timesteps):
        prediction = denoise(scheduler.scale_model_input(latents, timestep), timestep).float()
        if isinstance(scheduler, CogVideoXDPMScheduler):
            previous = timesteps[i - 1] if i > 0 else None
            recorded = step_noises[i] if step_noises is not None and i < len(timesteps) - 1 else None
            latents, old_clean = scheduler.step(
                prediction, old_clean, timestep, previous, latents,
                generator=generator, variance_noise=recorded, return_dict=False,
            )  # fmt: skip
        else:
            latents = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
    return latents
