"""The denoising loop with networks whose answer is known."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler
from torch import Tensor

from insvie_lightning.diffusion.sampling import sample

CLEAN = torch.randn(2, 3, 16, 4, 6, generator=torch.Generator().manual_seed(0))
NOISE = torch.randn(2, 3, 16, 4, 6, generator=torch.Generator().manual_seed(1))
KINDS = pytest.mark.parametrize("kind", [CogVideoXDDIMScheduler, CogVideoXDPMScheduler], ids=["ddim", "dpm"])


def build(kind: Any) -> Any:
    return kind(
        snr_shift_scale=3.0, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )


class Oracle:
    """Knows the clean latents: v = (a z_t - z_0) / sqrt(1 - a^2). Remembers the timesteps it was asked at."""

    def __init__(self, scheduler: Any) -> None:
        self.alphas_cumprod = scheduler.alphas_cumprod
        self.timesteps: list[int] = []

    def __call__(self, noisy: Tensor, timestep: Tensor) -> Tensor:
        self.timesteps.append(int(timestep))
        abar = self.alphas_cumprod[timestep]
        return (abar.sqrt() * noisy - CLEAN) / (1 - abar).sqrt()


@KINDS
@pytest.mark.parametrize("steps", [1, 2, 10, 50])
def test_a_network_that_knows_the_clean_latents_gets_them_back(kind: Any, steps: int) -> None:
    scheduler = build(kind)
    oracle = Oracle(scheduler)
    latents = sample(oracle, scheduler, NOISE, steps, torch.Generator().manual_seed(0))
    assert len(oracle.timesteps) == steps
    torch.testing.assert_close(latents, CLEAN, atol=1e-3, rtol=0)


@KINDS
def test_timesteps_are_the_trailing_ones_of_the_release(kind: Any) -> None:
    scheduler = build(kind)
    oracle = Oracle(scheduler)
    sample(oracle, scheduler, NOISE, 50, torch.Generator().manual_seed(0))
    assert oracle.timesteps == list(range(999, 0, -20))


def test_ddim_is_deterministic_and_dpm_takes_its_noise_from_the_generator() -> None:
    def run(kind: Any, seed: int) -> Tensor:
        return sample(lambda noisy, t: 0.1 * noisy, build(kind), NOISE, 4, torch.Generator().manual_seed(seed))

    assert torch.equal(run(CogVideoXDDIMScheduler, 0), run(CogVideoXDDIMScheduler, 1))
    assert torch.equal(run(CogVideoXDPMScheduler, 0), run(CogVideoXDPMScheduler, 0))
    assert not torch.allclose(run(CogVideoXDPMScheduler, 0), run(CogVideoXDPMScheduler, 1), atol=0.01)


def test_every_sample_can_have_noise_of_its_own() -> None:
    def run(*seeds: int) -> Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        scheduler = build(CogVideoXDPMScheduler)
        return sample(lambda noisy, t: 0.1 * noisy, scheduler, NOISE[:1].repeat(len(seeds), 1, 1, 1, 1), 4, generators)

    both = run(3, 4)
    torch.testing.assert_close(both, torch.cat([run(3), run(4)]))
    assert not torch.allclose(both[0], both[1], atol=0.01)


def test_dpm_is_second_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step gets the clean latents and the timestep of the one before."""
    scheduler, seen = build(CogVideoXDPMScheduler), []
    step = scheduler.step

    def recorded(
        prediction: Tensor, old: Tensor | None, timestep: Tensor, previous: Any, *rest: Any, **named: Any
    ) -> Any:
        result = step(prediction, old, timestep, previous, *rest, **named)
        seen.append((old, previous, timestep, result[1]))
        return result

    monkeypatch.setattr(scheduler, "step", recorded)
    sample(lambda noisy, t: 0.1 * noisy, scheduler, NOISE, 5, torch.Generator().manual_seed(0))
    assert seen[0][:2] == (None, None)
    for before, after in pairwise(seen):
        assert after[0] is before[3] and after[1] == before[2]


def test_half_precision_networks_are_sampled_in_float32() -> None:
    latents = sample(lambda noisy, t: (0.1 * noisy).bfloat16(), build(CogVideoXDDIMScheduler), NOISE, 2)
    assert latents.dtype == torch.float32
