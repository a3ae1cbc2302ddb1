"""Tiny networks of the real classes, with random weights."""

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX


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
