"""Condition dropout: rates of the four cells, what is zeroed; noise on the source; identity pairs."""

import math
from dataclasses import replace

import pytest
import torch

from insvie_lightning.batch import EditBatch
from insvie_lightning.diffusion.conditioning import (
    CELLS,
    ConditionDropout,
    add_latent_noise,
    add_source_noise,
    draw_cells,
    draw_identity_pairs,
    drop_conditions,
    make_identity_pairs,
    noise_shift_at,
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


def test_the_effect_of_noise_is_read_between_the_measured_strengths() -> None:
    measured = torch.tensor([1.0, 3.0, 4.0, 6.0]).reshape(1, 4, 1, 1, 1).repeat(6, 1, 2, 2, 5)
    measured[:, :, 1] *= 10
    measured[:, :, :, 1] += 100
    sigma = torch.tensor([0.0, 0.0125, 0.025, 0.0375, 0.1, 0.3])
    mean, std = noise_shift_at(measured, sigma)
    expected = torch.tensor([0, 0.5, 1, 2, 4, 8])
    assert mean.shape == std.shape == (6, 2, 5)
    torch.testing.assert_close(mean[:, 0], expected[:, None].expand(6, 5))
    torch.testing.assert_close(std[:, 0], 10 * expected[:, None].expand(6, 5))
    assert mean[2, 1].tolist() == pytest.approx([101.0] * 5) and std[4, 1].tolist() == pytest.approx([140.0] * 5)


@pytest.mark.parametrize("frames", [1, 3])
def test_noise_on_latents_has_the_measured_mean_and_deviation(frames: int) -> None:
    shift = torch.zeros(64, 4, 2, 2, 2)
    shift[:, :, 0, 0, 1], shift[:, :, 1, 0], shift[:, :, 1, 1, 0] = 5.0, 2.0, 1.0  # from 0.025 on, at any strength
    clean = torch.full((64, frames, 2, 16, 16), 0.5)
    sigma = (-3 + 0.5 * torch.randn(64, generator=torch.Generator().manual_seed(0))).exp()
    rise = (sigma / 0.025).clamp(max=1).reshape(-1, 1, 1, 1, 1)
    moved = (add_latent_noise(clean, shift, torch.Generator().manual_seed(0)) - clean) / rise
    assert moved[:, 0].mean((0, 2, 3)).tolist() == pytest.approx([0, 5], abs=0.06)
    assert moved[:, 0].std((0, 2, 3)).tolist() == pytest.approx([2, 2], rel=0.03)
    if frames > 1:
        assert moved[:, 1:].mean((0, 1, 3, 4)).tolist() == pytest.approx([0, 0], abs=0.03)
        assert moved[:, 1:].std((0, 1, 3, 4)).tolist() == pytest.approx([1, 0], abs=0.02)


def named(keys: list[str], origin: str = "real") -> EditBatch:
    return EditBatch(tuple(keys), ("x",) * len(keys), origins=(origin,) * len(keys))


@pytest.mark.parametrize("origin", ["real", "static"])
@pytest.mark.parametrize("share", [0.0, 0.048, 0.5, 1.0])
def test_identity_pairs_come_at_their_share(share: float, origin: str) -> None:
    draws = 4000
    chosen = draw_identity_pairs(named([f"sample-{i}" for i in range(draws)], origin), share, "0/s1/7")
    assert abs(sum(chosen) - draws * share) <= 3 * math.sqrt(draws * share * (1 - share))


def test_a_key_decides_the_same_in_any_batch_and_anew_in_every_step() -> None:
    keys = [f"sample-{i}" for i in range(200)]
    chosen = dict(zip(keys, draw_identity_pairs(named(keys), 0.5, "0/s1/7"), strict=True))
    for rank in range(2):  # what one of two ranks sees, in another order
        own = keys[rank::2][::-1]
        assert draw_identity_pairs(named(own), 0.5, "0/s1/7") == tuple(chosen[key] for key in own)
    later = draw_identity_pairs(named(keys), 0.5, "0/s1/8")
    agreeing = sum(one == other for one, other in zip(chosen.values(), later, strict=True))
    assert 60 < agreeing < 140  # independent draws agree in 100 of 200


@pytest.mark.parametrize("origins", [("pair", "pair"), ()], ids=["pairs", "unknown"])
def test_image_pairs_and_unknown_origins_are_never_chosen(origins: tuple[str, ...]) -> None:
    assert draw_identity_pairs(EditBatch(("a", "b"), ("x", "y"), origins=origins), 1.0, "0") == (False, False)


@pytest.mark.parametrize("kind", ["pixels", "latents"])
def test_a_chosen_sample_shows_its_source_and_asks_for_nothing(kind: str) -> None:
    source, edited = torch.rand(3, 2, 3, 4, 6), torch.rand(3, 2, 3, 4, 6)
    names = ("source", "edited") if kind == "pixels" else ("source_latents", "edited_latents")
    batch = EditBatch(
        ("a", "b", "c"), ("x", "y", "z"), source_captions=("s0", "s1", "s2"), edited_captions=("e0", "e1", "e2"),
        **dict(zip(names, (source, edited), strict=True)),
    )  # fmt: skip
    identity = make_identity_pairs(batch, (False, True, False))
    assert identity.instructions == ("x", "", "z")
    assert (identity.source_captions, identity.edited_captions) == (("s0", "s1", "s2"), ("e0", "s1", "e2"))
    assert torch.equal(getattr(identity, names[0]), source)
    assert torch.equal(getattr(identity, names[1]), torch.stack([edited[0], source[1], edited[2]]))
    assert make_identity_pairs(EditBatch(("a",), ("x",)), (True,)) == EditBatch(("a",), ("",))
    spread = replace(batch, source_log_variance=source, edited_log_variance=edited)
    expected = torch.stack([edited[0], source[1], edited[2]])
    assert torch.equal(make_identity_pairs(spread, (False, True, False)).edited_log_variance, expected)  # type: ignore[arg-type]
