"""The denoising loop: a network in velocity form, a diffusers scheduler, a start."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(z_t of shape B T C h w, timestep scalar) -> velocity of the shape of z_t."""


@torch.no_grad()
def sample(
    denoise: Denoiser,
    scheduler: Any,
    noise: Tensor,
    num_inference_steps: int,
    generator: torch.Generator | list[torch.Generator] | None = None,
) -> Tensor:
    """Turn noise B T C h w into latents by `num_inference_steps` steps of a CogVideoX scheduler of diffusers.

    Args:
        denoise: The network, conditions and guidance bound.
        scheduler: `CogVideoXDDIMScheduler` or `CogVideoXDPMScheduler`, v-prediction; its state is overwritten.
        noise: Standard normal start; kept in float32.
        num_inference_steps: Number of network evaluations.
        generator: Noise of stochastic schedulers (DPM); a list has one for each sample.
    """
    scheduler.set_timesteps(num_inference_steps, device=noise.device)
    latents = noise * scheduler.init_noise_sigma
    timesteps, old_clean = scheduler.timesteps, None
    for i, timestep in enumerate(timesteps):
        prediction = denoise(scheduler.scale_model_input(latents, timestep), timestep).float()
        if type(scheduler).__name__ == "CogVideoXDPMScheduler":
            previous = timesteps[i - 1] if i > 0 else None
            latents, old_clean = scheduler.step(
                prediction, old_clean, timestep, previous, latents, generator=generator, return_dict=False
            )
        else:
            latents = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
    return latents
