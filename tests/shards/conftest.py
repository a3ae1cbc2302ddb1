"""Tiny triplets and data sets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from insvie_lightning.batch import Clip, Triplet
from insvie_lightning.shards.write import ShardWriter
from insvie_lightning.video import write_clip


@pytest.fixture
def make_triplet() -> Callable[..., Triplet]:
    """Return a maker of triplets of noise: 5 frames of 32x48 at 7 fps."""

    def make(key: str, **fields: Any) -> Triplet:
        generator = np.random.default_rng(sum(key.encode()))
        clips = [Clip(generator.integers(0, 256, (5, 3, 32, 48), dtype=np.uint8), 7.0) for _ in range(2)]
        return Triplet(key, *clips, **{"instruction": f"edit {key}", **fields})

    return make


@pytest.fixture
def dataset(tmp_path: Path, make_triplet: Callable[..., Triplet]) -> Path:
    """Return a data set of two shards: samples s0..s3 with scores, and the rejected bad."""
    with ShardWriter(tmp_path / "set", shard_size=3, lossless=True) as writer:
        for index in range(4):
            origin = "static" if index == 3 else "real"
            scores = {"judge": index + 1.0, "epe_px": 0.5}
            writer.write(make_triplet(f"s{index}", origin=origin, scores=scores, lineage={"seed": index}))
        writer.reject("bad", "flow is 12.5 px", instruction="break it", scores={"judge": 5.0})
    return tmp_path / "set"


@pytest.fixture
def videos(tmp_path: Path, make_triplet: Callable[..., Triplet]) -> Path:
    """Return a folder with source/NAME.mp4 and edited/NAME.mp4 for the names a, b and pexel-static-c."""
    for name in ("a", "b", "pexel-static-c"):
        triplet = make_triplet(name)
        write_clip(tmp_path / "raw" / "source" / f"{name}.mp4", triplet.source)
        write_clip(tmp_path / "raw" / "edited" / f"{name}.mp4", triplet.edited)
    return tmp_path / "raw"
