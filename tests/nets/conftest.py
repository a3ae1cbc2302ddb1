"""Tiny networks of the real classes, with random weights."""

from collections.abc import Callable

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel


@pytest.fixture(scope="session")
def make_transformer() -> Callable[[], CogVideoXTransformer3DModel]:
    """Build a CogVideoX transformer of 2 layers; always the same weights."""

    def make() -> CogVideoXTransformer3DModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return CogVideoXTransformer3DModel(
                num_attention_heads=2,
                attention_head_dim=16,
                num_layers=2,
                in_channels=16,
                out_channels=16,
                time_embed_dim=32,
                text_embed_dim=64,
                sample_width=12,
                sample_height=8,
                sample_frames=9,
                max_text_seq_length=16,
                spatial_interpolation_scale=1.0,
                temporal_interpolation_scale=1.0,
            ).eval()

    return make


@pytest.fixture(scope="session")
def cogvideox_vae() -> AutoencoderKLCogVideoX:
    """A CogVideoX autoencoder of 4 thin blocks; its convolutions are slow on a CPU for batches of one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * 4,
            up_block_types=("CogVideoXUpBlock3D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            latent_channels=16,
            norm_num_groups=2,
            temporal_compression_ratio=4,
        )
    return vae.eval().requires_grad_(False)
