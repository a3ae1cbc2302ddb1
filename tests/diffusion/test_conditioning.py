"""Condition dropout: rates of the four cells, what is zeroed, and noise on the source."""

import math

import pytest
import torch

from insvie_lightning.diffusion.conditioning import (
    CELLS,
    ConditionDropout,
    add_source_noise,
    draw_cells,
    drop_conditions,
)
from insvie_lightning.errors import InputError


@pytest.mark.parametrize(
    "rates", [ConditionDropout(), ConditionDropout(text=0.3, video=0.6)], ids=["released", "other"]
)
def test_cells_come_at_their_rates(rates: ConditionDropout) -> None:
    draws = 10_000
    counts = draw_cells(draws, rates, torch.Generator().manual_seed(0)).bincount(minlength=4)
    shares = {
        "both": (1 - rates.text) * (1 - rates.video),
        "no_text": rates.text * (1 - rates.video),
        "no_video": (1 - rates.text) * rates.video,
        "none": rates.text * rates.video,
    }
    for name, count in zip(CELLS, counts.tolist(), strict=True):
        assert abs(count - draws * shares[name]) < 3 * math.sqrt(draws * shares[name] * (1 - shares[name])), name


def test_defaults_are_the_released_rates() -> None:
    assert (ConditionDropout().text, ConditionDropout().video) == (0.1, 0.05)


@pytest.mark.parametrize(
    ("rate", "cells"), [((0.0, 0.0), {0}), ((1.0, 0.0), {1}), ((0.0, 1.0), {2}), ((1.0, 1.0), {3})]
)
def test_rates_of_zero_and_one_are_exact(rate: tuple[float, float], cells: set[int]) -> None:
    assert set(draw_cells(500, ConditionDropout(*rate), torch.Generator().manual_seed(0)).tolist()) == cells


def test_exactly_the_conditions_of_the_cell_are_zeroed() -> None:
    cells = torch.tensor([CELLS.index(name) for name in ("none", "both", "no_video", "no_text", "both")])
    source, prompts = torch.rand(5, 3, 16, 4, 6) + 1, torch.rand(5, 7, 8) + 1
    kept_source, kept_prompts = drop_conditions(source, prompts, cells)
    for sample, (has_video, has_text) in enumerate([(0, 0), (1, 1), (0, 1), (1, 0), (1, 1)]):
        assert torch.equal(kept_source[sample], source[sample] * has_video)
        assert torch.equal(kept_prompts[sample], prompts[sample] * has_text)


@pytest.mark.parametrize("name", ["text", "video"])
@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_an_illegal_rate_is_named(name: str, rate: float) -> None:
    with pytest.raises(InputError, match=rf"condition_dropout\.{name} is {rate}; legal are values from 0 to 1"):
        ConditionDropout(**{name: rate})


def test_source_noise_has_the_released_strength() -> None:
    """One sigma a sample, log sigma normal with mean -3 and deviation 0.5."""
    pixels = torch.full((2000, 1, 3, 16, 16), 0.25)
    noise = add_source_noise(pixels, torch.Generator().manual_seed(0)) - pixels
    log_sigma = noise.flatten(1).std(1).log()
    assert float(log_sigma.mean()) == pytest.approx(-3, abs=3 * 0.5 / math.sqrt(2000))
    assert float(log_sigma.std()) == pytest.approx(0.5, abs=3 * 0.5 / math.sqrt(4000))
    assert float(noise.mean()) == pytest.approx(0, abs=1e-3)
