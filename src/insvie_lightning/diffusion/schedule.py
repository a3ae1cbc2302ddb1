"""The noising process and its three parametrisations.

Notation: abar is the cumulative product of alphas (`alphas_cumprod` of a diffusers scheduler), a = sqrt(abar). With
CogVideoX's zero-terminal-SNR schedule a(999) = 0: the last timestep is pure noise, which is why the network predicts
the velocity v (Salimans and Ho, 2022) and not the noise.
"""

import torch
from torch import Tensor

NUM_TRAIN_TIMESTEPS = 1000
"""Length of CogVideoX's table of abar: timestep 0 is cleanest, 999 pure noise."""


def _signal_and_noise(alphas_cumprod: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """A and sqrt(1 - a^2) of each sample, shaped to broadcast over `like`; taken before rounding to its dtype."""
    abar = alphas_cumprod.reshape(-1, *[1] * (like.ndim - 1))
    return abar.sqrt().to(like.dtype), (1 - abar).sqrt().to(like.dtype)


def add_noise(latents: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """Noise the latents: z_t = a z_0 + sqrt(1 - a^2) eps; `alphas_cumprod` holds abar of each sample, shape B."""
    signal, sigma = _signal_and_noise(alphas_cumprod, latents)
    return signal * latents + sigma * noise


def velocity(latents: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """Target of the network: v = a eps - sqrt(1 - a^2) z_0."""
    signal, sigma = _signal_and_noise(alphas_cumprod, latents)
    return signal * noise - sigma * latents


def clean_from_velocity(noisy: Tensor, prediction: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """Solve for the clean latents: z_0 = a z_t - sqrt(1 - a^2) v."""
    signal, sigma = _signal_and_noise(alphas_cumprod, noisy)
    return signal * noisy - sigma * prediction


def stratified_timesteps(
    batch: int, num_train_timesteps: int, rank: int, world_size: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draw B timesteps so that the ranks of a step cover the whole range evenly.

    The ranks are split into the largest number of groups G = world_size / i that divides `num_train_timesteps`; group
    g draws uniformly from [g N / G, (g + 1) N / G). One rank draws from everything (released InsViE, sigma_sampling).
    """
    groups = next(
        world_size // i
        for i in range(1, world_size + 1)
        if world_size % i == 0 and num_train_timesteps % (world_size // i) == 0
    )
    width = num_train_timesteps // groups
    group = rank * groups // world_size
    return group * width + torch.randint(
        width, (batch,), generator=generator, device=generator.device if generator else None
    )
