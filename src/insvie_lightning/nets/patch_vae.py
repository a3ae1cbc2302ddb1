"""A video autoencoder small enough to learn on two CPU cores, behind the interface of `AutoencoderKLCogVideoX`.

Every 4 x 8 x 8 block of pixels becomes one latent vector: a principal-component projection (found by
`fit_principal_components`, in seconds) plus small convolutions that learn the rest. Compression, causal frame rule
(1 + 4k frames to 1 + k latent frames, the first frame on its own) and attribute names are those of the CogVideoX
autoencoder, so an editor cannot tell them apart.
"""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn
from torch.nn import functional as F

TIME, SPACE = 4, 8
"""Frames and pixels (a side) that one latent stands for."""


class PatchVAE(ModelMixin, ConfigMixin):
    """Patch autoencoder: pixels B 3 F H W in [-1, 1], F = 1 + 4k, to latents B C T H/8 W/8, T = 1 + k.

    Args:
        latent_channels: C; 16 as in CogVideoX.
        width: Channels of the convolutions.
        blocks: Residual blocks of the decoder.
        scaling_factor: Factor on latents before diffusion; the projection already gives them a mean variance of 1.
    """

    @register_to_config
    def __init__(
        self, latent_channels: int = 16, width: int = 128, blocks: int = 3, scaling_factor: float = 1.0
    ) -> None:
        super().__init__()
        pixels = 3 * TIME * SPACE * SPACE
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("project", torch.zeros(latent_channels, pixels))  # rows: components / scale
        self.register_buffer("rebuild", torch.zeros(pixels, latent_channels))  # columns: components * scale
        self.encode_in = nn.Conv3d(pixels, width, 1)
        self.encode_out = _zero(nn.Conv3d(width, latent_channels, (1, 3, 3), padding=(0, 1, 1)))
        self.decode_in = nn.Conv3d(latent_channels, width, 3, padding=1)
        self.decode_blocks = nn.ModuleList(_Residual(width) for _ in range(blocks))
        self.decode_out = _zero(nn.Conv3d(width, pixels, 1))

    @apply_forward_hook
    def encode(self, x: Tensor) -> AutoencoderKLOutput:
        """Latent distribution of pixels; its variance is zero, `mode()` and `sample()` agree."""
        blocks = _to_blocks(x)
        linear = torch.einsum("cp,bpthw->bcthw", self.project, blocks - self.mean[:, None, None, None])
        latents = linear + self.encode_out(F.silu(self.encode_in(blocks)))
        logvar = torch.full_like(latents, -30.0)
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(torch.cat([latents, logvar], 1)))

    @apply_forward_hook
    def decode(self, z: Tensor) -> DecoderOutput:
        """Pixels of latents; not clamped."""
        linear = torch.einsum("pc,bcthw->bpthw", self.rebuild, z) + self.mean[:, None, None, None]
        hidden = self.decode_in(z)
        for block in self.decode_blocks:
            hidden = block(hidden)
        return DecoderOutput(sample=_to_pixels(linear + self.decode_out(F.silu(hidden))))

    @torch.no_grad()
    def fit_principal_components(self, clips: Tensor, whitening: float = 0.5) -> None:
        """Set the linear part to the principal components of clips B 3 F H W, scaled to latents of mean variance 1.

        Args:
            clips: Pixels in [-1, 1].
            whitening: A component of deviation s becomes a latent of deviation proportional to s^(1 - whitening): at 1
                fine detail is as loud as colour and diffusion spends its capacity on it, at 0 it drowns in the noise.
        """
        vectors = _to_blocks(clips).movedim(1, -1).flatten(0, -2).double()
        mean = vectors.mean(0)
        values, components = torch.linalg.eigh(torch.cov(vectors.T))
        channels = self.config["latent_channels"]
        deviation, basis = values[-channels:].clamp_min(1e-8).sqrt(), components[:, -channels:]
        scale = deviation**whitening
        scale *= (deviation / scale).square().mean().sqrt()
        self.mean.copy_(mean)
        self.project.copy_((basis / scale).T)
        self.rebuild.copy_(basis * scale)


class _Residual(nn.Module):
    """Pre-activation residual block; the second convolution sees the neighbouring latent frames, too."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(width, width, (1, 3, 3), padding=(0, 1, 1))
        self.second = _zero(nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0)))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


def _zero(layer: nn.Conv3d) -> nn.Conv3d:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def _to_blocks(x: Tensor) -> Tensor:
    """B 3 F H W -> B (3*4*8*8) T h w; the first frame stands for a whole block of its own."""
    x = torch.cat([x[:, :, :1].expand(-1, -1, TIME - 1, -1, -1), x], 2)
    batch, channels, frames, height, width = x.shape
    x = x.reshape(batch, channels, frames // TIME, TIME, height // SPACE, SPACE, width // SPACE, SPACE)
    return x.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)


def _to_pixels(blocks: Tensor) -> Tensor:
    """Inverse of `_to_blocks`."""
    batch, _, frames, height, width = blocks.shape
    x = blocks.reshape(batch, 3, TIME, SPACE, SPACE, frames, height, width).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(batch, 3, frames * TIME, height * SPACE, width * SPACE)[:, :, TIME - 1 :]
