"""The released autoencoder decodes the same as diffusers' class."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from insvie_lightning.errors import InputError
from insvie_lightning.weights.sat_vae import build_vae, read_vae


@pytest.fixture
def config(golden) -> dict[str, Any]:
    named = {key.removeprefix("vae/config/"): value for key, value in golden.settings.items()}
    channels = tuple(named["ch"] * factor for factor in named["ch_mult"])
    return {
        "in_channels": named["in_channels"],
        "out_channels": named["out_ch"],
        "down_block_types": ("CogVideoXDownBlock3D",) * len(channels),
        "up_block_types": ("CogVideoXUpBlock3D",) * len(channels),
        "block_out_channels": channels,
        "latent_channels": named["z_channels"],
        "layers_per_block": named["num_res_blocks"],
    }


def test_golden_decode(golden, config: dict[str, Any], error: Callable) -> None:
    vae = build_vae(golden.part("vae/state_dict/"), config, "3d-vae.pt")
    assert error(vae.decode(golden.tensors["vae/z"]).sample, golden.tensors["vae/recon"]) <= 1e-4


def test_golden_encode(golden, config: dict[str, Any], error: Callable) -> None:
    vae = build_vae(golden.part("vae/state_dict/"), config, "3d-vae.pt")
    video = golden.tensors["vae/video"]
    vae.num_sample_frames_batch_size = video.shape[2]  # the released code encodes a clip in one piece
    assert error(vae.encode(video).latent_dist.parameters, golden.tensors["vae/moments"]) <= 1e-4


def test_golden_decode_tells_mutations(golden, config: dict[str, Any], error: Callable) -> None:
    state = golden.part("vae/state_dict/")
    one, other = "decoder.mid.block_1.conv1.conv.weight", "decoder.mid.block_2.conv1.conv.weight"
    state[one], state[other] = state[other], state[one]
    vae = build_vae(state, config, "3d-vae.pt")
    assert error(vae.decode(golden.tensors["vae/z"]).sample, golden.tensors["vae/recon"]) > 1e-2


@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
def test_golden_file_is_read_bare_and_inside_a_checkpoint(golden, tmp_path: Path, prefix: str) -> None:
    state = golden.part("vae/state_dict/")
    kept = {prefix + key: value for key, value in state.items()}
    if prefix:
        kept["model.diffusion_model.time_embed.0.weight"] = torch.ones(1)
    torch.save({"state_dict": kept}, tmp_path / "3d-vae.pt")
    again = read_vae(tmp_path / "3d-vae.pt")
    assert again.keys() == state.keys() and all(torch.equal(again[key], value) for key, value in state.items())


def test_golden_discriminator_is_dropped_and_other_keys_are_named(golden, config: dict[str, Any]) -> None:
    state = golden.part("vae/state_dict/")
    build_vae(state | {"loss.discriminator.weight": torch.ones(1)}, config, "x")
    del state[f"decoder.up.{len(golden.settings['vae/config/ch_mult']) - 1}.upsample.conv.bias"]
    with pytest.raises(
        InputError, match=r"^x holds .* without decoder\.up_blocks\.0\.upsamplers\.0\.conv\.bias; .* odd$"
    ):
        build_vae(state | {"odd": torch.ones(1)}, config, "x")


def test_golden_spoilt_values_are_one_sentence(golden, config: dict[str, Any]) -> None:
    state = golden.part("vae/state_dict/")
    state["encoder.conv_in.conv.bias"] = torch.full_like(state["encoder.conv_in.conv.bias"], math.nan)
    with pytest.raises(InputError, match=r"^x is spoilt: encoder\.conv_in\.conv\.bias"):
        build_vae(state, config, "x")


def test_a_file_without_autoencoder_is_one_sentence(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"a\.pt holds no autoencoder"):
        read_vae(tmp_path / "a.pt")
