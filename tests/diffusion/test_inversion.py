"""Inversion against denoisers whose every value is known, and against diffusers' own Euler steps."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import pytest
import torch
from diffusers import EulerDiscreteScheduler

from insvie_lightning.diffusion.inversion import Extrapolation, invert, match_first_frame, normalise, regenerate

DIMENSIONS = 256
Denoise = Callable[[torch.Tensor, float], torch.Tensor]


def schedule(steps: int) -> EulerDiscreteScheduler:
    """That of Stable Video Diffusion."""
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        use_karras_sigmas=True, sigma_min=0.002, sigma_max=700.0, timestep_spacing="leading", steps_offset=1,
        timestep_type="continuous",
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    return scheduler


def network_of(denoise: Denoise, sigmas: list[float]) -> Callable[[torch.Tensor, int], torch.Tensor]:
    def network(latents: torch.Tensor, step: int) -> torch.Tensor:
        sigma = sigmas[step]
        return (denoise(latents, sigma) - latents / (sigma**2 + 1)) / (-sigma / (sigma**2 + 1) ** 0.5)

    return network


@cache
def spectrum() -> torch.Tensor:
    variances = torch.arange(1, DIMENSIONS + 1, dtype=torch.float64) ** -1.0
    return variances / variances.mean()


def gaussian(noisy: torch.Tensor, sigma: float) -> torch.Tensor:
    """The best denoiser of data with the power spectrum of photographs."""
    return noisy * spectrum() / (spectrum() + sigma**2)


@cache
def centres() -> torch.Tensor:
    values = torch.randn(32, DIMENSIONS, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return values * spectrum().sqrt()


def mixture(noisy: torch.Tensor, sigma: float) -> torch.Tensor:
    """The best denoiser of data in 32 clusters of width 0.3."""
    variance = 0.3**2 + sigma**2
    weights = torch.softmax(-(torch.cdist(noisy, centres()) ** 2) / (2 * variance), 1)
    means = weights @ centres()
    return means + (noisy - means) * 0.3**2 / variance


def data(denoise: Denoise) -> torch.Tensor:
    draws = torch.randn(8, DIMENSIONS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return draws * spectrum().sqrt() if denoise is gaussian else centres()[:8] + 0.3 * draws


def relative_error(
    denoise: Denoise, steps: int, extrapolation: Extrapolation, strength: float = 1.0, refinements: int = 0
) -> float:
    sigmas = schedule(steps).sigmas.tolist()
    network, clean, start = network_of(denoise, sigmas), data(denoise), steps - int(steps * strength)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    noisy = invert(network, clean, sigmas, start, extrapolation, refinements, noise)
    return float((regenerate(network, noisy, sigmas, start) - clean).norm() / clean.norm())


@pytest.mark.parametrize("denoise", [gaussian, mixture])
@pytest.mark.parametrize("strength", [1.0, 0.55])
def test_the_error_falls_with_steps_and_extrapolation_lowers_it(denoise: Denoise, strength: float) -> None:
    kinds: tuple[Extrapolation, ...] = ("none", "linear")
    table = {kind: [relative_error(denoise, n, kind, strength) for n in (10, 25, 50, 100)] for kind in kinds}
    for errors in table.values():
        assert all(later < 0.75 * earlier for earlier, later in pairwise(errors)), table
    assert all(linear < 0.8 * none for none, linear in zip(table["none"], table["linear"], strict=True)), table
    assert all(linear < 0.6 * none for none, linear in list(zip(table["none"], table["linear"], strict=True))[1:])
    assert table["linear"][1] < 0.1 and table["linear"][3] < 0.02


@pytest.mark.parametrize("denoise", [gaussian, mixture])
def test_the_released_noise_keeps_an_error_that_steps_do_not_lower(denoise: Denoise) -> None:
    assert relative_error(denoise, 200, "released") > 0.1 > 10 * relative_error(denoise, 200, "linear")


def test_released_is_linear_above_sigma_one() -> None:
    sigmas = [700.0, 90.0, 9.0, 2.0, 1.5, 0.0]
    network, clean = network_of(gaussian, sigmas), data(gaussian)
    above = [*sigmas[:4], 1.5]  # ends above 1, so that no noise is ever taken
    noise = torch.full_like(clean, float("nan"))
    assert torch.equal(
        invert(network, clean, above, 0, "released", 0, noise), invert(network, clean, above, 0, "linear", 0)
    )
    assert invert(network, clean, sigmas, 0, "released", 0, noise).isnan().all()
    with pytest.raises(ValueError, match="needs noise"):
        invert(network, clean, sigmas, 0, "released")


@pytest.mark.parametrize("denoise", [gaussian, mixture])
def test_refinements_give_the_clean_latents_back(denoise: Denoise) -> None:
    errors = [relative_error(denoise, 50, "linear", refinements=r) for r in (0, 2, 4)]
    assert errors[1] < 0.3 * errors[0] and errors[2] < errors[1] and errors[2] < 0.005


def test_steps_are_those_of_diffusers_and_invert_solves_one() -> None:
    scheduler = schedule(7)
    sigmas = scheduler.sigmas.tolist()
    network = network_of(mixture, sigmas)
    noisy = sigmas[0] * torch.randn(8, DIMENSIONS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    latents = noisy.float()
    for step, timestep in enumerate(scheduler.timesteps):
        scheduler.scale_model_input(latents, timestep)
        latents = scheduler.step(network(latents.double(), step).float(), timestep, latents).prev_sample
    torch.testing.assert_close(regenerate(network, noisy, sigmas).float(), latents, rtol=1e-4, atol=1e-3)
    # With a network that does not look at the latents there is nothing to guess, so that inverting is exact.
    fixed = torch.randn(8, 8, DIMENSIONS, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    clean = data(mixture)
    for start in (0, 4):
        inverted = invert(lambda _, step: fixed[step], clean, sigmas, start, "none")
        torch.testing.assert_close(regenerate(lambda _, step: fixed[step], inverted, sigmas, start), clean)


def test_frames_are_normalised_one_by_one_and_the_first_is_matched_by_channel() -> None:
    torch.manual_seed(0)
    latents = torch.randn(2, 3, 4, 5, 6) * torch.tensor([1.0, 5.0, 0.2])[:, None, None, None] + 3
    normal, mean, std = normalise(latents)
    torch.testing.assert_close(normal.mean((2, 3, 4)), torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normal.std((2, 3, 4)), torch.ones(2, 3))
    torch.testing.assert_close(normal * std + mean, latents)
    reference = torch.randn(2, 4, 5, 6) * 7 - 2
    matched = match_first_frame(latents, reference)
    torch.testing.assert_close(matched[:, 0].mean((2, 3)), reference.mean((2, 3)), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(matched[:, 0].std((2, 3)), reference.std((2, 3)), atol=1e-4, rtol=1e-4)
    slope = (matched[:, 2] - matched[:, 1]) / (latents[:, 2] - latents[:, 1])  # one scale a channel for all frames
    torch.testing.assert_close(slope, slope[:, :, :1, :1].expand_as(slope), atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(match_first_frame(latents, latents[:, 0]), latents, atol=1e-4, rtol=1e-4)
