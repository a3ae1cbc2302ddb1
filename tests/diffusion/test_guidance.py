"""Three-branch guidance against its definition, branch by branch."""

import pytest
import torch
from torch import Tensor

from insvie_lightning.diffusion.guidance import Guidance, guided

SOURCE = torch.randn(2, 3, 16, 4, 6, generator=torch.Generator().manual_seed(0))
PROMPTS = torch.randn(2, 7, 8, generator=torch.Generator().manual_seed(1))
NOISY = torch.randn(2, 3, 16, 4, 6, generator=torch.Generator().manual_seed(2))
TIMESTEP = torch.tensor(7)
SCALES = [(7.5, 1.2), (1.0, 1.0), (7.5, 1.0), (1.0, 3.0), (3.0, 3.0), (0.0, 0.0), (5.0, 0.0)]


class Network:
    """Mixes all of its inputs, not linearly; remembers the batch sizes it was called with."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, noisy: Tensor, source: Tensor, prompts: Tensor, timesteps: Tensor) -> Tensor:
        assert len(noisy) == len(source) == len(prompts) == len(timesteps)
        self.batches.append(len(noisy))
        text = prompts.sum((1, 2)).reshape(-1, 1, 1, 1, 1)
        return torch.sin(noisy + 2 * source) * torch.cos(text) + source * text + timesteps.reshape(-1, 1, 1, 1, 1)


def branches() -> tuple[Tensor, Tensor, Tensor]:
    """v_uu, v_cu and v_cc by three calls."""
    network, times, no_source, no_text = (
        Network(),
        TIMESTEP.expand(2),
        torch.zeros_like(SOURCE),
        torch.zeros_like(PROMPTS),
    )
    return (
        network(NOISY, no_source, no_text, times),
        network(NOISY, SOURCE, no_text, times),
        network(NOISY, SOURCE, PROMPTS, times),
    )


def run(guidance: Guidance) -> tuple[Tensor, list[int]]:
    network = Network()
    return guided(network, SOURCE, PROMPTS, guidance)(NOISY, TIMESTEP), network.batches


def test_without_guidance_the_conditional_branch_runs_alone() -> None:
    result, batches = run(Guidance(guidance_scale=1.0, video_guidance_scale=1.0))
    assert batches == [2]
    torch.testing.assert_close(result, branches()[2], atol=0, rtol=0)


@pytest.mark.parametrize(
    ("scales", "count"), [((7.5, 1.2), 3), ((7.5, 1.0), 2), ((3.0, 3.0), 2), ((0.0, 1.0), 1), ((0.0, 0.0), 1)]
)
def test_branches_of_weight_zero_are_not_computed(scales: tuple[float, float], count: int) -> None:
    assert run(Guidance(*scales))[1] == [2 * count]


@pytest.mark.parametrize("scales", SCALES)
def test_the_instruct_pix2pix_form(scales: tuple[float, float]) -> None:
    text, video = scales
    uu, cu, cc = branches()
    expected = uu + video * (cu - uu) + text * (cc - cu)
    torch.testing.assert_close(run(Guidance(text, video))[0], expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("scales", SCALES)
def test_weights_sum_to_one(scales: tuple[float, float]) -> None:
    assert sum(Guidance(*scales).weights()) == pytest.approx(1)


def test_the_printed_equation_is_this_form_with_more_source() -> None:
    """Equation 2 of the paper with (s_V, s_T) is the InstructPix2Pix form with (s_V + s_T, s_T)."""
    text, video = 4.0, 1.5
    uu, cu, cc = branches()
    printed = uu + video * (cu - uu) + text * (cc - uu)
    result, _ = run(Guidance(guidance_scale=text, video_guidance_scale=video + text))
    torch.testing.assert_close(result, printed, atol=1e-4, rtol=1e-5)
