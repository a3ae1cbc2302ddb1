"""What the released code computed for a small random network, and that network with its weights."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from diffusers import CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
from safetensors.torch import load_file
from torch import Tensor

from insvie_lightning.nets.source_concat import concat_source
from insvie_lightning.weights.sat import to_diffusers


@dataclass(frozen=True)
class Golden:
    """Recorded tensors and settings by their names in the golden files, and the network."""

    tensors: dict[str, Tensor]
    settings: dict[str, Any]
    transformer: CogVideoXTransformer3DModel

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def denoise(self, noisy: Tensor, source: Tensor, prompts: Tensor, timesteps: Tensor) -> Tensor:
        return concat_source(self.transformer, noisy, source, prompts, timesteps)


@pytest.fixture(scope="session")
def golden(shared: Path) -> Golden:
    tensors = load_file(shared / "oracles/insvie_sat.safetensors")
    settings = json.loads((shared / "oracles/insvie_sat.json").read_text())
    prefix = "dit_double_ch/state_dict/"
    state = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    config = {name.removeprefix("dit_double_ch/config/"): value for name, value in settings.items()}
    embedding = {name.rpartition("/")[2]: value for name, value in config.items() if name.startswith("modules/")}
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=config["num_attention_heads"],
        attention_head_dim=config["hidden_size"] // config["num_attention_heads"],
        in_channels=2 * config["in_channels"],
        out_channels=config["out_channels"],
        num_layers=config["num_layers"],
        patch_size=config["patch_size"],
        time_embed_dim=config["time_embed_dim"],
        text_embed_dim=embedding["text_hidden_size"],
        max_text_seq_length=embedding["text_length"],
        sample_frames=config["num_frames"],
        sample_height=config["latent_height"],
        sample_width=config["latent_width"],
        temporal_compression_ratio=config["time_compressed_rate"],
        spatial_interpolation_scale=embedding["height_interpolation"],
        temporal_interpolation_scale=1.0,
    )
    transformer.norm_out.norm.eps = 1e-6  # as released; diffusers has 1e-5
    transformer.load_state_dict(to_diffusers(state))
    return Golden(tensors, settings, transformer.eval().requires_grad_(False))


@pytest.fixture(scope="session")
def cogvideox() -> CogVideoXDDIMScheduler:
    """The scheduler that CogVideoX-2B is published with."""
    return CogVideoXDDIMScheduler(
        snr_shift_scale=3.0, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )


@pytest.fixture(scope="session")
def relative_error() -> Callable[[Tensor, Tensor], float]:
    """Norm of the difference over norm."""
    return lambda result, expected: float((result - expected).norm() / expected.norm())
