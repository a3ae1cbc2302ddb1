"""The names of SwissArmyTransformer (SAT), in which InsViE was released, and those of diffusers: one to one.

SAT keeps query, key and value in one matrix, and the twelve modulation vectors of a layer in one; diffusers splits
both. The names are those of the released code (`CogVideo/sat`) and of diffusers' `CogVideoXTransformer3DModel`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from insvie_lightning.weights.checks import require_keys

_MODEL = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "mixins.patch_embed.text_proj": "patch_embed.text_proj",
    "transformer.final_layernorm": "norm_final",
    "mixins.final_layer.norm_final": "norm_out.norm",
    "mixins.final_layer.adaLN_modulation.1": "norm_out.linear",  # shift, scale in both
    "mixins.final_layer.linear": "proj_out",  # features in the order channel, row, column in both
}
_BLOCK = {
    "transformer.layers.{}.attention.query_key_value": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "transformer.layers.{}.attention.dense": ("attn1.to_out.0",),
    "mixins.adaln_layer.query_layernorm_list.{}": ("attn1.norm_q",),
    "mixins.adaln_layer.key_layernorm_list.{}": ("attn1.norm_k",),
    "transformer.layers.{}.input_layernorm": ("norm1.norm",),
    "transformer.layers.{}.post_attention_layernorm": ("norm2.norm",),
    "mixins.adaln_layer.adaLN_modulations.{}.1": ("norm1.linear", "norm2.linear"),
    "transformer.layers.{}.mlp.dense_h_to_4h": ("ff.net.0.proj",),
    "transformer.layers.{}.mlp.dense_4h_to_h": ("ff.net.2",),
}
PATCH, PATCH_EDIT = "mixins.patch_embed.proj", "mixins.patch_embed.proj_edit"
"""The patch embedding of the text-to-video base, which an InsViE checkpoint keeps unused, and that of the editor."""
_DROPPED = re.compile(r"mixins\.pos_embed\.|transformer\.(position|word)_embeddings\.|.*embed_tokens")
"""Tables that the network recomputes (positions), or has no use for (a vocabulary of one)."""
_ENDS = ("weight", "bias")


def to_diffusers(state: Mapping[str, Tensor], origin: str = "the SAT checkpoint") -> dict[str, Tensor]:
    """The weights of a SAT transformer under diffusers' names.

    diffusers computes the last norm with eps 1e-5 where SAT has 1e-6, which moves the output by some 4e-6 of its norm;
    for closer parity set `norm_out.norm.eps`.

    Args:
        state: Plain weights, `model.diffusion_model.` stripped. With `proj_edit` (channels noisy, source) that becomes
            the patch embedding and the unused `proj` is dropped; without it `proj` does, as in the text-to-video base.
        origin: What an error names as the place.

    Raises:
        InputError: When keys are missing or left over; names every one.
    """
    layers = {int(found[1]) for key in state if (found := re.match(r"transformer\.layers\.(\d+)\.", key))}
    edits = f"{PATCH_EDIT}.weight" in state
    names = _layout(range(max(layers, default=0) + 1), PATCH_EDIT if edits else PATCH)
    unused = {f"{PATCH}.{end}" for end in _ENDS} if edits else set()
    kept = {key for key in state if not is_table(key)} - unused
    require_keys([f"{sat}.{end}" for sat in names for end in _ENDS], kept, origin)
    return {
        f"{target}.{end}": rows
        for sat, targets in names.items()
        for end in _ENDS
        for target, rows in zip(targets, _split(state[f"{sat}.{end}"], sat, len(targets)), strict=True)
    }


def from_diffusers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_diffusers`, bit for bit; without the tables and the unused `proj` that it drops."""
    blocks = {int(key.split(".")[1]) for key in state if key.startswith("transformer_blocks.")}
    edits = state["patch_embed.proj.weight"][0].numel() != len(state["proj_out.weight"])  # noisy and source to noisy
    return {
        f"{sat}.{end}": _merge([state[f"{target}.{end}"] for target in targets], sat)
        for sat, targets in _layout(sorted(blocks), PATCH_EDIT if edits else PATCH).items()
        for end in _ENDS
    }


def is_table(key: str) -> bool:
    """Whether a key is one that `to_diffusers` drops, apart from the unused patch embedding."""
    return _DROPPED.match(key) is not None


def lora_names(layers: int) -> dict[str, str]:
    """SAT's name of every LoRA matrix of a transformer, and PEFT's: `layers` x 4 projections x 2."""
    return {
        f"{sat.format(layer)}.matrix_{half}.{part}": f"transformer_blocks.{layer}.{target}.lora_{half}.weight"
        for layer in range(layers)
        for sat, targets in _BLOCK.items()
        if ".attention." in sat
        for part, target in enumerate(targets)
        for half in "AB"
    }


def _layout(blocks: Iterable[int], patch: str) -> dict[str, tuple[str, ...]]:
    """SAT's modules, and those of diffusers that the rows of each are split into."""
    names: dict[str, tuple[str, ...]] = {patch: ("patch_embed.proj",)}
    names |= {sat: (target,) for sat, target in _MODEL.items()}
    for block in blocks:
        for sat, targets in _BLOCK.items():
            names[sat.format(block)] = tuple(f"transformer_blocks.{block}.{target}" for target in targets)
    return names


def _streams(sat: str) -> int:
    """Modulation has a half for video and one for text, each with attention (norm1) before feed-forward (norm2)."""
    return 2 if "adaLN_modulations" in sat else 1


def _split(rows: Tensor, sat: str, parts: int) -> Iterator[Tensor]:
    """Rows in the order (stream, part, row) -> for each part its rows (stream, row)."""
    by_part = rows.unflatten(0, (_streams(sat), parts, -1))
    return (by_part[:, part].flatten(0, 1).contiguous() for part in range(parts))


def _merge(parts: list[Tensor], sat: str) -> Tensor:
    """Inverse of `_split`."""
    return torch.stack([part.unflatten(0, (_streams(sat), -1)) for part in parts], 1).flatten(0, 2)
