"""Sample an edit: the branches of guidance in one batch, step by step, from noise that is known by its sample."""

import copy
import zlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from insvie_lightning.diffusion.guidance import Guidance, guided
from insvie_lightning.diffusion.sampling import sample
from insvie_lightning.nets.hoisting import SetStep, hoisted
from insvie_lightning.nets.source_concat import concat_source
from insvie_lightning.nets.step_cache import step_cache

BRANCHES = 3
"""Of guidance, at most: what one sample is to the network."""


def seeded_generator(name: str, device: torch.device) -> torch.Generator:
    """A generator on a device that draws the same whenever it has the same name."""
    return torch.Generator(device).manual_seed(zlib.crc32(name.encode()))


def draw_starts(
    keys: Sequence[str], seed: int, shape: Sequence[int], device: torch.device
) -> tuple[Tensor, list[torch.Generator]]:
    """The noise that edits start from, and the generators that go on with it, one for each sample.

    Args:
        keys: Of B samples; the noise of one depends on its key and the seed only.
        seed: Of all.
        shape: Of one sample's latents, T C h w.
        device: Of noise and generators.

    Returns:
        Noise B T C h w, and B generators.
    """
    generators = [seeded_generator(f"{seed}/{key}", device) for key in keys]
    noise = torch.stack([torch.randn(tuple(shape), generator=g, device=device) for g in generators])
    return noise, generators


@torch.no_grad()
def sample_edit(
    transformer: Any,
    scheduler: Any,
    starts: tuple[Tensor, list[torch.Generator]],
    source_latents: Tensor,
    prompt_embeds: Tensor,
    guidance: Guidance,
    num_inference_steps: int,
    hoist: bool = True,
    skip: bool = True,
) -> Tensor:
    """Latents of edited clips, B T C h w, by a transformer that sees the source beside the noise (`concat_source`).

    Args:
        transformer: Widened (`widen_patch_embedding`).
        scheduler: One of `SAMPLERS`; it stays as it is.
        starts: From `draw_starts`.
        source_latents: B T C h w; zeros hide the source.
        prompt_embeds: B L D.
        guidance: How the branches are mixed.
        num_inference_steps: Sampler steps.
        hoist: Compute what is the same at every step once; not for a transformer that is gathered only when it is
            called, and never done for one that comes to the device only then.
        skip: Leave out blocks by `Guidance.step_cache`; not for a transformer that is gathered block by block, since
            ranks that decide otherwise would wait for one another.
    """
    noise, generators = starts
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(num_inference_steps, device=noise.device)
    threshold = guidance.step_cache if skip else 0.0
    with _steps(transformer, scheduler.timesteps, hoist) as set_step, step_cache(transformer, threshold) as seen:

        def predict(noisy: Tensor, source: Tensor, prompts: Tensor, timesteps: Tensor) -> Tensor:
            set_step(timesteps[0])
            with seen(source):
                return concat_source(transformer, noisy, source, prompts, timesteps)

        denoise = guided(predict, source_latents, prompt_embeds, guidance, num_inference_steps)
        return sample(denoise, scheduler, noise, num_inference_steps, generators)


def _steps(transformer: Any, timesteps: Tensor, hoist: bool) -> AbstractContextManager[SetStep]:
    if hoist and transformer.device == timesteps.device:
        return hoisted(transformer, timesteps)
    return nullcontext(lambda timestep: None)
