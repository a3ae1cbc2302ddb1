"""How many floating-point operations the networks need, by formula: what a measured speed is compared with.

A multiplication with its addition counts as 2. Matrix products, convolutions and attention are counted, as in
`torch.utils.flop_counter`, by which the formulas are tested; all else is below a thousandth. What is counted is what
must be computed: nothing for activations that are recomputed, and 2 products in the backward pass of attention for
each one of the forward pass, though fast kernels compute a fifth one again.
"""

from math import log2
from typing import Any

from diffusers import CogVideoXTransformer3DModel
from torch import nn

from insvie_lightning.nets.patch_vae import SPACE, TIME, PatchVAE

ADAPTED = 4
"""Projections of an attention that have LoRA."""
_MIDDLE_LAYERS, _EXTRA_DECODER_LAYERS = 2, 1  # of the CogVideoX autoencoder
_CUBE, _SQUARE = 27, 9


def transformer_flops(
    transformer: CogVideoXTransformer3DModel,
    latents: tuple[int, int, int],
    lora_rank: int | None = 0,
    training: bool = False,
) -> int:
    """Operations of a diffusion transformer on one sample.

    In training, a frozen layer is passed forward and back (factor 2) and a trained one also gets the gradient of its
    weights (3); what no gradient has to pass counts less: a frozen layer of text or time 1, the first trained one 2.

    Args:
        transformer: Its `in_channels` are those after the patch embedding was widened.
        latents: T, h and w.
        lora_rank: 0 is without LoRA, or with LoRA merged; in training None trains the whole network, a number LoRA and
            the patch embedding.
        training: Forward and backward, or forward only.
    """
    c: Any = transformer.config
    width = c.num_attention_heads * c.attention_head_dim
    text = c.max_text_seq_length
    video = latents[0] * (latents[1] // c.patch_size) * (latents[2] // c.patch_size)
    tokens, patch = text + video, c.patch_size**2
    linear = c.num_layers * tokens * 12 * width**2  # query, key, value and out; 4-fold width and back
    lora = c.num_layers * tokens * ADAPTED * 2 * width * (lora_rank or 0)
    attention = c.num_layers * tokens**2 * 2 * width
    modulation = c.time_embed_dim * width * (2 * 6 * c.num_layers + 2)
    time_in, time_out = width * c.time_embed_dim, c.time_embed_dim**2
    patches, words = video * c.in_channels * patch * width, text * c.text_embed_dim * width
    out = video * width * patch * c.out_channels
    if not training:
        return 2 * (linear + lora + attention + modulation + time_in + time_out + patches + words + out)
    if lora_rank is None:
        return 2 * (3 * (linear + attention + modulation + time_out + out) + 2 * (time_in + patches + words))
    return 2 * (2 * (linear + out + patches) + 3 * (lora + attention) + modulation + time_in + time_out + words)


def encode_flops(vae: nn.Module, frames: int, height: int, width: int) -> int:
    """Operations of encoding one clip of F = 1 + 4k frames of H x W pixels."""
    c: Any = vae.config
    if isinstance(vae, PatchVAE):
        pixels, positions = _blocks(frames, height, width)
        return 2 * positions * (pixels * (c.latent_channels + c.width) + _SQUARE * c.width * c.latent_channels)
    channels, compressions = c.block_out_channels, log2(c.temporal_compression_ratio)
    count, before = _conv(c.in_channels, channels[0], frames * height * width), channels[0]
    for level, after in enumerate(channels):
        for _ in range(c.layers_per_block):
            count += _residual(before, after, frames * height * width)
            before = after
        if level < len(channels) - 1:
            frames = (frames + 1) // 2 if level < compressions else frames
            height, width = height // 2, width // 2
            count += _conv(after, after, frames * height * width, _SQUARE)
    positions = frames * height * width
    count += _MIDDLE_LAYERS * _residual(before, before, positions)
    return count + _conv(before, 2 * c.latent_channels, positions)


def decode_flops(vae: nn.Module, frames: int, height: int, width: int) -> int:
    """Operations of `decode_latents` to one clip of F = 1 + 4k frames of H x W pixels."""
    c: Any = vae.config
    if isinstance(vae, PatchVAE):
        pixels, positions = _blocks(frames, height, width)
        residual = (_SQUARE + 3) * c.width**2
        return (
            2
            * positions
            * (pixels * (c.latent_channels + c.width) + _CUBE * c.latent_channels * c.width + c.blocks * residual)
        )
    channels, compressions = c.block_out_channels[::-1], log2(c.temporal_compression_ratio)
    frames = (frames - 1) // c.temporal_compression_ratio + 1
    frames += 1 - frames % 2
    height, width = (side // 2 ** (len(channels) - 1) for side in (height, width))
    looks, before = c.latent_channels, channels[0]  # every normalisation looks at the latents
    count = _conv(looks, before, frames * height * width)
    count += _MIDDLE_LAYERS * _residual(before, before, frames * height * width, looks)
    for level, after in enumerate(channels):
        for _ in range(c.layers_per_block + _EXTRA_DECODER_LAYERS):
            count += _residual(before, after, frames * height * width, looks)
            before = after
        if level < len(channels) - 1:
            frames = 2 * frames - 1 if level < compressions else frames
            height, width = 2 * height, 2 * width
            count += _conv(after, after, frames * height * width, _SQUARE)
    positions = frames * height * width
    return count + 2 * _conv(looks, before, positions, 1) + _conv(before, c.out_channels, positions)


def text_flops(text_encoder: nn.Module, tokens: int) -> int:
    """Operations of a T5 encoder on one sentence, padded to so many tokens."""
    c: Any = text_encoder.config
    inner = c.num_heads * c.d_kv
    matrices = 4 * c.d_model * inner + (3 if c.is_gated_act else 2) * c.d_model * c.d_ff
    return 2 * c.num_layers * (tokens * matrices + 2 * tokens**2 * inner)


def _conv(channels: int, into: int, positions: int, kernel: int = _CUBE) -> int:
    return 2 * channels * into * kernel * positions


def _residual(channels: int, into: int, positions: int, looks: int = 0) -> int:
    """Two convolutions, one of size 1 around them where the channels change, and what their normalisations look at."""
    count = _conv(channels, into, positions) + _conv(into, into, positions)
    count += 2 * (_conv(looks, channels, positions, 1) + _conv(looks, into, positions, 1))
    return count if channels == into else count + _conv(channels, into, positions, 1)


def _blocks(frames: int, height: int, width: int) -> tuple[int, int]:
    """Values of a block of pixels, and blocks of a clip."""
    positions = ((frames - 1) // TIME + 1) * (height // SPACE) * (width // SPACE)
    return 3 * TIME * SPACE * SPACE, positions
