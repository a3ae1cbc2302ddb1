"""Deterministic inversion through an Euler sampler: from clean latents to the noise that gives them back.

Noise levels are sigma_0 > ... > sigma_{n-1} > sigma_n = 0 of x = z + sigma noise (EDM, arXiv 2206.00364). A step of
the sampler is x_{i+1} = x_i + (sigma_{i+1} - sigma_i) (x_i - D(x_i; sigma_i)) / sigma_i, with the clean estimate
D = c_skip x + c_out F of a v-prediction network F: c_skip = 1 / (sigma^2 + 1), c_out = -sigma / sqrt(sigma^2 + 1), as
`EulerDiscreteScheduler` has it. An inversion solves a step for x_i, which needs F at x_i itself, so that has to be
guessed: by Videoshop's noise extrapolation (arXiv 2403.14617; `euler_discrete_inverse.py` and `model_utils.py` of
its released code).
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

Network = Callable[[Tensor, int], Tensor]
"""(latents at noise level sigma_i, of any shape, not scaled; i) -> F, of their shape."""

Extrapolation = Literal["none", "linear", "released"]


@torch.no_grad()
def invert(
    network: Network,
    clean: Tensor,
    sigmas: Sequence[float],
    start: int = 0,
    extrapolation: Extrapolation = "linear",
    refinements: int = 0,
    noise: Tensor | None = None,
) -> Tensor:
    """Latents at noise level `sigmas[start]` that `regenerate` turns into `clean` again, about.

    The guesses of x_i, with the last known x_{i+1} and the clean z:

    - `none`: x_{i+1}, whose noise is weaker than the network expects, as in DDIM inversion.
    - `linear`: z + (x_{i+1} - z) sigma_i / sigma_{i+1}, since paths are almost straight; at sigma_{i+1} = 0 it is z.
    - `released`: the same above a sigma_{i+1} of 1, and below it z + sigma_i std(z) noise, as Videoshop's code has it.
      The result looks more like noise, but does not give `clean` back: the error stays however many steps there are.

    Args:
        network: Evaluated n - start times for each guess.
        clean: Of any shape.
        sigmas: n + 1 levels as above, 0 the last.
        start: Number of the step of the sampler that the result is the start of.
        extrapolation: How x_i is guessed.
        refinements: How often the solution becomes the guess again, a fixed-point iteration; each time costs as many
            evaluations as the inversion itself. Two or four shrink the error from 25 steps on; one alone can raise it,
            and at ten steps or fewer the iteration can diverge.
        noise: Standard normal of the shape of `clean`, for `released`.

    Raises:
        ValueError: `released` without `noise`.
    """
    if extrapolation == "released" and noise is None:
        raise ValueError("the extrapolation 'released' needs noise")
    latents = clean
    for step in reversed(range(start, len(sigmas) - 1)):
        high, low = float(sigmas[step]), float(sigmas[step + 1])
        if extrapolation == "none":
            guess = latents
        elif noise is not None and extrapolation == "released" and low <= 1:
            guess = clean + high * clean.std() * noise
        else:
            guess = clean + (latents - clean) * (high / low) if low else clean
        for _ in range(1 + refinements):
            c_out = -high / (high * high + 1) ** 0.5
            guess = (high * latents + (low - high) * c_out * network(guess, step)) / (
                high + (low - high) * high * high / (high * high + 1)
            )
        latents = guess
    return latents


@torch.no_grad()
def regenerate(network: Network, noisy: Tensor, sigmas: Sequence[float], start: int = 0) -> Tensor:
    """Clean latents from latents at noise level `sigmas[start]`, by the sampler's Euler steps.

    Args:
        network: Evaluated n - start times.
        noisy: Of any shape; `sigmas[0]` times standard normal noise to generate from nothing.
        sigmas: n + 1 levels as above, 0 the last.
        start: Number of the first step.
    """
    latents = noisy
    for step in range(start, len(sigmas) - 1):
        high, low = float(sigmas[step]), float(sigmas[step + 1])
        output = network(latents, step)
        estimate = latents / (high * high + 1) - high / (high * high + 1) ** 0.5 * output
        latents = latents + (latents - estimate) * ((low - high) / high)
    return latents


def normalise(latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Latents ... T C h w with mean 0 and standard deviation 1 in every frame, and both values ... T 1 1 1.

    Without it the values are too large for the network (Videoshop, section on latent normalisation; per frame as in
    its `run.py`).
    """
    mean, std = latents.mean((-3, -2, -1), keepdim=True), latents.std((-3, -2, -1), keepdim=True) + 1e-6
    return (latents - mean) / std, mean, std


def match_first_frame(latents: Tensor, reference: Tensor) -> Tensor:
    """Scale and shift each channel of a clip so that its first frame has a reference's mean and standard deviation.

    As Videoshop's `run.py` gives a regenerated clip the colours and contrast of the edited frame.

    Args:
        latents: ... T C h w.
        reference: ... C h w.
    """
    first, goal = latents[..., :1, :, :, :], reference.unsqueeze(-4)
    scale = goal.std((-2, -1), keepdim=True) / (first.std((-2, -1), keepdim=True) + 1e-6)
    return (latents - first.mean((-2, -1), keepdim=True)) * scale + goal.mean((-2, -1), keepdim=True)
