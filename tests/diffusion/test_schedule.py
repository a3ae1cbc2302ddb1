"""The noise schedule against the released one's table and against diffusers, and timesteps over ranks."""

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler

from insvie_lightning.diffusion.schedule import add_noise, clean_from_velocity, stratified_timesteps, velocity

RELEASED_SIGNAL = {
    0: 0.998726, 1: 0.997397, 100: 0.853371, 200: 0.698739, 300: 0.552111, 400: 0.421411, 500: 0.308752,
    600: 0.213991, 700: 0.136534, 800: 0.075768, 900: 0.030748, 998: 0.000250, 999: 0.0,
}  # fmt: skip
"""a_t of the released InsViE (discretizer.py), recomputed from its formula."""


@pytest.fixture(scope="module")
def scheduler() -> CogVideoXDDIMScheduler:
    return CogVideoXDDIMScheduler(
        snr_shift_scale=3.0, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )


@pytest.fixture(scope="module")
def draws(scheduler: CogVideoXDDIMScheduler) -> tuple[torch.Tensor, ...]:
    """Latents, noise, timesteps over the whole range with both ends, and their abar."""
    generator = torch.Generator().manual_seed(0)
    timesteps = torch.tensor([0, 1, 250, 500, 998, 999])
    latents, noise = (torch.randn(6, 3, 16, 4, 6, generator=generator) for _ in range(2))
    return latents, noise, timesteps, scheduler.alphas_cumprod[timesteps]


def test_the_table_of_the_released_schedule(scheduler: CogVideoXDDIMScheduler) -> None:
    abar = scheduler.alphas_cumprod[list(RELEASED_SIGNAL)]
    expected = torch.tensor(list(RELEASED_SIGNAL.values()))
    one, zero = torch.ones(len(abar), 1), torch.zeros(len(abar), 1)
    torch.testing.assert_close(add_noise(one, zero, abar).flatten(), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(velocity(zero, one, abar).flatten(), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(add_noise(zero, one, abar).flatten(), (1 - expected**2).sqrt(), atol=1e-5, rtol=0)
    assert add_noise(one, zero, abar)[-1] == 0  # the last timestep is pure noise


def test_noising_and_target_equal_those_of_diffusers(
    scheduler: CogVideoXDDIMScheduler, draws: tuple[torch.Tensor, ...]
) -> None:
    latents, noise, timesteps, abar = draws
    torch.testing.assert_close(add_noise(latents, noise, abar), scheduler.add_noise(latents, noise, timesteps))
    torch.testing.assert_close(velocity(latents, noise, abar), scheduler.get_velocity(latents, noise, timesteps))


def test_the_three_parametrisations_agree(draws: tuple[torch.Tensor, ...]) -> None:
    latents, noise, _, abar = draws
    clean = clean_from_velocity(add_noise(latents, noise, abar), velocity(latents, noise, abar), abar)
    torch.testing.assert_close(clean, latents, atol=2e-6, rtol=0)


def test_velocity_error_is_the_released_weighted_error_of_the_clean_latents(draws: tuple[torch.Tensor, ...]) -> None:
    """w |x0_hat - x0|^2 with w = 1 / (1 - abar) is the plain v-MSE."""
    latents, noise, _, abar = (tensor.double() for tensor in draws)
    target = velocity(latents, noise, abar)
    prediction = target + 0.3 * torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    clean = clean_from_velocity(add_noise(latents, noise, abar), prediction, abar)
    weighted = (clean - latents).square().mean((1, 2, 3, 4)) / (1 - abar)
    torch.testing.assert_close(weighted, (prediction - target).square().mean((1, 2, 3, 4)))


def test_coefficients_are_taken_before_rounding(scheduler: CogVideoXDDIMScheduler) -> None:
    """Rounded to bfloat16 first, 1 - abar at the cleanest timestep would be off by half."""
    latents = torch.ones(1, 1, dtype=torch.bfloat16)
    result = velocity(latents, 0 * latents, scheduler.alphas_cumprod[:1])
    assert result.dtype == torch.bfloat16
    assert float(result) == pytest.approx(-((1 - 0.998726**2) ** 0.5), rel=0.01)


@pytest.mark.parametrize(
    ("world_size", "bins"), [(1, 1), (2, 2), (3, 1), (4, 4), (5, 5), (6, 2), (8, 8), (16, 8), (64, 8)]
)
def test_every_rank_draws_from_its_bin_and_all_ranks_cover_the_range(world_size: int, bins: int) -> None:
    generator = torch.Generator().manual_seed(0)
    width, ranks_of_bin, seen = 1000 // bins, world_size // bins, torch.zeros(1000, dtype=torch.bool)
    for rank in range(world_size):
        drawn = stratified_timesteps(20 * width, 1000, rank, world_size, generator)
        low = rank // ranks_of_bin * width
        assert drawn.dtype == torch.long
        assert low <= drawn.min() and drawn.max() < low + width
        seen[drawn] = True
    assert seen.all()
