"""Tiny shard folders whose pixels say where they came from."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from insvie_lightning.batch import Clip, Triplet
from insvie_lightning.shards.latents import LATENTS, LatentRecipe, pack_latents
from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.read import iterate_samples
from insvie_lightning.shards.write import ShardWriter


def gradient_clip(frames: int = 4, size: tuple[int, int] = (32, 48)) -> Clip:
    """A clip whose red is the row, green the column and blue the frame."""
    height, width = size
    pixels = np.empty((frames, 3, height, width), np.uint8)
    pixels[:, 0] = np.arange(height)[:, None]
    pixels[:, 1] = np.arange(width)
    pixels[:, 2] = np.arange(frames)[:, None, None]
    return Clip(pixels, 8.0)


def triplet(key: str, origin: str = "real", judge: float = 5.0, clip: Clip | None = None) -> Triplet:
    """A sample whose edited clip is the source inverted."""
    clip = clip or gradient_clip()
    edited = Clip(255 - clip.frames, clip.fps)
    return Triplet(key, clip, edited, f"invert {key}", origin=origin, scores={"judge": judge})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def make_triplet() -> Callable[..., Triplet]:
    """Build a sample from its key, origin, judge score and clip."""
    return triplet


@pytest.fixture(scope="session")
def make_clip() -> Callable[..., Clip]:
    """Build a clip whose pixels say where they are."""
    return gradient_clip


@pytest.fixture(scope="session")
def make_shards(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write triplets into a new shard folder."""

    def make(triplets: list[Triplet], shard_size: int = 5) -> Path:
        folder = tmp_path_factory.mktemp("shards")
        with ShardWriter(folder, shard_size=shard_size, lossless=True) as writer:
            for sample in triplets:
                writer.write(sample)
        return folder

    return make


@pytest.fixture(scope="session")
def shards(make_shards: Callable[..., Path]) -> Path:
    """20 static, 12 real and 4 pair samples, mixed; judge counts 0, 1, 2, ..."""
    origins = ["static"] * 20 + ["real"] * 12 + ["pair"] * 4
    mixed = np.random.default_rng(0).permutation(origins).tolist()
    return make_shards([triplet(f"{origin}{i:02d}", origin, float(i)) for i, origin in enumerate(mixed)])


@pytest.fixture(scope="session")
def latents(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The samples of `shards` as cached latents: sample number n is all n, its edited latents all -n."""
    folder = tmp_path_factory.mktemp("latents")
    recipe = LatentRecipe("an encoder", frames=3, size=(32, 48), resize="cover", dtype="bfloat16")
    with ShardWriter(folder, shard_size=5) as writer:
        for number, (record, _) in enumerate(iterate_samples(shards)):
            source = torch.full((2, 16, 4, 6), float(number))
            writer.write_members(record, {LATENTS: pack_latents({"source": source, "edited": -source}, recipe)})
    return folder


@pytest.fixture(scope="session")
def broken_shards(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A copy of `shards` whose first two samples are blanked, and their keys."""
    folder = tmp_path_factory.mktemp("broken") / "shards"
    shutil.copytree(shards, folder)
    rows = open_manifest(folder).query().to_pylist()[:2]
    for row in rows:
        with (folder / row["shard"]).open("r+b") as file:
            for member in row["members"]:
                file.seek(member["offset"])
                file.write(bytes(member["size"]))
    return folder, {row["key"] for row in rows}
