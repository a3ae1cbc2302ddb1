"""Three-branch guidance against its definition, branch by branch."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from insvie_lightning.diffusion.guidance import Guidance, guided
from insvie_lightning.errors import InputError

SOURCE = torch.randn(2, 3, 16, 4, 6, generator=torch.Generator().manual_seed(0))
PROMPTS = torch.randn(2, 7, 8, generator=torch.Generator().manual_seed(1))
NOISY = torch.randn(2, 3, 16, 4, 6, generator=torch.Generator().manual_seed(2))
TIMESTEP = torch.tensor(7)
SCALES = [(7.5, 1.2), (1.0, 1.0), (7.5, 1.0), (1.0, 3.0), (3.0, 3.0), (0.0, 0.0), (5.0, 0.0)]
RELEASED = Guidance(7.5, 1.2, schedule="oscillating")
RELEASED_TEXT_SCALES = [
    2.614, 2.929, 8.468, 7.775, 3.235, 5.090, 1.047, 4.963, 1.772, 8.479, 1.006, 3.340, 8.471, 1.791, 5.162, 2.796,
    7.722, 7.259, 4.060, 3.748, 1.818, 8.013, 1.243, 5.119, 8.482, 1.652, 1.952, 1.072, 4.909, 1.603, 2.253, 7.185,
    4.929, 7.913, 7.425, 8.500, 7.460, 1.150, 2.372, 8.106, 8.499, 2.679, 7.516, 1.313, 8.500, 8.330, 1.079, 1.000,
    1.000, 1.154,
]  # fmt: skip
"""s_T of the released InsViE (guiders.py, DynamicCFG_edit) over its 50 steps, recomputed from its formula."""


class Network:
    """Mixes all of its inputs, not linearly; remembers the batch sizes it was called with."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, noisy: Tensor, source: Tensor, prompts: Tensor, timesteps: Tensor) -> Tensor:
        assert len(noisy) == len(source) == len(prompts) == len(timesteps)
        self.batches.append(len(noisy))
        text = prompts.sum((1, 2)).reshape(-1, 1, 1, 1, 1)
        return torch.sin(noisy + 2 * source) * torch.cos(text) + source * text + timesteps.reshape(-1, 1, 1, 1, 1)


def branches(timestep: Tensor = TIMESTEP) -> tuple[Tensor, Tensor, Tensor]:
    """v_uu, v_cu and v_cc by three calls."""
    network, times = Network(), timestep.expand(2)
    no_source, no_text = torch.zeros_like(SOURCE), torch.zeros_like(PROMPTS)
    return (
        network(NOISY, no_source, no_text, times),
        network(NOISY, SOURCE, no_text, times),
        network(NOISY, SOURCE, PROMPTS, times),
    )


def run(guidance: Guidance, timestep: Tensor = TIMESTEP, steps: int = 50) -> tuple[Tensor, list[int]]:
    network = Network()
    return guided(network, SOURCE, PROMPTS, guidance, steps)(NOISY, timestep), network.batches


def test_without_guidance_the_conditional_branch_runs_alone() -> None:
    result, batches = run(Guidance(guidance_scale=1.0, video_guidance_scale=1.0))
    assert batches == [2]
    torch.testing.assert_close(result, branches()[2], atol=0, rtol=0)


@pytest.mark.parametrize(
    ("guidance", "count"),
    [
        (Guidance(7.5, 1.2), 3), (Guidance(7.5, 1.0), 2), (Guidance(3.0, 3.0), 2), (Guidance(0.0, 1.0), 1),
        (Guidance(0.0, 0.0), 1), (Guidance(0.7, 0.3, "paper_eq2"), 2), (Guidance(1.0, 0.0, "paper_eq2"), 1),
        (Guidance(1.0, 1.0, "paper_eq2"), 3),
    ],
)  # fmt: skip
def test_branches_of_weight_zero_are_not_computed(guidance: Guidance, count: int) -> None:
    assert run(guidance)[1] == [2 * count]


def test_branches_are_left_out_step_by_step() -> None:
    """The cosine ramp starts at 1 and 1, where the conditional branch is all; without text it needs two branches."""
    ramp, no_text = Guidance(7.5, 1.2, schedule="cosine_ramp"), Guidance(0.0, 1.2, schedule="cosine_ramp")
    assert [run(ramp, torch.tensor(timestep))[1] for timestep in (999, 499, 19)] == [[2], [6], [6]]
    assert [run(no_text, torch.tensor(timestep))[1] for timestep in (999, 499, 19)] == [[2], [6], [6]]
    torch.testing.assert_close(run(ramp, torch.tensor(999))[0], branches(torch.tensor(999))[2], atol=0, rtol=0)


