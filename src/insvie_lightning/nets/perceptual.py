"""LPIPS through the decoder: the perceptual loss of the third training stage."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lpips
import torch
from torch import Tensor

from insvie_lightning.errors import InputError
from insvie_lightning.nets.latents import decode_latents


@dataclass(frozen=True)
class PerceptualLoss:
    """Where and with what LPIPS is taken.

    Decoding a whole clip with gradient does not fit any GPU (190 GB for 25 frames), so a chunk is decoded: a few
    latent frames, of a crop if asked for. The target is the real edited clip, not its reconstruction.

    Attributes:
        net: Trunk of LPIPS; the paper's is `vgg`.
        random_trunk: Use random trunk weights (the linear heads stay LPIPS v0.1's); for machines without a hub.
        latent_frames: Decoded latent frames; k of them make 1 + 4 (k - 1) frames of video.
        crop: Side of the decoded crop in latents (times 8 in pixels); None decodes the full frame.
        first_only: Always start at the first frame, where the causal decoder needs no past; else draw the start.
        max_timestep: Noisier samples get no LPIPS; 1000 is all.
    """

    net: Literal["vgg", "alex", "squeeze"] = "vgg"
    random_trunk: bool = False
    latent_frames: int = 2
    crop: int | None = 32
    first_only: bool = True
    max_timestep: int = 1000


def build_lpips(config: PerceptualLoss) -> lpips.LPIPS:
    """Build the frozen LPIPS network.

    Raises:
        InputError: When the trunk's weights are neither cached nor to be had.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = lpips.LPIPS(net=config.net, pnet_rand=config.random_trunk, verbose=False)
    except OSError as error:  # URLError is one
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        raise InputError(
            f"LPIPS needs torchvision's {config.net} weights and they could not be fetched ({error}): put them into "
            f"{cache}, or set --model.perceptual.random_trunk=true"
        ) from error
    return network.eval().requires_grad_(False)


def chunk_lpips(
    network: lpips.LPIPS, vae: Any, clean: Tensor, target: Tensor, config: PerceptualLoss, generator: torch.Generator
) -> Tensor:
    """LPIPS per sample between the decoded chunk of predicted clean latents and the real pixels.

    Args:
        network: From `build_lpips`.
        vae: The decoder; gradients flow through it.
        clean: Predicted z_0, B T C h w.
        target: Edited pixels in [-1, 1], B F 3 H W, F = 1 + 4 (T - 1).
        config: What to decode.
        generator: Draws the chunk's place, one for the batch, on its own device.

    Returns:
        B values.
    """
    frames = min(config.latent_frames, clean.shape[1])
    start = 0 if config.first_only else _draw(clean.shape[1] - frames, generator)
    side = (min(config.crop or 10**6, clean.shape[3]), min(config.crop or 10**6, clean.shape[4]))
    top, left = _draw(clean.shape[3] - side[0], generator), _draw(clean.shape[4] - side[1], generator)
    scale = target.shape[3] // clean.shape[3]
    latents = clean[:, start : start + frames, :, top : top + side[0], left : left + side[1]]
    pixels = target[
        :,
        4 * start : 4 * (start + frames - 1) + 1,
        :,
        scale * top : scale * (top + side[0]),
        scale * left : scale * (left + side[1]),
    ]
    decoded = decode_latents(vae, latents)
    distance = network(decoded.flatten(0, 1).float(), pixels.flatten(0, 1).float())
    return distance.reshape(pixels.shape[:2]).mean(1)


def _draw(highest: int, generator: torch.Generator) -> int:
    return int(torch.randint(highest + 1, (), generator=generator, device=generator.device))
