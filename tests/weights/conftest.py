"""What the released code computed, and networks of its sizes."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from safetensors.torch import load_file
from torch import Tensor

Build = Callable[[Mapping[str, Tensor], Tensor, Tensor], CogVideoXTransformer3DModel]


@dataclass(frozen=True)
class Golden:
    """The golden file: tensors and settings by the part of the released code that made them."""

    tensors: dict[str, Tensor]
    settings: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}


@pytest.fixture(scope="session")
def golden(shared: Path) -> Golden:
    folder = shared / "oracles"
    return Golden(
        load_file(folder / "insvie_sat.safetensors"),
        json.loads((folder / "insvie_sat.json").read_text(encoding="utf-8")),
    )


@pytest.fixture(scope="session")
def checkpoint(shared: Path) -> Path:
    """A checkpoint folder in the released layout, LoRA not merged."""
    return shared / "oracles/insvie_sat_checkpoint/train_edit"


@pytest.fixture(scope="session")
def lora_forward(shared: Path) -> dict[str, Tensor]:
    """x, timesteps, context -> y, and y_without_lora, of that checkpoint."""
    return load_file(shared / "oracles/insvie_sat_checkpoint/lora_forward.safetensors")


@pytest.fixture(scope="session")
def build(golden: Golden) -> Build:
    """A transformer of the sizes of diffusers' weights, for latents x (B T C H W) and text (B L D), without weights."""
    interpolation = "dit_double_ch/config/modules/pos_embed_config/params/height_interpolation"

    def build(weights: Mapping[str, Tensor], x: Tensor, text: Tensor) -> CogVideoXTransformer3DModel:
        patch, width = weights["patch_embed.proj.weight"], len(weights["norm_final.weight"])
        head = len(weights["transformer_blocks.0.attn1.norm_q.weight"])
        network = CogVideoXTransformer3DModel(
            num_attention_heads=width // head,
            attention_head_dim=head,
            in_channels=patch.shape[1],
            out_channels=len(weights["proj_out.weight"]) // patch[0, 0].numel(),
            time_embed_dim=len(weights["time_embedding.linear_1.weight"]),
            text_embed_dim=text.shape[2],
            num_layers=sum(key.endswith("attn1.norm_q.weight") for key in weights),
            sample_width=x.shape[4],
            sample_height=x.shape[3],
            sample_frames=4 * x.shape[1] - 3,
            patch_size=patch.shape[2],
            max_text_seq_length=text.shape[1],
            spatial_interpolation_scale=golden.settings[interpolation],
        )
        network.norm_out.norm.eps = 1e-6  # SAT's; diffusers has 1e-5, which alone moves the output by some 4e-6
        return network.eval()

    return build


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.fixture(scope="session")
def error() -> Callable[[Tensor, Tensor], float]:
    """Norm of the difference over the norm of what is expected."""
    return relative


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.no_grad():
        yield
