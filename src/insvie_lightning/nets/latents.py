"""Between pixels and latents: the frozen encoders in front of a video diffusion transformer, as functions."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor, nn

from insvie_lightning.batch import NOISE_STRENGTHS, PIXELS_PER_LATENT, Window

MEASURED_FRAMES, MEASURED_SIDE = 9, 128
"""Of the part of a clip, at its start and in its middle, on which the effect of noise is measured: three latent frames
of up to 16 x 16."""


def to_device_pixels(pixels: Tensor) -> Tensor:
    """B F C H W uint8 -> float32 in [-1, 1], on the device that the bytes are on."""
    return pixels.float() / 127.5 - 1


def to_uint8(pixels: Tensor) -> Tensor:
    """Float pixels in [-1, 1] (clamped) -> uint8, which stays as it is."""
    return (
        pixels if pixels.dtype == torch.uint8 else ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    )


def encode_pixels(vae: Any, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Encode pixels B F 3 H W in [-1, 1] to scaled latents B T C h w.

    Args:
        vae: `AutoencoderKLCogVideoX` or anything of its interface.
        pixels: F must be 1 + 4k, H and W multiples of 16.
        generator: Samples the posterior; None takes its mode.
    """
    mean, log_variance = encode_posterior(vae, pixels)
    return mean if generator is None else sample_posterior(mean, log_variance, generator)


def encode_posterior(vae: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The moments of the posterior of scaled latents: mean, which is its mode, and log-variance, each B T C h w.

    Args:
        vae: See `encode_pixels`.
        pixels: See `encode_pixels`.
    """
    with _as_loaded(vae, pixels):
        posterior = vae.encode(pixels.to(vae.dtype).transpose(1, 2)).latent_dist
    scale = vae.config.scaling_factor
    return posterior.mean.transpose(1, 2) * scale, posterior.logvar.transpose(1, 2) + 2 * math.log(scale)


def _as_loaded(vae: Any, values: Tensor) -> AbstractContextManager[None]:
    """Run half-precision weights without autocast, as the released engine does.

    On a GPU it would normalise in float32, and move twice the bytes between any two convolutions.
    """
    half = vae.dtype != torch.float32
    return torch.autocast(values.device.type, enabled=False) if half else nullcontext()


def sample_posterior(mean: Tensor, log_variance: Tensor, generator: torch.Generator) -> Tensor:
    """Draw latents B T C h w of a posterior; the numbers come in the order that diffusers draws them in, B C T h w."""
    shape = mean.transpose(1, 2).shape
    noise = torch.randn(shape, generator=generator, device=mean.device, dtype=mean.dtype).transpose(1, 2)
    return mean + (0.5 * log_variance).exp() * noise


def decode_latents(vae: Any, latents: Tensor) -> Tensor:
    """Decode scaled latents B T C h w to pixels B F 3 H W, F = 1 + 4 (T - 1), about [-1, 1], not clamped.

    Differentiable. diffusers decodes an even T to 4 T frames, since it sees the clip's lone first frame by odd T only;
    the last latent is repeated for it, and what that adds is cut.
    """
    frames = latents.shape[1]
    if frames % 2 == 0 and isinstance(vae, AutoencoderKLCogVideoX):
        latents = torch.cat([latents, latents[:, -1:]], 1)
    with _as_loaded(vae, latents):
        pixels = vae.decode(latents.to(vae.dtype).transpose(1, 2) / vae.config.scaling_factor).sample
    return pixels.transpose(1, 2)[:, : 4 * frames - 3]


def cut_windows(values: Tensor, windows: Sequence[Window], scale: int = 1) -> Tensor:
    """Cut a window out of each of B latents, or with `scale` 8 pixels, B ... H W; none cuts nothing."""
    if not windows:
        return values
    cuts = [
        one[..., scale * top : scale * (top + height), scale * left : scale * (left + width)]
        for one, (top, left, height, width) in zip(values, windows, strict=True)
    ]
    return torch.stack(cuts)


def psnr_db(values: Tensor, truth: Tensor) -> Tensor:
    """PSNR in dB of each of B samples in [-1, 1] (clamped) against the truth, B."""
    error = (values.float().clamp(-1, 1) - truth.float()).square().flatten(1).mean(1)
    return 10 * torch.log10(4 / error)


@torch.no_grad()
def latent_crop_gap_db(vae: Any, pixels: Tensor, windows: Sequence[Window]) -> Tensor:
    """How well latents cut out of an encoded clip agree with those of the clip that is cut first: PSNR in dB, B.

    The peak is the largest magnitude of the latents of the cut clip; infinite where both are equal. An autoencoder
    that sees beyond the window, or normalises over the frame, has a gap.

    Args:
        vae: See `encode_pixels`.
        pixels: Whole clips, B F 3 H W in [-1, 1].
        windows: One of each.
    """
    cut_after = cut_windows(encode_pixels(vae, pixels), windows).flatten(1).float()
    cut_before = encode_pixels(vae, cut_windows(pixels, windows, PIXELS_PER_LATENT)).flatten(1).float()
    peak = cut_before.abs().amax(1)
    return 10 * torch.log10(peak.square() / (cut_after - cut_before).square().mean(1))


@torch.no_grad()
def measure_noise_shift(vae: Any, pixels: Tensor, generator: torch.Generator) -> Tensor:
    """By how much noise on the pixels of a clip moves its latents: one entry of `EditBatch.noise_shift`, K 2 2 C.

    A part of the clip is encoded without noise and once with each strength. The shift is that of the posterior's mean;
    its mean and standard deviation are over all places of the part. Where there is no later latent frame, its are 0.

    Args:
        vae: See `encode_pixels`.
        pixels: One clip, F 3 H W in [-1, 1].
        generator: Draws the noise, on the CPU, so that all devices measure with the same.
    """
    height, width = (min(side, MEASURED_SIDE) for side in pixels.shape[-2:])
    top, left = (pixels.shape[-2] - height) // 2, (pixels.shape[-1] - width) // 2
    part = pixels[:MEASURED_FRAMES, :, top : top + height, left : left + width]
    noise = torch.randn((len(NOISE_STRENGTHS), *part.shape), generator=generator).to(part.device)
    strengths = torch.tensor(NOISE_STRENGTHS, device=part.device).reshape(-1, 1, 1, 1, 1)
    clean, noisy = encode_pixels(vae, torch.cat([part[None], part + strengths * noise])).float().split([1, len(noise)])
    shift = noisy - clean
    measured = torch.zeros(len(noise), 2, 2, shift.shape[2], device=shift.device)
    for place, frames in enumerate((shift[:, :1], shift[:, 1:])):
        if frames.shape[1]:
            measured[:, 0, place], measured[:, 1, place] = frames.mean((1, 3, 4)), frames.std((1, 3, 4))
    return measured


@torch.no_grad()
def encode_prompts(tokenizer: Any, text_encoder: nn.Module, prompts: tuple[str, ...], max_length: int) -> Tensor:
    """T5 embeddings of sentences, B L D; padded or cut to `max_length`, without attention mask, as CogVideoX trains."""
    tokens = tokenizer(list(prompts), padding="max_length", max_length=max_length, truncation=True, return_tensors="pt")
    device = next(text_encoder.parameters()).device
    return text_encoder(tokens.input_ids.to(device, non_blocking=True))[0]
