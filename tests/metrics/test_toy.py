"""Exact scores of the toy world: the truth, the untouched source, and edits done by half."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from insvie_lightning.metrics.toy import ToyEditScore, caption_recall, toy_score
from insvie_lightning.nets.latents import to_device_pixels
from insvie_lightning.toy.edits import Example, example, indices
from insvie_lightning.toy.scene import Scene, Shape, caption, render


def pixels(scene: Scene) -> Tensor:
    return to_device_pixels(torch.from_numpy(render(scene)))


def stacked(samples: list[Example], side: str) -> Tensor:
    return torch.stack([pixels(getattr(sample, side)) for sample in samples])


def score(clips: Tensor, samples: list[Example]) -> dict[str, float]:
    metric = ToyEditScore()
    metric.update(clips, tuple(sample.key for sample in samples))
    return {name: float(value) for name, value in metric.compute().items()}


@pytest.fixture(scope="module")
def samples() -> list[Example]:
    """20 recolourings and 20 removals of every origin."""
    return [example("test", i) for kind in ("recolour", "remove") for i in indices("test", 20, (kind,))]


@pytest.fixture(scope="module")
def truth(samples: list[Example]) -> Tensor:
    return stacked(samples, "edited")


@pytest.fixture(scope="module")
def sources(samples: list[Example]) -> Tensor:
    return stacked(samples, "source")


def test_the_truth_is_perfect(samples: list[Example], truth: Tensor) -> None:
    scores = score(truth, samples)
    assert (scores["recolour_accuracy"], scores["removal_accuracy"]) == (1, 1)
    assert scores["psnr_db"] > 100


def test_the_untouched_source_fails(samples: list[Example], sources: Tensor, truth: Tensor) -> None:
    scores = score(sources, samples)
    assert (scores["recolour_accuracy"], scores["removal_accuracy"]) == (0, 0)
    mse = ((sources - truth) / 2).square().mean((1, 2, 3, 4)).mean()
    assert scores["psnr_db"] == pytest.approx(-10 * math.log10(float(mse)), abs=1e-3)


def test_half_of_the_samples_edited(samples: list[Example], sources: Tensor, truth: Tensor) -> None:
    edited = torch.arange(len(samples)) % 20 < 5
    scores = score(torch.where(edited.reshape(-1, 1, 1, 1, 1), truth, sources), samples)
    assert (scores["recolour_accuracy"], scores["removal_accuracy"]) == (0.25, 0.25)


@pytest.mark.parametrize(("share", "expected"), [(0.9, 1.0), (0.1, 0.0)])
def test_an_edit_that_is_partly_there(
    samples: list[Example], sources: Tensor, truth: Tensor, share: float, expected: float
) -> None:
    scores = score(sources.lerp(truth, share), samples)
    assert (scores["recolour_accuracy"], scores["removal_accuracy"]) == (expected, expected)
    mse = (1 - share) ** 2 * ((sources - truth) / 2).square().mean()
    assert scores["psnr_db"] == pytest.approx(-10 * math.log10(float(mse)), abs=1e-3)


def test_another_colour_is_no_recolouring(samples: list[Example]) -> None:
    for sample in samples[:20]:
        assert sample.target is not None
        shapes = list(sample.edited.shapes)
        wrong = next(c for c in ("red", "green", "blue") if c != shapes[sample.target].colour)
        shapes[sample.target] = replace(shapes[sample.target], colour=wrong)
        assert toy_score(pixels(replace(sample.edited, shapes=tuple(shapes))), sample).recoloured is False


def test_values_beyond_the_range_are_clamped(samples: list[Example], truth: Tensor) -> None:
    assert toy_score(truth[0] + 100, samples[0]).mse == toy_score(torch.ones_like(truth[0]), samples[0]).mse


def test_other_edits_are_left_out_and_nothing_is_nan() -> None:
    others = [example("test", index) for index in indices("test", 3, ("style", "add"))]
    assert toy_score(pixels(others[0].edited), others[0]).mse == pytest.approx(0, abs=1e-12)
    assert all(math.isnan(value) for value in score(stacked(others, "source"), others).values())


def test_processes_add_up(samples: list[Example], sources: Tensor, truth: Tensor) -> None:
    keys = tuple(sample.key for sample in samples)
    whole, first, second = ToyEditScore(), ToyEditScore(), ToyEditScore()
    mixed = torch.cat([truth[:10], sources[10:]])
    whole.update(mixed, keys)
    first.update(mixed[:13], keys[:13])
    second.update(mixed[13:], keys[13:])
    first.merge_state(second)
    assert {name: float(value) for name, value in first.compute().items()} == pytest.approx(
        {name: float(value) for name, value in whole.compute().items()}
    )


def test_recall_finds_the_colours_that_a_caption_names() -> None:
    scenes = [example("val", index).source for index in range(48)]
    videos = torch.stack([pixels(scene) for scene in scenes])
    captions = tuple(caption(scene) for scene in scenes)
    assert caption_recall(videos, captions) >= 0.95
    assert caption_recall(videos, captions[1:] + captions[:1]) < 0.6


def test_recall_counts_colours_and_backgrounds() -> None:
    circle = Shape("circle", "red", 10.0, (48.0, 32.0), (48.0, 32.0))
    video = pixels(Scene("night", (circle,)))[None]
    assert caption_recall(video, ("red circle on night",)) == 1
    assert caption_recall(video, ("red circle and blue square on plum, zoom in",)) == pytest.approx(1 / 3)
    assert math.isnan(caption_recall(video, ("red circle on night, sepia",)))
