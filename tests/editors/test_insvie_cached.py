"""Training on cached latents against training that encodes: the same whole frame, the same window of its latents."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from diffusers.configuration_utils import FrozenDict
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor

from insvie_lightning.batch import NOISE_STRENGTHS, EditBatch, Position, Window, collate
from insvie_lightning.diffusion.conditioning import ConditionDropout
from insvie_lightning.editors import InsViE
from insvie_lightning.editors.objective import encode_clips
from insvie_lightning.errors import InputError
from insvie_lightning.nets.latents import (
    cut_windows,
    encode_pixels,
    encode_posterior,
    latent_crop_gap_db,
    psnr_db,
    to_device_pixels,
)
from insvie_lightning.nets.perceptual import PerceptualLoss
from insvie_lightning.shards.latents import LOG_VARIANCES, SIDES, LatentRecipe, pack_latents, unpack_latents
from insvie_lightning.toy.edits import example, to_triplet

Make = Callable[..., InsViE]
NO_DROPOUT = ConditionDropout(0.0, 0.0)
WINDOWS: tuple[Window, ...] = ((0, 0, 4, 6), (1, 5, 4, 6), (4, 2, 4, 6), (3, 3, 4, 6))
SQUEEZE = PerceptualLoss(net="squeeze", random_trunk=True, latent_frames=2, crop=None, first_only=False)


@pytest.fixture(scope="module")
def whole() -> EditBatch:
    """Four samples of 5 frames, 64 x 96, of which windows of 32 x 48 are trained on."""
    return replace(collate([to_triplet(example("train", i), 5, 64, 96) for i in range(4)]), windows=WINDOWS)


def cache(editor: InsViE, batch: EditBatch, dtype: torch.dtype = torch.float32) -> EditBatch:
    """What a shard of latents gives."""

    def latents(clip: Tensor | None) -> Tensor:
        assert clip is not None
        with torch.no_grad():
            return cut_windows(encode_pixels(editor.vae, to_device_pixels(clip)).to(dtype).float(), WINDOWS)

    cached = {"source_latents": latents(batch.source), "edited_latents": latents(batch.edited)}
    return replace(batch, source=None, edited=None, windows=(), **cached)


def losses(editor: InsViE, batch: EditBatch) -> Tensor:
    """At fixed draws; the global generator plays no part."""
    with torch.no_grad():
        positions = [Position("s1", 0, step) for step in range(6)]
        return torch.stack([editor.training_step(replace(batch, position=position), 0) for position in positions])


@pytest.fixture(scope="module")
def editor(make_editor: Make) -> InsViE:
    return make_editor(random_weights=True, condition_dropout=NO_DROPOUT)


def test_cached_training_is_online_training(editor: InsViE, whole: EditBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the mean alone: online, the posterior is sampled, from the generator that noise is drawn from."""
    monkeypatch.setattr("insvie_lightning.editors.objective.sample_posterior", lambda mean, *_: mean)
    online, cached = losses(editor, whole), losses(editor, cache(editor, whole))
    torch.testing.assert_close(cached, online, rtol=1e-5, atol=0)
    moved = replace(whole, windows=WINDOWS[::-1])
    assert ((losses(editor, moved) - online).abs() > 1e-3 * online).all()


