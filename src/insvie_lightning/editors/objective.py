"""What an editor is trained on: clips encoded, noise drawn, and what is predicted compared with the edited clip.

Every draw is from the generator that is given, in the order that the functions are called in, so that a step that is
made again draws the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from insvie_lightning.batch import PIXELS_PER_LATENT, EditBatch
from insvie_lightning.diffusion.conditioning import SourceNoise, add_latent_noise, add_source_noise
from insvie_lightning.diffusion.schedule import add_noise, clean_from_velocity, stratified_timesteps, velocity
from insvie_lightning.errors import InputError
from insvie_lightning.nets.latents import cut_windows, encode_posterior, sample_posterior, to_device_pixels
from insvie_lightning.nets.perceptual import PerceptualLoss, chunk_lpips


@dataclass(frozen=True, slots=True)
class Noised:
    """Latents under noise, and what a network that sees them is to say.

    Attributes:
        clean: z_0, B T C h w.
        noise: Standard normal, likewise.
        noisy: z_t, likewise.
        timesteps: t, B.
        alphas_cumprod: abar of each timestep, B.
    """

    clean: Tensor
    noise: Tensor
    noisy: Tensor
    timesteps: Tensor
    alphas_cumprod: Tensor

    @property
    def velocity(self) -> Tensor:
        """The target v, B T C h w."""
        return velocity(self.clean, self.noise, self.alphas_cumprod)

    def clean_from(self, prediction: Tensor) -> Tensor:
        """The clean latents that a predicted velocity stands for, B T C h w; float32 of a float32 z_t."""
        return clean_from_velocity(self.noisy, prediction.float(), self.alphas_cumprod)


def encode_clips(
    vae: Any, batch: EditBatch, generator: torch.Generator, source_noise: SourceNoise = False
) -> tuple[Tensor, Tensor]:
    """Latents of source and edited clips, B T C h w: the cached ones, or encoded here.

    Args:
        vae: See `encode_pixels`.
        batch: Of pixels, latents or both.
        generator: Draws the noise and samples the posteriors, of the latents that are used only: windows are cut first,
            so that cached and encoded moments are sampled alike. Cached latents without a log-variance stay as they
            are.
        source_noise: The released code's noise on the source. With `latents`, a source whose latents are not cached is
            encoded, and has the noise on its pixels.

    Raises:
        InputError: There is to be noise, but the source's pixels are not there, or its effect was not measured.
    """
    if source_noise is True and batch.source is None:
        raise InputError(
            f"source_noise is added to pixels, but sample {batch.keys[0]!r} comes from cached latents; set "
            "--model.source_noise=latents or false, train on shards of videos, or encode with --model.keep_source=true"
        )

    @torch.no_grad()
    def encode(clip: Tensor | None, noisy: bool = False) -> Tensor:
        assert clip is not None
        pixels = to_device_pixels(clip)
        moments = encode_posterior(vae, add_source_noise(pixels, generator) if noisy else pixels)
        return sample(*(cut_windows(moment, batch.windows) for moment in moments))

    def sample(mean: Tensor, log_variance: Tensor | None) -> Tensor:
        return mean if log_variance is None else sample_posterior(mean, log_variance, generator)

    source, edited = batch.source_latents, batch.edited_latents
    if source is None or source_noise is True:
        z_source = encode(batch.source, noisy=bool(source_noise))
    else:
        source = _add_measured_noise(source, batch, generator) if source_noise else source
        z_source = sample(source, batch.source_log_variance)
    return z_source, encode(batch.edited) if edited is None else sample(edited, batch.edited_log_variance)


def _add_measured_noise(latents: Tensor, batch: EditBatch, generator: torch.Generator) -> Tensor:
    if batch.noise_shift is None:
        raise InputError(
            f"the effect of noise on the cached latents of sample {batch.keys[0]!r} was not measured; encode again "
            "(`insvie predict -c build_latents`), or set --model.source_noise=false"
        )
    return add_latent_noise(latents, batch.noise_shift, generator)


def draw_noised(latents: Tensor, scheduler: Any, generator: torch.Generator, rank: int, world_size: int) -> Noised:
    """Put noise on latents B T C h w, at timesteps that are stratified over ranks.

    Args:
        latents: z_0, on the generator's device; noise is put on it in float32, so that what is encoded in half
            precision and what comes from a cache get the same.
        scheduler: Of diffusers' interface; it knows abar of every timestep.
        generator: Draws the timesteps, then the noise.
        rank: Of this process.
        world_size: Number of processes that train together.
    """
    latents, steps = latents.float(), scheduler.config["num_train_timesteps"]
    timesteps = stratified_timesteps(len(latents), steps, rank, world_size, generator)
    noise = torch.randn(latents.shape, generator=generator, device=latents.device)
    abar = scheduler.alphas_cumprod.to(latents.device, non_blocking=True)[timesteps]
    return Noised(latents, noise, add_noise(latents, noise, abar), timesteps, abar)


def lpips_of_prediction(
    network: Any,
    vae: Any,
    noised: Noised,
    prediction: Tensor,
    batch: EditBatch,
    config: PerceptualLoss,
    generator: torch.Generator,
) -> Tensor:
    """LPIPS between the decoded clean latents that a prediction stands for and the edited clips: mean, a scalar.

    Samples that are too noisy for it (`PerceptualLoss.max_timestep`) are not decoded and count as 0.

    Args:
        network: From `build_lpips`.
        vae: The decoder; gradients flow through it.
        noised: What the network was shown.
        prediction: Its velocity, B T C h w.
        batch: Has the edited clips' pixels.
        config: What to decode.
        generator: See `chunk_lpips`.

    Raises:
        InputError: The batch has no pixels.
    """
    if batch.edited is None:
        raise InputError(
            f"LPIPS compares with real pixels, but sample {batch.keys[0]!r} comes from cached latents alone; give "
            "stages with lpips_weight > 0 shards of videos, or encode with --model.keep_edited=true"
        )
    clean = noised.clean_from(prediction)
    chosen = (noised.timesteps < config.max_timestep).nonzero().flatten()
    if not len(chosen):
        return clean.sum() * 0
    target = to_device_pixels(cut_windows(batch.edited, batch.windows, PIXELS_PER_LATENT)[chosen])
    values = chunk_lpips(network, vae, clean[chosen], target, config, generator)
    return values.sum() / len(noised.timesteps)


def weight_of_stage(weights: Sequence[float], stage: int) -> float:
    """The weight of a stage: the last one where there are more stages than weights."""
    return weights[min(stage, len(weights) - 1)]
