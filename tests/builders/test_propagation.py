"""Propagation of an edited first frame with a tiny random network: what comes back, what is computed once."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image

from insvie_lightning.builders.propagation import Propagation, Propagator
from insvie_lightning.diffusion.inversion import Extrapolation, invert, normalise, regenerate
from insvie_lightning.errors import InputError
from insvie_lightning.nets.stable_video import Precision, StableVideo

SETTINGS: dict[str, Any] = {"num_inference_steps": 3, "strength": 1.0}


@pytest.fixture(scope="module")
def model(stable_video_folder: Path) -> StableVideo:
    return StableVideo.load(str(stable_video_folder), "float32")


def clip(seed: int = 0, frames: int = 3, height: int = 32, width: int = 48) -> np.ndarray:
    """A picture that moves and brightens."""
    coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 200, (6, 6, 3), np.uint8))
    picture = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    return np.stack([np.roll(picture, 3 * index, -1) + 15 * index for index in range(frames)]).astype(np.uint8)


@contextmanager
def counted(model: StableVideo) -> Iterator[list[int]]:
    """The batch sizes of the network's calls."""
    calls: list[int] = []
    handle = model.pipeline.unet.register_forward_hook(lambda _, given, __: calls.append(len(given[0])))
    try:
        yield calls
    finally:
        handle.remove()


def test_an_unedited_source_comes_back_the_better_the_more_steps_and_by_extrapolation(model: StableVideo) -> None:
    none, linear = ([latent_error(model, steps, kind) for steps in (6, 16)] for kind in get_args(Extrapolation)[:2])
    assert none[1] < 0.8 * none[0] and linear[1] < 0.5 * linear[0], (none, linear)
    assert linear[0] < none[0] and linear[1] < 0.5 * none[1], (none, linear)
    assert latent_error(model, 6, "linear", 2) < 0.3 * linear[0]


def latent_error(model: StableVideo, steps: int, kind: Extrapolation, refinements: int = 0) -> float:
    """Relative error of inverting and regenerating under the same condition."""
    source = torch.from_numpy(clip())
    noise = torch.randn(3, 32, 48, generator=torch.Generator().manual_seed(0))
    clean, _, _ = normalise(model.encode(source, 8))
    network = model.network(model.condition(source[0], noise, 7, 127, 0.2), steps)
    sigmas, _ = model.schedule(steps)
    noisy = invert(network, clean, sigmas, 0, kind, refinements)
    return float((regenerate(network, noisy, sigmas) - clean).norm() / clean.norm())


def test_an_unedited_first_frame_gives_the_source(model: StableVideo) -> None:
    exact = Propagation(num_inference_steps=12, min_guidance_scale=1, max_guidance_scale=1, refinements=4)
    source = clip()
    found = Propagator(model, exact).edit(source, source[0])
    # What the autoencoder alone makes of the source; it brightens, which normalising must not undo.
    rebuilt = model.decode(model.encode(torch.from_numpy(source), 8), 8).numpy()
    assert rebuilt.std() > 1
    assert np.abs(found.astype(int) - rebuilt).max() <= 2


def test_one_inversion_serves_all_edits_of_a_source(model: StableVideo) -> None:
    settings = Propagation(**SETTINGS)
    source, other = clip(), clip(1)
    propagator = Propagator(model, settings, kept=1)
    with counted(model) as calls:
        first = propagator.edit(source, 255 - source[0])
        assert calls == [1] * 3 + [2] * 3  # the inversion has one branch, the generation two
        calls.clear()
        second = propagator.edit(source.copy(), source[0] // 2)
        assert calls == [2] * 3
        calls.clear()
        propagator.edit(other, other[0])
        assert calls == [1] * 3 + [2] * 3
        calls.clear()
        again = propagator.edit(source, 255 - source[0])  # only one inversion is kept
        assert calls == [1] * 3 + [2] * 3
    assert np.array_equal(first, again) and not np.array_equal(first, second)
    alone = Propagator(model, settings).edit(source, source[0] // 2)
    assert np.array_equal(alone, second)  # whatever was edited before


def test_strength_refinements_and_guidance_set_the_number_of_calls(model: StableVideo) -> None:
    settings = Propagation(
        num_inference_steps=9, strength=0.5, refinements=1, max_guidance_scale=1, min_guidance_scale=1
    )
    assert settings.start == 5
    with counted(model) as calls:
        Propagator(model, settings).edit(clip(), clip()[0])
    assert calls == [1] * (2 * 4 + 4)


def test_the_result_has_the_edited_frames_colours(model: StableVideo) -> None:
    source = clip()
    edited = 255 - source[0]
    settings = Propagation(**SETTINGS)
    seen: list[torch.Tensor] = []

    class Spy(StableVideo):
        def decode(self, latents: torch.Tensor, chunk: int) -> torch.Tensor:
            seen.append(latents)
            return super().decode(latents, chunk)

    Propagator(Spy(model.pipeline), settings).edit(source, edited)
    goal = model.encode(torch.from_numpy(edited)[None], 1)[0, 0]
    torch.testing.assert_close(seen[0][0, 0].mean((1, 2)), goal.mean((1, 2)), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(seen[0][0, 0].std((1, 2)), goal.std((1, 2)), atol=1e-3, rtol=1e-3)


def test_normalizations_and_seeds_differ(model: StableVideo) -> None:
    source = clip()
    nothing: dict[str, Any] = {}
    results = [
        Propagator(model, Propagation(num_inference_steps=4, **other), seed).edit(source, 255 - source[0]).tobytes()
        for other, seed in (
            (nothing, 0),
            (nothing, 1),
            ({"normalization": "released"}, 0),
            ({"normalization": "none"}, 0),
            ({"extrapolation": "none"}, 0),
            ({"extrapolation": "released"}, 0),
            ({"noise_aug_strength": 0.0}, 0),
            ({"motion_bucket_id": 20}, 0),
            ({"fps": 20}, 0),
        )
    ]
    assert len(set(results)) == len(results)


@pytest.mark.parametrize("dtype", ["bfloat16"])
def test_half_precision_is_close(model: StableVideo, stable_video_folder: Path, dtype: Precision) -> None:
    source, half = clip(), StableVideo.load(str(stable_video_folder), dtype)
    exact, found = (
        Propagator(each, Propagation(**SETTINGS)).edit(source, 255 - source[0]).astype(int) for each in (model, half)
    )
    assert np.abs(exact - found).mean() < 4 and half.pipeline.vae.dtype == half.pipeline.unet.dtype != torch.float32


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"strength": 0.0}, r"strength is 0.0 of 25 steps; legal are shares that make 1 step or more, up to 1"),
        ({"strength": 0.1, "num_inference_steps": 5}, "strength is 0.1 of 5 steps"),
        ({"extrapolation": "liner"}, "extrapolation is 'liner'; legal are .*; did you mean 'linear'"),
        ({"normalization": "all"}, "normalization is 'all'; legal are both, released, none"),
        ({"chunk": 0}, "chunk is 0; legal is 1 or more"),
        ({"noise_aug_strength": -1.0}, "noise_aug_strength is -1.0; legal is 0 or more"),
        ({"min_guidance_scale": 5.0}, "min_guidance_scale is 5.0, max_guidance_scale 4.0; legal are"),
    ],
)
def test_illegal_settings_are_one_sentence(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Propagation(**settings)  # type: ignore[arg-type]
