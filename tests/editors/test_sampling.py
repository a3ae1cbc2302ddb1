"""Sampling an edit: where its noise comes from, and that nothing of the network or the scheduler stays changed."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from insvie_lightning.diffusion.guidance import Guidance
from insvie_lightning.editors import InsViE
from insvie_lightning.editors.sampling import draw_starts, sample_edit, seeded_generator

Make = Callable[..., InsViE]
CPU = torch.device("cpu")
SHAPE = (2, 16, 4, 6)


def test_noise_is_that_of_key_and_seed() -> None:
    noise, generators = draw_starts(["a", "b"], 0, SHAPE, CPU)
    assert noise.shape == (2, *SHAPE) and len(generators) == 2
    alone, (going_on,) = draw_starts(["b"], 0, SHAPE, CPU)
    assert torch.equal(alone[0], noise[1])
    assert torch.equal(torch.randn(3, generator=going_on), torch.randn(3, generator=generators[1]))
    others = [draw_starts(["b"], 1, SHAPE, CPU)[0][0], noise[0]]
    assert not any(torch.allclose(other, noise[1]) for other in others)


def test_a_name_is_a_seed() -> None:
    draws = [
        float(torch.rand(1, generator=seeded_generator(name, CPU))) for name in ("0/s1/3/0", "0/s1/3/0", "0/s1/4/0")
    ]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("sampler", ["ddim", "dpm"])
def test_hoisted_or_not_it_is_the_same_edit(make_editor: Make, sampler: str) -> None:
    editor = make_editor(random_weights=True, sampler=sampler)
    generator = torch.Generator().manual_seed(0)
    source, prompts = torch.randn(2, *SHAPE, generator=generator), torch.randn(2, 16, 64, generator=generator)
    state, calls = str(vars(editor.scheduler)), []
    editor.transformer.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))

    def edit(hoist: bool, guidance: Guidance = Guidance(3.0, 1.5)) -> Tensor:  # noqa: B008 (frozen)
        starts = draw_starts(["a", "b"], 0, SHAPE, CPU)
        return sample_edit(editor.transformer, editor.scheduler, starts, source, prompts, guidance, 3, hoist)

    torch.testing.assert_close(edit(True), edit(False), rtol=0, atol=1e-5)
    assert calls == [6] * 6 and str(vars(editor.scheduler)) == state
    assert not torch.allclose(edit(True, Guidance(1.0, 1.0)), edit(True), atol=1e-3)
    assert calls[6:9] == [2] * 3  # one branch is all that counts


def test_blocks_are_left_out_only_if_asked(make_editor: Make) -> None:
    """With `reuse`, steps of three branches and of one are kept apart."""
    editor = make_editor(random_weights=True)
    generator, calls = torch.Generator().manual_seed(0), []
    source, prompts = torch.randn(2, *SHAPE, generator=generator), torch.randn(2, 16, 64, generator=generator)
    editor.transformer.transformer_blocks[1].attn1.register_forward_hook(lambda *_: calls.append(1))

    def edit(step_cache: float, skip: bool = True, reuse: int = 1) -> tuple[Tensor, int]:
        calls.clear()
        guidance = Guidance(3.0, 1.5, reuse=reuse, step_cache=step_cache)
        starts = draw_starts(["a", "b"], 0, SHAPE, CPU)
        transformer, scheduler = editor.transformer, editor.scheduler
        edited = sample_edit(transformer, scheduler, starts, source, prompts, guidance, 6, skip=skip)
        return edited, len(calls)

    exact, all_steps = edit(0.0)
    assert all_steps == 6
    for same, count in (edit(1e-9), edit(1e9, skip=False)):
        assert torch.equal(same, exact) and count == 6
    fast, count = edit(1e9)
    assert count == 1 and not torch.allclose(fast, exact, atol=1e-4)
    assert edit(1e9, reuse=2)[1] == 2
