"""The three ways of loading give the same crops of the same clips."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch


def test_every_way_loads_every_pair(benchmark: Callable[[str], ModuleType], tmp_path: Path) -> None:
    loader = benchmark("loader")
    loader.write_data(tmp_path, pairs=2, frames=5, video=(64, 96))
    released = loader.ReleasedPairs(tmp_path, (32, 48), pad_to=9)
    videos, latents = (list(loader.curriculum(tmp_path / form, 5, (32, 48), 2)) for form in ("videos", "latents"))
    assert len(released) == len(videos) == len(latents) == 2
    assert released[0]["mp4"].shape == (9, 3, 32, 48) and released[0]["mp4"].dtype == torch.float32
    assert videos[0].source.shape == (1, 5, 3, 32, 48) and latents[0].source_latents.shape == (1, 2, 16, 4, 6)
    assert loader.pairs_per_second(videos) > 0
