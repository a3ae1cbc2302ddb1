"""Blocks left out at steps that change little, against the network as it is."""

from collections.abc import Iterator

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor
from torch._dynamo.utils import counters

from insvie_lightning.nets.execution import compile_blocks
from insvie_lightning.nets.hoisting import hoisted
from insvie_lightning.nets.step_cache import step_cache

STEPS = torch.tensor([900, 890, 880, 870])
PROMPTS = torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(0))
SOURCES = [torch.randn(2, 3, 16, 8, 12, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]


@pytest.fixture
def transformer() -> Iterator[CogVideoXTransformer3DModel]:
    torch._dynamo.reset()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        yield CogVideoXTransformer3DModel(
            num_attention_heads=2, attention_head_dim=16, num_layers=3, time_embed_dim=32, text_embed_dim=24,
            in_channels=32, sample_width=12, sample_height=8, sample_frames=9, max_text_seq_length=7,
        ).eval()  # fmt: skip
    torch._dynamo.reset()


def run(transformer: CogVideoXTransformer3DModel, threshold: float, sources: list[Tensor]) -> list[Tensor]:
    """What is said at every step, of one source after the other."""
    noisy = torch.randn(2, 3, 16, 8, 12, generator=torch.Generator().manual_seed(3))
    said = []
    with hoisted(transformer, STEPS) as set_step, step_cache(transformer, threshold) as seen:
        for place, step in enumerate(STEPS):
            set_step(step)
            for source in sources:
                with seen(source):
                    inputs = torch.cat([noisy * (1 - 0.03 * place), source], 2)
                    said.append(transformer(inputs, PROMPTS, step.expand(2), return_dict=False)[0])
    return said


def test_only_what_changes_little_is_left_out(transformer: CogVideoXTransformer3DModel) -> None:
    calls: list[list[int]] = [[], [], []]
    for seen, block in zip(calls, transformer.transformer_blocks, strict=True):
        block.attn1.register_forward_hook(lambda *_, seen=seen: seen.append(1))
    names, plain = list(transformer.state_dict()), run(transformer, 0.0, SOURCES)
    exact = run(transformer, 1e-9, SOURCES)
    assert all(torch.equal(one, other) for one, other in zip(exact, plain, strict=True))
    assert [len(seen) for seen in calls] == [16, 16, 16]
    skipped = run(transformer, 1e9, SOURCES)
    assert [len(seen) for seen in calls] == [24, 18, 18]  # the others at the first step of each source
    assert all(torch.equal(skipped[place], plain[place]) for place in range(2))
    errors = [float((one - other).norm() / other.norm()) for one, other in zip(skipped[2:], plain[2:], strict=True)]
    assert min(errors) > 1e-4 and max(errors) < 0.2
    assert list(transformer.state_dict()) == names and not transformer.is_cache_enabled
    with pytest.raises(RuntimeError, match="within"), step_cache(transformer, 0.1):
        raise RuntimeError("within")
    assert all(torch.equal(one, other) for one, other in zip(run(transformer, 0.0, SOURCES), plain, strict=True))


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.proof)])
def test_a_second_edit_compiles_nothing_anew(transformer: CogVideoXTransformer3DModel, backend: str) -> None:
    plain, graphs = run(transformer, 0.05, SOURCES[:1]), []
    compile_blocks(transformer, backend)
    for _ in range(3):
        said = run(transformer, 0.05, [SOURCES[0].clone()])
        graphs.append(counters["stats"]["unique_graphs"])
        torch.testing.assert_close(said, plain, rtol=1e-5, atol=1e-5)
    assert graphs[0] > 0 and len(set(graphs)) == 1


def test_a_network_of_one_block_leaves_out_none(transformer: CogVideoXTransformer3DModel) -> None:
    transformer.transformer_blocks = transformer.transformer_blocks[:1]
    plain = run(transformer, 0.0, SOURCES)
    assert all(torch.equal(one, other) for one, other in zip(run(transformer, 1e9, SOURCES), plain, strict=True))
