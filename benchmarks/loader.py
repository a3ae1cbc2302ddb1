"""How many training pairs a second one core loads: the released way, ours from videos, and ours from cached latents.

Command:  python benchmarks/loader.py [--pairs 24] [--repeats 5] [--frames 25] [--video 576 1024] [--crop 480 720]
Hardware: any CPU; a minute.
Result:   a line a loader: pairs per second of CPU time (so that other work on the machine does not count), the ratio to
          the released way, and a line of JSON. Runs take turns; the median counts.

All three give the same crop of the same frames of the same clips:
    released  as InsViE's dataset class: every frame of both clips as RGB, cut, then float in [-1, 1] on the CPU. Its
              decoder decord has no builds for new Pythons; OpenCV takes its place, which is as fast
              within a few percent.
    videos    `Curriculum` on shards of videos: uint8, normalised on the device.
    latents   `Curriculum` on shards of cached latents of the whole frame, cut on their grid.
The released class also repeats the last of 25 frames until there are 49; `--pad` makes the first line do so, too.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Iterable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from insvie_data_modules import Curriculum, Stage
from insvie_lightning.batch import Clip, Triplet
from insvie_lightning.shards.latents import LATENTS, LatentRecipe, pack_latents
from insvie_lightning.shards.record import describe
from insvie_lightning.shards.write import ShardWriter
from insvie_lightning.video import write_clip


def moving_clip(number: int, frames: int, size: tuple[int, int]) -> Clip:
    """Draw a smooth picture that moves, with some grain: about as costly to decode as a photographed one."""
    random = np.random.default_rng(number)
    height, width = size
    low = random.integers(0, 256, (height // 16 + 8, width // 16 + 8, 3)).astype(np.uint8)
    picture = cv2.resize(low, (width + 128, height + 128), interpolation=cv2.INTER_CUBIC)
    grain = random.integers(-12, 13, picture.shape)
    picture = np.clip(picture + grain, 0, 255).astype(np.uint8)
    shifts = [(2 * frame, 3 * frame) for frame in range(frames)]
    images = [picture[y % 128 : y % 128 + height, x % 128 : x % 128 + width].transpose(2, 0, 1) for y, x in shifts]
    return Clip(np.stack(images), 7.0)


def write_data(folder: Path, pairs: int, frames: int, video: tuple[int, int]) -> None:
    """Write the same pairs as loose mp4 files, as shards of videos, and shards of latents of their size."""
    recipe = LatentRecipe("none", frames, video, "cover", "bfloat16")
    with ShardWriter(folder / "videos") as videos, ShardWriter(folder / "latents") as latents:
        for number in range(pairs):
            key = f"pair-{number:03d}"
            clips = {side: moving_clip(2 * number + i, frames, video) for i, side in enumerate(("source", "edited"))}
            for side, clip in clips.items():
                write_clip(folder / side / f"{key}.mp4", clip)
            triplet = Triplet(key, clips["source"], clips["edited"], "make it snow")
            videos.write(triplet)
            shape = ((frames + 3) // 4, 16, video[0] // 8, video[1] // 8)
            encoded = {side: torch.randn(shape) for side in clips}
            latents.write_members(describe(triplet), {LATENTS: pack_latents(encoded, recipe)})


class ReleasedPairs(Dataset[dict[str, Tensor]]):
    """Pairs as the released dataset class reads them."""

    def __init__(self, folder: Path, crop: tuple[int, int], pad_to: int | None) -> None:
        self.folder, self.crop, self.pad_to = folder, crop, pad_to
        self.names = sorted(path.name for path in (folder / "source").iterdir())

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One pair, floats F 3 H W in [-1, 1]."""
        source, edited = (self._frames(self.folder / side / self.names[index]) for side in ("source", "edited"))
        height, width = self.crop
        top = random.randint(0, source.shape[2] - height)
        left = random.randint(0, source.shape[3] - width)
        cut = [clip[:, :, top : top + height, left : left + width] for clip in (source, edited)]
        source, edited = ((clip - 127.5) / 127.5 for clip in cut)
        return {"mp4": source, "mp4_edit": edited}

    def _frames(self, path: Path) -> Tensor:
        video, images = cv2.VideoCapture(str(path)), []
        while (read := video.read())[0]:
            images.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
        images += [images[-1]] * ((self.pad_to or 0) - len(images))
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def curriculum(shards: Path, frames: int, crop: tuple[int, int], pairs: int) -> DataLoader[Any]:
    """Ours, as a training opens it."""
    data = Curriculum(shards, [Stage("all", pairs)], batch_size=1, frames=frames, size=crop)
    return data.train_dataloader()


def pairs_per_second(loader: Iterable[object]) -> float:
    """Load everything once; count the seconds of CPU time of this process."""
    start, count = time.process_time(), 0
    for _ in loader:
        count += 1
    return count / (time.process_time() - start)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=24, help="default 24")
    parser.add_argument("--repeats", type=int, default=5, help="default 5")
    parser.add_argument("--frames", type=int, default=25, help="default 25")
    parser.add_argument("--video", type=int, nargs=2, default=(576, 1024), help="height and width; default 576 1024")
    parser.add_argument("--crop", type=int, nargs=2, default=(480, 720), help="height and width; default 480 720")
    parser.add_argument("--pad", type=int, help="repeat the last frame up to so many in the released way")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    video, crop = tuple(args.video), tuple(args.crop)
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "av", "opencv-python-headless"))
    print(f"{date.today()}, {platform.machine()}, Python {platform.python_version()}, {packages}")
    print(f"{args.pairs} pairs of {args.frames} frames of {video[0]} x {video[1]}, cut to {crop[0]} x {crop[1]}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_data(folder, args.pairs, args.frames, video)
        loaders: dict[str, Iterable[object]] = {
            "released": DataLoader(ReleasedPairs(folder, crop, args.pad)),
            "videos": curriculum(folder / "videos", args.frames, crop, args.pairs),
            "latents": curriculum(folder / "latents", args.frames, crop, args.pairs),
        }
        rates: dict[str, list[float]] = {name: [] for name in loaders}
        for _ in range(args.repeats):
            for name, loader in loaders.items():
                rates[name].append(pairs_per_second(loader))
    median = {name: statistics.median(found) for name, found in rates.items()}
    for name, rate in median.items():
        print(f"{name:9}{rate:9.2f} pairs/s per core {rate / median['released']:8.2f} times")
    print(json.dumps({"benchmark": "loader", "pairs_per_cpu_second": median}))


if __name__ == "__main__":
    main()
