"""Hoisted parts against the network as it is."""

import copy

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models import embeddings
from torch import Tensor, nn
from torch._dynamo.utils import counters

from insvie_lightning.nets.execution import compile_blocks
from insvie_lightning.nets.hoisting import hoisted, remember_positions

STEPS = torch.tensor([999, 666, 333])


@pytest.fixture
def transformer() -> CogVideoXTransformer3DModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CogVideoXTransformer3DModel(
            num_attention_heads=2, attention_head_dim=16, num_layers=2, time_embed_dim=32, text_embed_dim=24,
            sample_width=12, sample_height=8, sample_frames=9, max_text_seq_length=7,
        ).eval()  # fmt: skip


def predict(transformer: CogVideoXTransformer3DModel, prompts: Tensor, timestep: Tensor) -> Tensor:
    noisy = torch.randn(2, 3, 16, 8, 12, generator=torch.Generator().manual_seed(1))
    return transformer(noisy, prompts, timestep.expand(2), return_dict=False)[0]


def calls(layer: nn.Module) -> list[int]:
    seen: list[int] = []
    layer.register_forward_hook(lambda *_: seen.append(1))
    return seen


@torch.no_grad()
def test_every_step_is_that_of_the_plain_network(transformer: CogVideoXTransformer3DModel) -> None:
    prompts = [torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(n)) for n in range(2)]
    plain = [predict(transformer, text, step) for text in prompts for step in STEPS]
    names = list(transformer.state_dict())
    modulations, words = calls(transformer.transformer_blocks[0].norm1.linear), calls(transformer.patch_embed.text_proj)
    found = []
    with hoisted(transformer, STEPS) as set_step:
        for text in prompts:
            for step in STEPS:
                set_step(step)
                found.append(predict(transformer, text, step))
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert len(modulations) == 1 and len(words) == len(prompts)
    assert (plain[0] - plain[1]).abs().max() > 1e-3 and (plain[0] - plain[3]).abs().max() > 1e-3
    assert list(transformer.state_dict()) == names
    assert torch.equal(predict(transformer, prompts[0], STEPS[0]), plain[0])


def test_an_error_leaves_the_network_as_it_was(transformer: CogVideoXTransformer3DModel) -> None:
    names = list(transformer.state_dict())
    with pytest.raises(RuntimeError, match="within"), hoisted(transformer, STEPS):
        raise RuntimeError("within")
    assert list(transformer.state_dict()) == names


@torch.no_grad()
def test_another_number_of_steps_compiles_nothing_anew(transformer: CogVideoXTransformer3DModel) -> None:
    torch._dynamo.reset()
    compile_blocks(transformer, "eager")
    prompts, graphs = torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(0)), []
    for steps in (STEPS, STEPS[:2], torch.tensor([999, 749, 499, 249])):
        with hoisted(transformer, steps) as set_step:
            for step in steps:
                set_step(step)
                predict(transformer, prompts, step)
        graphs.append(counters["stats"]["unique_graphs"])
    torch._dynamo.reset()
    assert graphs[0] > 0 and len(set(graphs)) == 1


def test_positions_of_a_size_are_computed_once(
    transformer: CogVideoXTransformer3DModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes other than the base's 9 frames of 64 x 96, seen first where tensors cannot be trained on."""
    plain = copy.deepcopy(transformer)
    remember_positions(transformer)
    assert list(transformer.state_dict()) == list(plain.state_dict())
    computed: list[int] = []
    compute = embeddings.get_3d_sincos_pos_embed
    note = lambda *inputs, **options: (computed.append(1), compute(*inputs, **options))[1]  # noqa: E731
    clips = [torch.randn(1, frames, 16, 4, 6) for frames in (2, 5)]
    inputs = torch.randn(1, 7, 24), torch.tensor([500])
    expected = [plain(clip, *inputs, return_dict=False)[0] for clip in clips]
    monkeypatch.setattr(embeddings, "get_3d_sincos_pos_embed", note)
    with torch.inference_mode():
        transformer(clips[0], *inputs)
    for _ in range(2):
        for clip, truth in zip(clips, expected, strict=True):
            found = transformer(clip, *inputs, return_dict=False)[0]
            found.sum().backward()
            assert torch.equal(found, truth)
    assert len(computed) == 2
