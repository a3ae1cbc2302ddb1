"""Image pairs: which are selected, and what becomes of those that are."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from insvie_lightning.batch import Clip, Draft, Rejected, Triplet
from insvie_lightning.builders.pairs import (
    Animation,
    BuildPairs,
    PairSelection,
    PairSimilarity,
    animate,
    pair_similarity,
    why_not,
)
from insvie_lightning.builders.propagation import Propagation, Propagator
from insvie_lightning.cli import main
from insvie_lightning.errors import InputError
from insvie_lightning.nets.stable_video import StableVideo
from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.verify import verify
from insvie_lightning.video import fit_clip

QUICK = Propagation(num_inference_steps=2, strength=1.0)
ANIMATION = Animation(num_inference_steps=2)


class MeanColour:
    """An encoder of three dimensions: a picture's mean colour, and a sentence's own (`r g b` in words)."""

    def frames(self, clip: torch.Tensor) -> Any:
        return SimpleNamespace(projected=clip.float().mean((2, 3)))

    def sentence(self, sentence: str, device: torch.device) -> torch.Tensor:
        return torch.tensor([float(word) for word in sentence.split()])


def picture(colour: tuple[int, int, int], height: int = 40, width: int = 56) -> np.ndarray:
    return np.broadcast_to(np.array(colour, np.uint8)[:, None, None], (3, height, width)).copy()


def draft(key: str, source: tuple[int, int, int], edited: tuple[int, int, int], captions: tuple[str, str]) -> Draft:
    return Draft(key, Clip(picture(source)[None], 1.0), picture(edited), "paint it", *captions, dataset="own")


@pytest.fixture(scope="module")
def builder(stable_video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildPairs:
    built = BuildPairs(
        tmp_path_factory.mktemp("pairs"), str(stable_video_folder), "", PairSelection(), ANIMATION, QUICK,
        frames=3, size=(32, 48), dtype="float32",
    )  # fmt: skip
    built.configure_model()
    return built


def test_similarities_are_those_of_the_geometry() -> None:
    east, north = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 5.0])
    found = pair_similarity(torch.stack([east, east + 0.4 * north]), east, north)
    assert found.image == pytest.approx(math.cos(math.pi / 4)) and found.source_caption == pytest.approx(1)
    assert found.edited_caption == pytest.approx(math.cos(math.pi / 4))
    # From 0 to 45 degrees the image turns by a chord of 112.5 degrees, the caption (0 to 90) by one of 135.
    assert found.direction == pytest.approx(math.cos(math.radians(22.5)))
    assert pair_similarity(torch.stack([east, north]), north, east).direction == pytest.approx(-1)
    bare = pair_similarity(torch.stack([east, north]), None, north)
    assert (bare.source_caption, bare.direction) == (None, None) and bare.edited_caption == pytest.approx(1)
    assert set(bare.known) == {"clip_image", "clip_edited_caption"}


def test_each_threshold_has_its_reason_and_a_missing_caption_none() -> None:
    selection = PairSelection()
    good = PairSimilarity(0.7, 0.2, 0.2, 0.2)
    assert why_not(good, selection) == ""
    assert why_not(replace(good, image=0.699), selection) == "the CLIP similarity of the images is 0.699, below 0.7"
    assert why_not(replace(good, direction=-0.1), selection) == "the directional CLIP similarity is -0.100, below 0.2"
    assert "source and caption is 0.100" in why_not(replace(good, source_caption=0.1), selection)
    assert "edit and caption is 0.100" in why_not(replace(good, edited_caption=0.1), selection)
    assert why_not(PairSimilarity(0.7), selection) == ""
    assert why_not(good, PairSelection(min_direction=0.3)) != ""


def test_pairs_are_selected_before_anything_is_generated(builder: BuildPairs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "encoder", MeanColour())
    good = draft("good", (200, 100, 100), (100, 100, 200), ("200 100 100", "100 100 200"))
    apart = draft("apart", (250, 0, 0), (0, 0, 250), ("250 0 0", "0 0 250"))
    wrong = draft("wrong", (200, 100, 100), (100, 100, 200), ("200 100 100", "200 200 90"))
    bare = draft("bare", (200, 100, 100), (100, 100, 200), ("", ""))
    calls: list[int] = []
    assert builder._propagator is not None
    unet = builder._propagator.model.pipeline.unet
    handle = unet.register_forward_hook(lambda _, given, __: calls.append(len(given[0])))
    rejected = builder.make([apart, wrong])
    assert not calls
    selected = builder.make([good, bare])
    handle.remove()
    reasons = [item.reason for item in rejected if isinstance(item, Rejected)]
    assert reasons[0] == "the CLIP similarity of the images is 0.000, below 0.7"
    assert reasons[1].startswith("the directional CLIP similarity is 0.08")
    assert all(isinstance(item, Rejected) and item.sample.origin == "pair" for item in rejected)
    assert rejected[0].sample.scores["clip_image"] == 0  # type: ignore[union-attr]
    assert [type(item) for item in selected] == [Triplet, Triplet]
    assert set(selected[0].scores) == {"clip_image", "clip_direction", "clip_source_caption", "clip_edited_caption"}  # type: ignore[union-attr]
    assert set(selected[1].scores) == {"clip_image"}  # type: ignore[union-attr]
    assert calls == 2 * ([2] * 2 + [1] * 2 + [2] * 2)  # animate with two branches, invert with one, regenerate with two


def test_a_triplet_is_the_animated_image_and_its_edit(builder: BuildPairs, stable_video_folder: Path) -> None:
    sample = draft("a", (200, 100, 100), (100, 100, 200), ("", ""))
    [triplet] = builder.make([sample])
    assert isinstance(triplet, Triplet) and triplet.origin == "pair" and triplet.dataset == "own"
    assert triplet.source.frames.shape == triplet.edited.frames.shape == (3, 3, 32, 48)
    assert triplet.source.fps == triplet.edited.fps == 7.0
    seed = triplet.lineage["BuildPairs"]["noise_seed"]
    model = StableVideo.load(str(stable_video_folder), "float32")
    first, edited = (
        fit_clip(Clip(picture(c)[None], 7.0), (32, 48)).frames[0] for c in ((200, 100, 100), (100, 100, 200))
    )
    source = animate(model, first, 3, ANIMATION, seed, 8)
    np.testing.assert_array_equal(triplet.source.frames, source)
    np.testing.assert_array_equal(triplet.edited.frames, Propagator(model, QUICK).edit(source, edited))
    [other] = builder.make([replace(sample, key="b")])
    assert isinstance(other, Triplet) and not np.array_equal(other.source.frames, triplet.source.frames)


def test_animation_is_that_of_diffusers_pipeline(stable_video_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = StableVideo.load(str(stable_video_folder), "float32")
    model.pipeline.set_progress_bar_config(disable=True)
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))
    image = coarse.resize((224, 224), Image.Resampling.BICUBIC)
    draws: list[torch.Tensor] = []
    randn = torch.randn

    def recorded(*shape: Any, **options: Any) -> torch.Tensor:
        draws.append(randn(*shape, **options))
        return draws[-1]

    monkeypatch.setattr(torch, "randn", recorded)
    found = animate(model, np.array(image).transpose(2, 0, 1), 2, ANIMATION, 5, 8)
    monkeypatch.setattr(torch, "randn", randn)
    name = "diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion.randn_tensor"
    monkeypatch.setattr(name, lambda *_, **__: draws[0][None])
    theirs = model.pipeline(
        image, height=224, width=224, num_frames=2, num_inference_steps=2, fps=7, latents=draws[1].clone(),
        output_type="pt", decode_chunk_size=8,
    ).frames[0]  # fmt: skip
    assert np.abs(theirs.numpy() * 255 - found).max() <= 2


def test_the_recipe_selects_by_a_clip_and_keeps_what_it_rejects(stable_video_folder: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs"
    for number, (before, after) in enumerate((((220, 40, 40), (50, 80, 225)), ((220, 40, 40), (220, 40, 40)))):
        folder = pairs / f"{number:07d}"
        folder.mkdir(parents=True)
        texts = {"caption": "red circle on night", "edit": "make it blue", "output": "blue circle on night"}
        (folder / "prompt.json").write_text(json.dumps(texts))
        for side, colour in enumerate((before, after)):
            pixels = np.full((64, 96, 3), 30, np.uint8)
            pixels[20:44, 36:60] = colour
            Image.fromarray(pixels).save(folder / f"5_{side}.jpg", quality=100)
    (pairs / "seeds.json").write_text('[["0000000", ["5"]], ["0000001", ["5"]]]')
    options = [
        f"--data.pairs={pairs}",
        "--data.num_workers=0",
        f"--model.output={tmp_path / 'clips'}",
        "--model.clip=toy",
    ]
    options += [f"--model.base={stable_video_folder}", "--model.frames=3", "--model.size=[32, 48]"]
    options += ["--model.propagation.num_inference_steps=2", "--model.animation.num_inference_steps=2"]
    options += ["--model.selection.min_image_similarity=-1", "--model.selection.min_caption_similarity=-1"]
    options += ["--model.dtype=float32", "--trainer.accelerator=cpu", "--trainer.devices=1"]
    run = ["--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={tmp_path / 'run'}"]
    assert main(["predict", "-c", "build_pairs", *options, *run]) == 0
    assert (verify(tmp_path / "clips").samples, verify(tmp_path / "clips").problems) == (1, ())
    kept, rejected = sorted(
        open_manifest(tmp_path / "clips").query(accepted_only=False).to_pylist(), key=lambda row: row["key"]
    )
    assert kept["accepted"] and kept["origin"] == "pair" and kept["clip_direction"] >= 0.2
    assert not rejected["accepted"] and rejected["reason"].startswith("the directional CLIP similarity is")


def test_illegal_input_is_one_sentence(builder: BuildPairs) -> None:
    sample = draft("a", (200, 100, 100), (100, 100, 200), ("", ""))
    with pytest.raises(InputError, match=r"^a: the source is a video of 3 frames, but an image is needed$"):
        builder.make([replace(sample, source=Clip(np.zeros((3, 3, 8, 8), np.uint8), 7.0))])
    with pytest.raises(InputError, match="num_inference_steps is 0"):
        Animation(num_inference_steps=0)
    with pytest.raises(InputError, match="frames is 1"):
        BuildPairs(builder.output, frames=1)
