"""What an editor is trained on: which clips are encoded, what is drawn, and which samples are compared in pixels."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from insvie_lightning.batch import EditBatch, Window, collate
from insvie_lightning.editors import InsViE
from insvie_lightning.editors.objective import (
    Noised,
    draw_noised,
    encode_clips,
    lpips_of_prediction,
    weight_of_stage,
)
from insvie_lightning.errors import InputError
from insvie_lightning.nets.latents import cut_windows, encode_pixels, measure_noise_shift, to_device_pixels
from insvie_lightning.nets.perceptual import PerceptualLoss
from insvie_lightning.toy.edits import example, to_triplet

Make = Callable[..., InsViE]
WINDOWS: tuple[Window, ...] = ((0, 0, 2, 4), (1, 1, 2, 4), (2, 2, 2, 4), (1, 0, 2, 4))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def vae(make_editor: Make) -> Any:
    return make_editor().vae


@pytest.fixture
def scheduler(make_editor: Make) -> Any:
    return make_editor().scheduler


@torch.no_grad()
def test_what_is_cached_is_not_encoded_but_for_its_noise(vae: Any, batch: EditBatch) -> None:
    """The exact mode of the released noise: the source is encoded anew, the edited clip is cached."""
    whole = replace(batch, windows=WINDOWS)
    latents = {
        name: cut_windows(encode_pixels(vae, to_device_pixels(clip)), WINDOWS)  # type: ignore[arg-type]
        for name, clip in (("source_latents", batch.source), ("edited_latents", batch.edited))
    }
    mixed = replace(whole, edited=None, **latents)
    seen: list[Tensor] = []
    encode = vae.encode
    vae.encode = lambda pixels: (seen.append(pixels), encode(pixels))[1]
    source, edited = encode_clips(vae, mixed, seeded(), source_noise=True)
    assert [tuple(pixels.shape) for pixels in seen] == [(4, 3, 5, 32, 48)]
    assert torch.equal(edited, latents["edited_latents"])
    assert source.shape == edited.shape and not torch.allclose(source, latents["source_latents"], atol=1e-2)
    plain, _ = encode_clips(vae, mixed, seeded(), source_noise=False)
    assert plain is latents["source_latents"] and len(seen) == 1
    both = encode_clips(vae, whole, seeded())
    assert len(seen) == 3 and [clip.shape for clip in both] == [(4, 2, 16, 2, 4)] * 2
    with pytest.raises(InputError, match=r"sample '.*' comes from cached latents; .*--model\.keep_source=true"):
        encode_clips(vae, replace(mixed, source=None), seeded(), source_noise=True)


@torch.no_grad()
def test_noise_on_latents_is_as_strong_as_noise_on_pixels(vae: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fast against exact: both draw the same strengths from one seed, so that they are compared by strength."""
    clips = collate([to_triplet(example("train", index), 9, 64, 96) for index in range(8)])
    pixels = to_device_pixels(clips.source)  # type: ignore[arg-type]
    clean = encode_pixels(vae, pixels)
    shifts = [measure_noise_shift(vae, clip, seeded(100 + place)) for place, clip in enumerate(pixels)]
    cached = replace(clips, source=None, edited_latents=clean, source_latents=clean, noise_shift=torch.stack(shifts))
    exact = torch.stack([encode_clips(vae, clips, seeded(seed), source_noise=True)[0] - clean for seed in range(12)])
    monkeypatch.setattr(vae, "encode", None)
    fast = torch.stack([encode_clips(vae, cached, seeded(s), source_noise="latents")[0] - clean for s in range(12)])
    by_sigma = exact.flatten(2).std(2).flatten().argsort().reshape(4, -1)  # weakest, weak, strong, strongest
    found, true = (shift.flatten(0, 1)[by_sigma].pow(2).flatten(1).mean(1).sqrt() for shift in (fast, exact))
    assert true[3] > 2.5 * true[0]
    torch.testing.assert_close(found, true, rtol=0.03, atol=0)
    for frames in (slice(0, 1), slice(1, None)):  # noise on the first frame is not averaged over four
        found, true = (shift[:, :, frames].pow(2).mean((0, 1, 2, 4, 5)).sqrt() for shift in (fast, exact))
        torch.testing.assert_close(found, true, rtol=0.07, atol=0)
        assert found.mean() == pytest.approx(float(true.mean()), rel=0.02)
        means = [shift[:, :, frames].mean((0, 1, 2, 4, 5)) for shift in (fast, exact)]
        torch.testing.assert_close(means[0] / true, means[1] / true, rtol=0, atol=0.05)


