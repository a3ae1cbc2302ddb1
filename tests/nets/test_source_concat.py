"""The widened patch embedding and LoRA: equal to the base at the start, and what is trained."""

from collections.abc import Callable

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor

from insvie_lightning.nets.source_concat import LORA_TARGETS, add_lora, concat_source, widen_patch_embedding

Make = Callable[[], CogVideoXTransformer3DModel]
NOISY, SOURCE = (torch.randn(2, 3, 16, 8, 12, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
PROMPTS = torch.randn(2, 16, 64, generator=torch.Generator().manual_seed(2))
TIMESTEPS = torch.tensor([999, 20])


def widened(make: Make, lora: bool = False) -> CogVideoXTransformer3DModel:
    transformer = make()
    widen_patch_embedding(transformer)
    if lora:
        add_lora(transformer, rank=4, alpha=2.0)
    return transformer


@torch.no_grad()
def run(transformer: CogVideoXTransformer3DModel, noisy: Tensor = NOISY, source: Tensor = SOURCE) -> Tensor:
    return concat_source(transformer, noisy, source, PROMPTS, TIMESTEPS)


@pytest.mark.parametrize("lora", [False, True], ids=["plain", "lora"])
@pytest.mark.parametrize("source", [0 * SOURCE, SOURCE, 1000 * SOURCE], ids=["none", "normal", "huge"])
@torch.no_grad()
def test_at_the_start_it_is_the_base_bit_for_bit(make_transformer: Make, source: Tensor, lora: bool) -> None:
    expected = make_transformer()(NOISY, PROMPTS, TIMESTEPS, return_dict=False)[0]
    assert expected.shape == NOISY.shape and expected.std() > 0.01
    assert torch.equal(run(widened(make_transformer, lora), source=source), expected)


def test_the_source_counts_once_the_new_half_has_learned(make_transformer: Make) -> None:
    transformer = widened(make_transformer)
    with torch.no_grad():
        transformer.patch_embed.proj.weight[:, 16:].normal_(generator=torch.Generator().manual_seed(0))
    assert (run(transformer) - run(transformer, source=0 * SOURCE)).abs().max() > 1e-3
    assert torch.equal(run(transformer, source=0 * SOURCE), run(widened(make_transformer)))


def test_the_noisy_half_comes_first(make_transformer: Make) -> None:
    base, transformer = make_transformer(), widened(make_transformer)
    with torch.no_grad():
        of_source = base(SOURCE, PROMPTS, TIMESTEPS, return_dict=False)[0]
    assert torch.equal(run(transformer, noisy=SOURCE, source=NOISY), of_source)
    with torch.no_grad():
        weight = transformer.patch_embed.proj.weight
        weight[:, 16:], weight[:, :16] = weight[:, :16].clone(), 0
    assert torch.equal(run(transformer, noisy=NOISY, source=SOURCE), of_source)


def test_exactly_lora_and_the_patch_embedding_are_trained(make_transformer: Make) -> None:
    transformer = widened(make_transformer, lora=True)
    trained = {name: tuple(p.shape) for name, p in transformer.named_parameters() if p.requires_grad}
    expected: dict[str, tuple[int, ...]] = {
        "patch_embed.proj.weight": (32, 32, 2, 2),
        "patch_embed.proj.bias": (32,),
    }
    for layer in range(2):
        for target in LORA_TARGETS:
            expected[f"transformer_blocks.{layer}.attn1.{target}.lora_A.default.weight"] = (4, 32)
            expected[f"transformer_blocks.{layer}.attn1.{target}.lora_B.default.weight"] = (32, 4)
    assert LORA_TARGETS == ("to_q", "to_k", "to_v", "to_out.0")
    assert len(expected) == 2 + 2 * 4 * 2
    assert trained == expected


def test_lora_is_scaled_by_alpha_over_rank(make_transformer: Make) -> None:
    transformer, merged = widened(make_transformer, lora=True), widened(make_transformer)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in range(2):
            for target in LORA_TARGETS:
                name = f"transformer_blocks.{layer}.attn1.{target}"
                adapted, plain = transformer.get_submodule(name), merged.get_submodule(name)
                down, up = adapted.lora_A["default"].weight, adapted.lora_B["default"].weight
                assert not up.any() and down.std() > 0
                up.copy_(torch.randn(up.shape, generator=generator))
                plain.weight += 2.0 / 4 * up @ down
    assert (run(transformer) - run(widened(make_transformer))).abs().max() > 1e-3
    torch.testing.assert_close(run(transformer), run(merged), atol=1e-4, rtol=1e-4)


def test_a_widened_network_is_saved_and_read_back(
    make_transformer: Make, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, transformer = tmp_path_factory.mktemp("widened"), widened(make_transformer)
    transformer.save_pretrained(folder)
    again = CogVideoXTransformer3DModel.from_pretrained(folder)
    assert (again.config.in_channels, again.config.out_channels) == (32, 16)
    assert torch.equal(run(again), run(transformer))


def test_latents_take_the_precision_of_the_prompts(make_transformer: Make) -> None:
    transformer = widened(make_transformer).bfloat16()
    with torch.no_grad():
        assert concat_source(transformer, NOISY, SOURCE, PROMPTS.bfloat16(), TIMESTEPS).dtype == torch.bfloat16