def test_lpips_on_cached_latents_with_edited_pixels_is_that_of_online_training(
    make_editor: Make, whole: EditBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("insvie_lightning.editors.objective.sample_posterior", lambda mean, *_: mean)
    lpips = {"lpips_weight": [0.0, 0.5], "perceptual": SQUEEZE}
    editor = make_editor(random_weights=True, condition_dropout=NO_DROPOUT, **lpips)
    assert [editor.compares_pixels(stage) for stage in range(3)] == [False, True, True]
    second = Position("s2", 1, 0)
    cached = replace(cache(editor, whole), position=second)
    with torch.no_grad():
        online = editor.training_step(replace(whole, position=second), 0)
        monkeypatch.setattr("insvie_lightning.editors.objective.encode_posterior", None)  # no encoder is called
        found = editor.training_step(replace(cached, edited=whole.edited, windows=WINDOWS), 0)
        other = editor.training_step(replace(cached, edited=whole.source, windows=WINDOWS), 0)
    torch.testing.assert_close(found, online, rtol=1e-5, atol=0)
    assert (other - online).abs() > 1e-4 * online
    assert editor.flops_per_sample(replace(cached, edited=whole.edited)) == editor.flops_per_sample(cached)


def test_identity_pairs_on_cached_latents_compare_with_the_source(
    make_editor: Make, whole: EditBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("insvie_lightning.editors.objective.sample_posterior", lambda mean, *_: mean)
    settings = {"lpips_weight": 0.5, "perceptual": SQUEEZE, "identity_pairs": 1.0}
    editor = make_editor(random_weights=True, condition_dropout=NO_DROPOUT, **settings)
    known = replace(whole, position=Position("s3", 0, 0), origins=("real",) * 4)
    cached = replace(cache(editor, whole), position=known.position, origins=known.origins)
    pixels = {"edited": whole.edited, "source": whole.source, "windows": WINDOWS}
    with torch.no_grad():
        found, online = (editor.training_step(one, 0) for one in (replace(cached, **pixels), known))
    torch.testing.assert_close(found, online, rtol=1e-5, atol=0)
    with pytest.raises(InputError, match=r"identity pairs show the source's pixels, .*--model\.keep_source=true, too"):
        editor.training_step(replace(cached, **{**pixels, "source": None}), 0)


@pytest.fixture
def wide(editor: InsViE, monkeypatch: pytest.MonkeyPatch) -> InsViE:
    """An editor whose autoencoder has a posterior of deviations about 0.1 and a scaling factor, as CogVideoX's has."""
    encode = editor.vae.encode

    def spread(pixels: Tensor) -> AutoencoderKLOutput:
        mean = encode(pixels).latent_dist.mean
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(torch.cat([mean, mean.sin() - 4.6], 1)))

    monkeypatch.setattr(editor.vae, "encode", spread)
    monkeypatch.setattr(editor.vae, "_internal_dict", FrozenDict({**editor.vae.config, "scaling_factor": 1.5}))
    return editor


def test_a_cache_of_moments_is_sampled_as_online_training_samples(wide: InsViE, whole: EditBatch) -> None:
    recipe = LatentRecipe("abc", 5, (64, 96), "cover", "float32", "moments")
    with torch.no_grad():
        moments = [encode_posterior(wide.vae, to_device_pixels(clip)) for clip in (whole.source, whole.edited)]  # type: ignore[arg-type]
    samples = []
    for place, window in enumerate(WINDOWS):
        (source, source_lv), (edited, edited_lv) = ([moment[place] for moment in pair] for pair in moments)
        named = dict(zip((*SIDES, *LOG_VARIANCES), (source, edited, source_lv, edited_lv), strict=True))
        stored = unpack_latents(pack_latents(named, recipe))
        samples.append({name: cut_windows(value[None], [window])[0] for name, value in stored.items()})
    tensors = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
    tensors = {f"{name}_latents" if name in SIDES else name: value for name, value in tensors.items()}
    cached = replace(whole, source=None, edited=None, windows=(), **tensors)
    online = losses(wide, whole)
    torch.testing.assert_close(losses(wide, cached), online, rtol=1e-5, atol=0)
    means = losses(wide, replace(cached, source_log_variance=None, edited_log_variance=None))
    assert ((means - online).abs() > 1e-4 * online).all()
    assert (encode_clips(wide.vae, cached, torch.Generator().manual_seed(0))[0] - tensors["source_latents"]).std() > 0.1


def test_a_bfloat16_cache_costs_little(editor: InsViE, whole: EditBatch) -> None:
    exact, rounded = (losses(editor, cache(editor, whole, dtype)) for dtype in (torch.float32, torch.bfloat16))
    relative = (rounded - exact).abs() / exact
    assert 0 < relative.max() < 2e-3


def test_the_gap_of_cutting_latents_is_measured(editor: InsViE, whole: EditBatch) -> None:
    """The toy autoencoder sees one block beyond the window; where the window is the frame, nothing is beyond."""
    assert whole.edited is not None
    pixels = to_device_pixels(whole.edited)
    gap = latent_crop_gap_db(editor.vae, pixels, WINDOWS)
    assert gap.shape == (4,) and (gap > 25).all() and gap.isfinite().all()
    assert (latent_crop_gap_db(editor.vae, pixels, [(0, 0, 8, 12)] * 4) > 100).all()


def test_psnr_is_of_each_sample() -> None:
    truth = torch.zeros(2, 3)
    assert psnr_db(torch.tensor([[0.2] * 3, [5.0] * 3]), truth).tolist() == pytest.approx([20.0, 6.0206], abs=1e-3)


def test_noise_needs_the_source_s_pixels(make_editor: Make, whole: EditBatch) -> None:
    editor = make_editor(source_noise=True)
    cached = cache(editor, whole)
    with pytest.raises(InputError, match=r"--model\.keep_source=true"):
        editor.training_step(cached, 0)
    assert editor.training_step(replace(cached, source=whole.source, windows=WINDOWS), 0).isfinite()


def test_noise_on_latents_encodes_nothing_and_is_for_training_only(
    make_editor: Make, whole: EditBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"random_weights": True, "condition_dropout": NO_DROPOUT}
    plain, noisy = make_editor(**settings), make_editor(source_noise="latents", **settings)
    cached = replace(cache(plain, whole), noise_shift=torch.ones(4, len(NOISE_STRENGTHS), 2, 2, 16))
    monkeypatch.setattr(noisy.vae, "encode", None)
    with torch.no_grad():
        trained, held_out = (
            [editor._loss(cached, torch.Generator().manual_seed(0), training) for editor in (plain, noisy)]
            for training in (True, False)
        )
    assert trained[0] != trained[1] and held_out[0] == held_out[1]


def test_operations_are_those_of_what_is_encoded(make_editor: Make, whole: EditBatch) -> None:
    editor = make_editor()
    cached = cache(editor, whole)
    none = editor.flops_per_sample(cached)
    one = make_editor(source_noise=True).flops_per_sample(replace(cached, source=whole.source, windows=WINDOWS))
    both = editor.flops_per_sample(whole)
    assert one - none == both - one > 0
    fast = replace(cached, noise_shift=torch.zeros(4, len(NOISE_STRENGTHS), 2, 2, 16))
    assert make_editor(source_noise="latents").flops_per_sample(fast) == none


def test_lpips_looks_at_the_window(make_editor: Make, whole: EditBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = make_editor(lpips_weight=1.0, perceptual=SQUEEZE)
    seen: list[Tensor] = []

    def look(_: object, __: object, clean: Tensor, target: Tensor, *___: object) -> Tensor:
        seen.append(target)
        return clean.flatten(1).mean(1)

    monkeypatch.setattr("insvie_lightning.editors.objective.chunk_lpips", look)
    editor.training_step(whole, 0)
    assert torch.equal(seen[0], to_device_pixels(cut_windows(whole.edited, WINDOWS, 8)))  # type: ignore[arg-type]
    assert seen[0].shape == (4, 5, 3, 32, 48)
