"""The released sampler against the figures of its formulas and against diffusers' scheduler."""

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler
from torch import Tensor

from insvie_lightning.diffusion.released_dpm import ReleasedDPMScheduler
from insvie_lightning.diffusion.sampling import build_scheduler, sample
from insvie_lightning.errors import InputError

CONFIG = CogVideoXDDIMScheduler(
    snr_shift_scale=3.0, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
).config
RELEASED_SIGNAL = {
    999: 0.0, 979: 0.005220, 959: 0.010925, 939: 0.017135, 799: 0.076376, 499: 0.310114, 199: 0.701001, 59: 0.916359,
    39: 0.945623, 19: 0.973940,
}  # fmt: skip
"""a at timesteps of the released 50 steps (sampling.py, rescaled after the steps are picked), from its formula."""
NOISE = torch.randn(2, 3, 4, 4, 6, generator=torch.Generator().manual_seed(1))


def build(steps: int) -> ReleasedDPMScheduler:
    scheduler = build_scheduler("released", CONFIG)
    scheduler.set_timesteps(steps)
    return scheduler


def network(noisy: Tensor, timestep: Tensor) -> Tensor:
    return torch.sin(3 * noisy) + 1e-3 * timestep


def test_the_noise_levels_of_50_steps_are_the_released_ones() -> None:
    scheduler = build(50)
    assert scheduler.timesteps.tolist() == list(range(999, 0, -20))
    signal = dict(zip(scheduler.timesteps.tolist(), scheduler.subset_abar.sqrt().tolist(), strict=False))
    assert {t: signal[t] for t in RELEASED_SIGNAL} == pytest.approx(RELEASED_SIGNAL, abs=1e-6)
    assert scheduler.subset_abar[-1] == 1
    full = scheduler.alphas_cumprod[scheduler.timesteps].sqrt()
    assert float((scheduler.subset_abar[:-1].sqrt() - full).abs().max()) == pytest.approx(1.02e-3, abs=5e-6)


def test_the_network_is_read_at_the_nearest_entry_of_the_full_table() -> None:
    """Index t from 179 up, t - 1 below."""
    scheduler = build(50)
    expected = scheduler.alphas_cumprod[[t if t >= 179 else t - 1 for t in scheduler.timesteps.tolist()]]
    assert torch.equal(scheduler.network_abar, expected)


@pytest.mark.parametrize("steps", [3, 7, 30, 50, 999, 1000])
def test_timesteps_are_rounded_down(steps: int) -> None:
    timesteps = build(steps).timesteps.tolist()
    assert timesteps == [int(999 - 999 * i / steps) for i in range(steps)]


@pytest.mark.parametrize("steps", [0, 1, 1001])
def test_an_illegal_number_of_steps_is_one_sentence(steps: int) -> None:
    with pytest.raises(InputError, match=rf"num_inference_steps is {steps}; the released sampler takes 2 to 1000"):
        build(steps)


def test_on_the_full_table_it_is_the_scheduler_of_diffusers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own noise levels apart, both are the same solver: first, second and last order, and the noise."""
    steps, draws = 5, torch.randn(9, *NOISE.shape, generator=torch.Generator().manual_seed(0))
    queue = iter(draws)
    name = "diffusers.schedulers.scheduling_dpm_cogvideox.randn_tensor"
    monkeypatch.setattr(name, lambda *shape, **where: next(queue))
    expected = sample(network, build_scheduler("dpm", CONFIG), NOISE, steps)
    scheduler = build_scheduler("released", CONFIG)
    own = scheduler.set_timesteps

    def on_the_full_table(number: int, device: torch.device) -> None:
        own(number, device)
        scheduler.network_abar = scheduler.alphas_cumprod[scheduler.timesteps]
        scheduler.subset_abar = torch.cat([scheduler.network_abar, torch.ones(1)])

    monkeypatch.setattr(scheduler, "set_timesteps", on_the_full_table)
    # diffusers draws once in the first step and twice in the later ones, and uses the second.
    result = sample(network, scheduler, NOISE, steps, step_noises=[*draws[0::2]][: steps - 1])
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)


def test_recorded_noises_stand_for_the_draws() -> None:
    scheduler, seed = build_scheduler("released", CONFIG), torch.Generator().manual_seed(3)
    drawn = sample(network, scheduler, NOISE, 4, seed)
    again = torch.Generator().manual_seed(3)
    recorded = [torch.randn(NOISE.shape, generator=again) for _ in range(3)]
    assert torch.equal(sample(network, scheduler, NOISE, 4, step_noises=recorded), drawn)
    assert not torch.allclose(sample(network, scheduler, NOISE, 4, step_noises=recorded[::-1]), drawn, atol=0.01)
