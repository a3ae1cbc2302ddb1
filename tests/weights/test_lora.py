"""LoRA under the names of every tool: the same outputs, the same rank and scale."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import CogVideoXPipeline, CogVideoXTransformer3DModel
from safetensors.torch import save_file
from torch import Tensor

from insvie_lightning.errors import InputError
from insvie_lightning.nets.source_concat import add_lora
from insvie_lightning.weights.deliverable import load_trainable
from insvie_lightning.weights.lora import Lora, for_tools, from_sat, from_tool, is_tool_lora, to_sat
from insvie_lightning.weights.released import Released, read_released
from insvie_lightning.weights.sat import lora_names
from insvie_lightning.weights.sat_checkpoint import find_checkpoint, read_checkpoint

Numbers = dict[str, Tensor]


@pytest.fixture(scope="module")
def released(checkpoint: Path) -> Released:
    return read_released(find_checkpoint(checkpoint))


def network(build, released: Released, forward: Numbers) -> CogVideoXTransformer3DModel:
    """The released editor without its LoRA, in plain diffusers."""
    patch = {name: value for name, value in released.trained.items() if name.startswith("patch_embed.")}
    plain = build(released.frozen | patch, forward["x"], forward["context"])
    plain.load_state_dict(released.frozen | patch)
    return plain


def output(network: CogVideoXTransformer3DModel, forward: Numbers) -> Tensor:
    return network(forward["x"], forward["context"], forward["timesteps"], return_dict=False)[0]


def test_golden_lora(build, released: Released, lora_forward: Numbers, error: Callable) -> None:
    assert released.lora is not None and released.lora.alpha == 1
    editor = network(build, released, lora_forward)
    assert error(output(editor, lora_forward), lora_forward["y_without_lora"]) <= 1e-5
    assert error(output(editor, lora_forward), lora_forward["y"]) > 1e-3
    add_lora(editor, released.lora.rank, released.lora.alpha)
    load_trainable(editor, released.trained, "x")
    assert error(output(editor, lora_forward), lora_forward["y"]) <= 1e-5


def test_golden_lora_merged_by_hand(build, released: Released, lora_forward: Numbers, error: Callable) -> None:
    """W += 1 / rank * B A."""
    assert released.lora is not None
    editor = network(build, released, lora_forward)
    for name, value in released.lora.weights.items():
        if ".lora_A." in name:
            up = released.lora.weights[name.replace("lora_A", "lora_B")]
            editor.get_submodule(name.rpartition(".lora_A.")[0]).weight += up @ value / len(value)
    assert error(output(editor, lora_forward), lora_forward["y"]) <= 1e-5


@pytest.mark.parametrize("mutation", ["scale 1", "query and key swapped", "rows of A reversed"])
def test_golden_lora_tells_mutations(build, released: Released, lora_forward, error: Callable, mutation: str) -> None:
    assert released.lora is not None
    trained = dict(released.trained)
    alpha = released.lora.rank if mutation == "scale 1" else 1.0
    for half in "AB":
        one, other = (f"transformer_blocks.0.attn1.{target}.lora_{half}.weight" for target in ("to_q", "to_k"))
        if mutation.startswith("query"):
            trained[one], trained[other] = trained[other], trained[one]
    if mutation.startswith("rows"):
        trained["transformer_blocks.0.attn1.to_v.lora_A.weight"] = trained[
            "transformer_blocks.0.attn1.to_v.lora_A.weight"
        ].flip(0)
    editor = network(build, released, lora_forward)
    add_lora(editor, released.lora.rank, alpha)
    load_trainable(editor, trained, "x")
    assert error(output(editor, lora_forward), lora_forward["y"]) > 1e-4


def test_golden_lora_in_plain_diffusers(build, released, lora_forward, error: Callable, tmp_path: Path) -> None:
    assert released.lora is not None
    save_file(for_tools(released.lora), tmp_path / "pytorch_lora_weights.safetensors")
    editor = network(build, released, lora_forward)
    state, header = CogVideoXPipeline.lora_state_dict(tmp_path, return_lora_metadata=True)
    CogVideoXPipeline.load_lora_into_transformer(state, editor, metadata=header)
    assert error(output(editor, lora_forward), lora_forward["y"]) <= 1e-5


def test_golden_matrices_come_back_bit_for_bit(checkpoint: Path) -> None:
    matrices = read_checkpoint(find_checkpoint(checkpoint)).matrices
    again = to_sat(from_sat(matrices, "x"))
    assert again.keys() == matrices.keys() == lora_names(len(matrices) // 8).keys()
    assert all(torch.equal(again[name], value) for name, value in matrices.items())


# ---------------------------------------------------------------- names of tools


def lora(rank: int = 4, alpha: float = 2.0) -> Lora:
    draw = torch.Generator().manual_seed(0)
    names = lora_names(2).values()
    return Lora(
        {name: torch.randn((rank, 6) if "lora_A" in name else (6, rank), generator=draw) for name in names}, rank, alpha
    )


def product(lora: Lora) -> Numbers:
    """What LoRA adds to every weight."""
    return {
        name: lora.alpha / lora.rank * lora.weights[name.replace("lora_A", "lora_B")] @ value
        for name, value in lora.weights.items()
        if "lora_A" in name
    }


def same(one: Lora, other: Lora) -> bool:
    left, right = product(one), product(other)
    return left.keys() == right.keys() and all(torch.allclose(left[name], right[name]) for name in left)


def kohya(name: str) -> str:
    module, half = name.removesuffix(".weight").split(".lora_")
    return f"lora_unet_{module.replace('.', '_')}.lora_{'down' if half == 'A' else 'up'}.weight"


NAMES = {
    "diffusers": lambda name: f"transformer.{name}",
    "PEFT": lambda name: f"base_model.model.{name}",
    "PEFT with adapter": lambda name: f"base_model.model.{name.replace('.weight', '.default.weight')}",
    "ours": lambda name: name,
    "ComfyUI": lambda name: f"diffusion_model.{name}",
    "ComfyUI, down and up": lambda name: f"diffusion_model.{name}".replace("lora_A", "lora_down").replace(
        "lora_B", "lora_up"
    ),
    "older diffusers": lambda name: f"transformer.{name}".replace("lora_A", "lora.down").replace("lora_B", "lora.up"),
    "kohya": kohya,
}


@pytest.mark.parametrize("tool", NAMES)
def test_names_of_tools_are_read(tool: str) -> None:
    original = lora()
    state = {NAMES[tool](name): value for name, value in original.weights.items()}
    assert is_tool_lora(state)
    again = from_tool(state, {}, "x")
    assert (again.rank, again.alpha) == (4, 4) and again.weights.keys() == original.weights.keys()
    assert all(torch.equal(again.weights[name], value) for name, value in original.weights.items())
    alphas = {name.rpartition(".lora")[0] + ".alpha": torch.tensor(2.0) for name in state}
    assert same(from_tool(state | alphas, {}, "x"), original)


def test_the_scale_in_the_header_is_read() -> None:
    state = {f"transformer.{name}": value for name, value in lora().weights.items()}
    header = {"lora_adapter_metadata": json.dumps({"transformer.r": 4, "transformer.lora_alpha": 2})}
    assert same(from_tool(state, header, "x"), lora())


@pytest.mark.parametrize("alpha", [1.0, 2.0, 4.0])
def test_what_is_written_for_tools_needs_no_alpha(alpha: float) -> None:
    assert same(from_tool(for_tools(lora(alpha=alpha)), {}, "x"), lora(alpha=alpha))


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_what_is_written_for_sat_has_its_scale(alpha: float) -> None:
    assert same(from_sat(to_sat(lora(alpha=alpha)), "x"), lora(alpha=alpha))


def test_other_weights_are_no_lora() -> None:
    assert not is_tool_lora({"transformer_blocks.0.attn1.to_q.weight": torch.ones(1)})


def test_several_ranks_are_one_sentence() -> None:
    state = for_tools(lora())
    for half, shape in (("A", (2, 6)), ("B", (6, 2))):
        state[f"transformer.transformer_blocks.1.attn1.to_v.lora_{half}.weight"] = torch.ones(shape)
    with pytest.raises(InputError, match=r"^the LoRA in x has several ranks, \[2, 4\]: .*1\.attn1\.to_v"):
        from_tool(state, {}, "x")


def test_several_scales_are_one_sentence() -> None:
    state = for_tools(lora())
    for target, alpha in (("to_q", 1.0), ("to_k", 2.0)):
        state[f"transformer.transformer_blocks.0.attn1.{target}.alpha"] = torch.tensor(alpha)
    with pytest.raises(InputError, match=r"^the LoRA in x has several scales, alpha \[1\.0, 2\.0\]"):
        from_tool(state, {}, "x")


def test_missing_and_left_over_matrices_are_named() -> None:
    state = for_tools(lora())
    del state["transformer.transformer_blocks.1.attn1.to_v.lora_B.weight"]
    state["transformer.transformer_blocks.1.ff.net.2.lora_B.weight"] = torch.ones(1)
    with pytest.raises(InputError) as caught:
        from_tool(state, {}, "x")
    assert str(caught.value) == (
        "the LoRA in x holds the weights of another model: without transformer_blocks.1.attn1.to_v.lora_B.weight; "
        "with unknown transformer.transformer_blocks.1.ff.net.2.lora_B.weight"
    )
    with pytest.raises(InputError, match=r"without .*dense\.matrix_A\.0, .*dense\.matrix_B\.0"):
        from_sat({key: value for key, value in to_sat(lora()).items() if "dense" not in key}, "x")