def test_noise_on_latents_must_have_been_measured(vae: Any, batch: EditBatch) -> None:
    latents = torch.zeros(4, 2, 16, 2, 4)
    cached = replace(batch, source=None, edited=None, source_latents=latents, edited_latents=latents)
    with pytest.raises(InputError, match=r"sample '.*' was not measured; encode again"):
        encode_clips(vae, cached, seeded(), source_noise="latents")
    exact, online = (encode_clips(vae, batch, seeded(), source_noise=noise)[0] for noise in (True, "latents"))  # type: ignore[arg-type]
    assert torch.equal(online, exact)  # what is encoded has its noise on the pixels


def test_a_draw_is_of_its_generator_and_rank(scheduler: Any) -> None:
    latents = torch.randn(64, 2, 16, 2, 3, generator=seeded(1))
    one, again = (draw_noised(latents, scheduler, seeded(), 0, 2) for _ in range(2))
    assert all(torch.equal(getattr(one, name), getattr(again, name)) for name in Noised.__slots__)
    other = draw_noised(latents, scheduler, seeded(), 1, 2)
    assert one.timesteps.max() < 500 <= other.timesteps.min()
    assert torch.equal(one.alphas_cumprod, scheduler.alphas_cumprod[one.timesteps])
    assert one.noise.std() == pytest.approx(1, abs=0.05) and one.clean is latents


def test_half_precision_latents_are_noised_in_float32(scheduler: Any) -> None:
    """abar would be rounded to 8 bits, too."""
    latents = torch.randn(4, 2, 16, 2, 3, generator=seeded(1)).bfloat16()
    half, whole = (draw_noised(clean, scheduler, seeded(), 0, 1) for clean in (latents, latents.float()))
    assert torch.equal(half.noisy, whole.noisy) and torch.equal(half.velocity, whole.velocity)


def test_clean_latents_follow_from_the_velocity(scheduler: Any) -> None:
    latents = torch.randn(4, 2, 16, 2, 3, generator=seeded(1))
    noised = draw_noised(latents, scheduler, seeded(), 0, 1)
    torch.testing.assert_close(noised.clean_from(noised.velocity), latents, rtol=1e-5, atol=1e-5)


def test_only_samples_below_the_highest_timestep_are_decoded(
    vae: Any, batch: EditBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = torch.randn(4, 2, 16, 4, 6, generator=seeded(1))
    timesteps, signal = torch.tensor([10, 700, 499, 500]), torch.ones(4)
    noised = Noised(clean, torch.zeros_like(clean), clean, timesteps, signal)
    seen: list[Tensor] = []

    def look(_: object, __: object, latents: Tensor, target: Tensor, *___: object) -> Tensor:
        seen.append(latents)
        assert torch.equal(target, to_device_pixels(batch.edited)[[0, 2]])  # type: ignore[arg-type]
        return torch.tensor([1.0, 2.0])

    monkeypatch.setattr("insvie_lightning.editors.objective.chunk_lpips", look)

    def lpips(max_timestep: int, batch: EditBatch = batch) -> float:
        config = PerceptualLoss(max_timestep=max_timestep)
        return float(lpips_of_prediction(None, vae, noised, torch.zeros_like(clean), batch, config, seeded()))

    assert lpips(500) == pytest.approx(3 / 4)
    assert len(seen) == 1 and torch.equal(seen[0], clean[[0, 2]])
    assert lpips(10) == 0 and len(seen) == 1
    with pytest.raises(
        InputError,
        match=r"comes from cached latents alone; .* shards of videos, or encode with --model\.keep_edited=true$",
    ):
        lpips(500, replace(batch, edited=None))


def test_the_last_weight_is_that_of_all_later_stages() -> None:
    weights = [0.0, 0.25]
    assert [weight_of_stage(weights, stage) for stage in range(4)] == [0, 0.25, 0.25, 0.25]
