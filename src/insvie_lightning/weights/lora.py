"""LoRA of the transformer under the names of the tools that write it: SAT, PEFT and diffusers, ComfyUI, kohya.

Ours are PEFT's without a prefix, `transformer_blocks.0.attn1.to_q.lora_A.weight`. Rank and scale travel with them.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from insvie_lightning.errors import InputError
from insvie_lightning.weights.checks import name_keys, require_keys
from insvie_lightning.weights.sat import lora_names

_TOOL = re.compile(
    r"(?:base_model\.model\.|transformer\.|(?:model\.)?diffusion_model\.|lora_(?:unet|transformer)_)*"
    r"transformer_blocks[._](\d+)[._]attn1[._](?:processor[._])?to_(q|k|v|out[._]0)"
    r"\.(?:lora[._](A|B|down|up)(?:\.\w+)?\.weight|(alpha))"
)
_HALF = {"A": "A", "down": "A", "B": "B", "up": "B"}
_PREFIX = "transformer."  # of diffusers' pipelines; ComfyUI's CogVideoX nodes read it, too
_HEADER = "lora_adapter_metadata"  # diffusers' name of the header entry that holds PEFT's configuration


@dataclass(frozen=True, slots=True)
class Lora:
    """LoRA matrices by our names, A (rank, in) and B (out, rank): y = W x + alpha / rank * B A x."""

    weights: dict[str, Tensor]
    rank: int
    alpha: float


def from_sat(matrices: Mapping[str, Tensor], origin: str, alpha: float = 1.0) -> Lora:
    """LoRA of a SAT checkpoint.

    Args:
        matrices: Every `...matrix_A.i` and `...matrix_B.i`, `model.diffusion_model.` stripped.
        origin: What an error names as the place.
        alpha: Not in the file; SAT's default 1, with which InsViE was released, scales by 1 / rank.

    Raises:
        InputError: When a matrix is missing or left over, or ranks differ.
    """
    layers = {int(found[1]) for key in matrices if (found := re.match(r"transformer\.layers\.(\d+)\.", key))}
    names = lora_names(max(layers, default=0) + 1)
    require_keys(names.keys(), matrices.keys(), f"the LoRA in {origin}")
    weights = {name: matrices[sat] for sat, name in names.items()}
    return Lora(weights, _rank(weights, origin), alpha)


def to_sat(lora: Lora) -> dict[str, Tensor]:
    """The inverse of `from_sat` for SAT's own scale of 1 / rank: another alpha goes into B."""
    names = lora_names(len(lora.weights) // 8)
    return {
        sat: lora.weights[name] * lora.alpha if ".lora_B." in name and lora.alpha != 1 else lora.weights[name]
        for sat, name in names.items()
    }


def is_tool_lora(state: Mapping[str, Tensor]) -> bool:
    """Whether these are LoRA weights by a name that `from_tool` reads."""
    return any(_TOOL.fullmatch(key) for key in state)


def from_tool(state: Mapping[str, Tensor], header: Mapping[str, str], origin: str) -> Lora:
    """LoRA by the names of PEFT, diffusers, ComfyUI or kohya.

    Args:
        state: The tensors of a file; `.alpha` scalars are the scale times the rank.
        header: The metadata of the file; diffusers keeps PEFT's configuration there.
        origin: What an error names as the place.

    Raises:
        InputError: When a matrix is missing or left over, or ranks or scales differ.
    """
    found = {key: match for key in state if (match := _TOOL.fullmatch(key))}
    weights, alphas = {}, set()
    for key, match in found.items():
        layer, target, half, alpha = match.groups()
        if alpha:
            alphas.add(float(state[key]))
        else:
            name = f"transformer_blocks.{layer}.attn1.to_{target.replace('_', '.')}.lora_{_HALF[half]}.weight"
            weights[name] = state[key]
    layers = {int(match[1]) for match in found.values()}
    names = set(lora_names(max(layers, default=0) + 1).values())
    require_keys(names, weights.keys() | (state.keys() - found.keys()), f"the LoRA in {origin}")
    rank = _rank(weights, origin)
    config = json.loads(header.get(_HEADER, "{}"))
    alphas |= {float(value) for key, value in config.items() if key.endswith("lora_alpha")}
    if len(alphas) > 1:
        raise InputError(f"the LoRA in {origin} has several scales, alpha {sorted(alphas)}; one editor has one")
    return Lora(weights, rank, alphas.pop() if alphas else float(rank))


def for_tools(lora: Lora) -> dict[str, Tensor]:
    """The LoRA by the names that diffusers' `load_lora_weights`, PEFT and ComfyUI read.

    The scale is in B, so that those which read no alpha, or a wrong one, cannot be off by a factor.
    """
    scale = lora.alpha / lora.rank
    return {
        _PREFIX + name: value * scale if ".lora_B." in name and scale != 1 else value
        for name, value in lora.weights.items()
    }


def _rank(weights: Mapping[str, Tensor], origin: str) -> int:
    ranks = {name: value.shape[0 if ".lora_A." in name else 1] for name, value in weights.items()}
    rank = ranks[min(ranks)]
    others = [name for name, value in ranks.items() if value != rank]
    if others:
        raise InputError(
            f"the LoRA in {origin} has several ranks, {sorted(set(ranks.values()))}: {name_keys(others)} differs from "
            f"the {rank} of {min(ranks)}; one editor has one"
        )
    return rank