@pytest.mark.parametrize("scales", SCALES)
def test_the_instruct_pix2pix_form(scales: tuple[float, float]) -> None:
    text, video = scales
    uu, cu, cc = branches()
    expected = uu + video * (cu - uu) + text * (cc - cu)
    torch.testing.assert_close(run(Guidance(text, video))[0], expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("scales", SCALES)
def test_the_form_that_the_paper_prints(scales: tuple[float, float]) -> None:
    text, video = scales
    uu, cu, cc = branches()
    expected = uu + video * (cu - uu) + text * (cc - uu)
    result, _ = run(Guidance(text, video, "paper_eq2"))
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-5)
    same, _ = run(Guidance(guidance_scale=text, video_guidance_scale=video + text))
    torch.testing.assert_close(result, same, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("form", ["instruct_pix2pix", "paper_eq2"])
@pytest.mark.parametrize("schedule", ["constant", "cosine_ramp", "oscillating"])
@pytest.mark.parametrize("scales", SCALES)
def test_weights_sum_to_one(scales: tuple[float, float], schedule: Any, form: Any) -> None:
    guidance = Guidance(*scales, form=form, schedule=schedule)
    for timestep in (999, 499, 0):
        assert sum(guidance.weights(timestep, 50)) == pytest.approx(1)


def test_a_constant_schedule_never_changes() -> None:
    assert {Guidance(7.5, 1.2).scales(t, n) for t in (999, 499, 0) for n in (4, 50)} == {(7.5, 1.2)}


def test_the_oscillating_schedule_is_the_released_one() -> None:
    scales = [RELEASED.scales(timestep, 50) for timestep in range(999, 0, -20)]
    assert [text for text, _ in scales] == pytest.approx(RELEASED_TEXT_SCALES, abs=6e-4)
    assert [video - 1 for _, video in scales] == pytest.approx([0.16 * (text - 1) for text, _ in scales])
    # The constant defaults are near its means.
    means = [sum(column) / 50 for column in zip(*scales, strict=True)]
    assert means == pytest.approx([Guidance().guidance_scale, Guidance().video_guidance_scale], abs=0.05)


def test_the_cosine_ramp_rises_from_one_to_its_scale_for_any_number_of_steps() -> None:
    ramp = Guidance(7.5, 1.2, schedule="cosine_ramp")
    scales = [ramp.scales(timestep, 50) for timestep in range(999, -1, -1)]
    assert scales[0] == (1, 1)
    assert scales[-1] == pytest.approx((8.5, 2.2), abs=1e-3)
    assert scales == sorted(scales)
    assert ramp.scales(499, 4) == ramp.scales(499, 50)
    assert ramp.scales(499, 50)[0] == pytest.approx(1 + 7.5 * (1 - math.cos(math.pi / 32)) / 2)
    assert Guidance(7.5, 1.2, schedule="cosine_ramp", exponent=1).scales(499, 50) == pytest.approx((4.75, 1.6))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"guidance_scale": -1.0}, r"^guidance\.guidance_scale is -1\.0; legal are finite values from 0"),
        ({"guidance_scale": math.nan}, r"^guidance\.guidance_scale is nan; "),
        ({"video_guidance_scale": math.inf}, r"^guidance\.video_guidance_scale is inf; "),
        ({"form": "paper"}, r"^guidance\.form is 'paper'; legal are .*; did you mean 'paper_eq2'\?$"),
        ({"schedule": "cosine"}, r"^guidance\.schedule is 'cosine'; legal are .*; did you mean 'cosine_ramp'\?$"),
        ({"step_cache": -1}, r"^guidance\.step_cache is -1; legal are finite values from 0$"),
        ({"exponent": 0}, r"^guidance\.exponent is 0; legal are whole numbers from 1$"),
        ({"exponent": 2.5}, r"^guidance\.exponent is 2\.5; legal are whole numbers from 1$"),
    ],
)
def test_bad_settings_are_one_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Guidance(**settings)


# ---------------------------------------------------------------- reuse


def sweep(guidance: Guidance, network: Network, steps: int = 50) -> list[Tensor]:
    """Guided velocities of a whole run, whose latents stay as they are."""
    denoise = guided(network, SOURCE, PROMPTS, guidance, steps)
    return [denoise(NOISY, torch.tensor(timestep)) for timestep in range(1000 - 1000 // steps, -1, -1000 // steps)]


@pytest.mark.parametrize(("reuse", "evaluations"), [(1, 150), (2, 100), (3, 84)])
def test_branches_are_computed_at_every_so_many_th_step(reuse: int, evaluations: int) -> None:
    network = Network()
    sweep(Guidance(7.5, 1.2, reuse=reuse), network)
    assert sum(network.batches) == evaluations * len(NOISY)
    assert set(network.batches[::reuse]) == {6} and set(network.batches) == ({6} if reuse == 1 else {6, 2})


@pytest.mark.parametrize("schedule", ["constant", "oscillating", "cosine_ramp"])
@pytest.mark.parametrize("scales", [(7.5, 1.2), (7.5, 1.0), (0.0, 1.2), (1.0, 1.0)])
def test_reuse_is_exact_where_branches_differ_alike_at_all_steps(scales: tuple[float, float], schedule: Any) -> None:
    """So they do in this network while the latents stay: the timestep adds the same to all branches."""
    exact = sweep(Guidance(*scales, schedule=schedule), Network())
    reused = sweep(Guidance(*scales, schedule=schedule, reuse=3), Network())
    for one, other in zip(reused, exact, strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=1e-5)  # of up to 1000


def test_reuse_keeps_the_difference_of_the_step_before() -> None:
    guidance = Guidance(4.0, 2.0, reuse=2)
    denoise = guided(Network(), SOURCE, PROMPTS, guidance, 50)
    denoise(NOISY, TIMESTEP)
    uu, cu, cc = branches()
    text = PROMPTS.sum((1, 2)).reshape(-1, 1, 1, 1, 1)
    later = torch.sin(NOISY + 1 + 2 * SOURCE) * torch.cos(text) + SOURCE * text + 3
    one, two, _ = guidance.weights(3, 50)
    expected = later + one * (uu - cc) + two * (cu - cc)
    torch.testing.assert_close(denoise(NOISY + 1, torch.tensor(3)), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("reuse", [0, 1.5])
def test_reuse_is_a_whole_number_from_one(reuse: float) -> None:
    with pytest.raises(InputError, match=f"guidance.reuse is {reuse}; legal are whole numbers from 1"):
        Guidance(reuse=reuse)  # type: ignore[arg-type]
