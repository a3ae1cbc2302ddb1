"""The autoencoder of the released code, `3d-vae.pt`, as diffusers' `AutoencoderKLCogVideoX`."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from insvie_lightning.errors import InputError
from insvie_lightning.weights.checks import require_fit
from insvie_lightning.weights.sat_checkpoint import VAE, read_tensors

_RULES = (
    (r"\.block\.", ".resnets."),
    (r"\.down\.(\d+)\.", r".down_blocks.\1."),
    (r"\.downsample\.", ".downsamplers.0."),
    (r"\.upsample\.", ".upsamplers.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
)


def to_diffusers_vae(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by diffusers' names; the discriminator of the training loss is dropped.

    The names are those of `vae_modules` in the released code; there the levels of the decoder count from the pixels.
    """
    levels = {int(found[1]) for key in state if (found := re.match(r"decoder\.up\.(\d+)\.", key))}
    named = {}
    for key, value in state.items():
        if not key.startswith("loss"):
            name = re.sub(r"\.up\.(\d+)\.", lambda found: f".up_blocks.{max(levels) - int(found[1])}.", key)
            for pattern, replacement in _RULES:
                name = re.sub(pattern, replacement, name)
            named[name] = value
    return named


def build_vae(state: Mapping[str, Tensor], config: Mapping[str, Any], origin: str) -> AutoencoderKLCogVideoX:
    """An autoencoder with the weights of a SAT file, in their precision.

    Args:
        state: By SAT's names, `first_stage_model.` stripped.
        config: Of diffusers' class.
        origin: What an error names as the place.

    Raises:
        InputError: When a key is missing or left over, a shape differs or a value is not finite.
    """
    with torch.device("meta"):
        vae = AutoencoderKLCogVideoX.from_config(config)
    weights = to_diffusers_vae(state)
    require_fit(weights, vae.state_dict(), origin)
    vae.load_state_dict(weights, assign=True)
    return vae.eval()


def read_vae(file: Path) -> dict[str, Tensor]:
    """The autoencoder of `3d-vae.pt` or of a whole checkpoint, by SAT's names.

    Raises:
        InputError: When the file is damaged, holds code, or no autoencoder.
    """
    state, _ = read_tensors(file)
    inside = {key.removeprefix(VAE): value for key, value in state.items() if key.startswith(VAE)}
    state = inside or state
    if "decoder.conv_in.conv.weight" not in state:
        raise InputError(f"{file} holds no autoencoder: there is no 'decoder.conv_in.conv.weight'")
    return state
