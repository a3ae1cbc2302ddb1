"""Videos as they were shot, as the drafts that a data set is built from."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from lightning.pytorch import LightningDataModule

from insvie_data_modules.listing import feed, folder_of, list_files, tell_size, unread
from insvie_lightning.batch import Clip, Draft
from insvie_lightning.decode import open_video
from insvie_lightning.edit_list import VIDEO_SUFFIXES
from insvie_lightning.errors import InputError
from insvie_lightning.video import Resize, fit_clip

if TYPE_CHECKING:
    from insvie_lightning.builders.units import Input, UnitLoader

STILL_LEVELS = 0.5
"""Frames that differ from the first one by less, in levels of 255 on the mean, show a still picture."""


class RawVideos(LightningDataModule):
    """Videos for builders: from each the first `frames` frames at `fps`, brought to one size, as a draft.

    A video is read only as far as needed. One that is broken, too short, too slow, too small, portrait or a still
    picture is rejected with its reason. The defaults are those of InsViE-1M: 25 frames of 576 x 1024, which Stable
    Video Diffusion makes, at 7 frames a second (paper, section 3.1).

    Args:
        videos: A folder of videos with all below it, one video, or a CSV with the column `video`, and perhaps
            `instruction` and `caption`; paths in a CSV are relative to its folder.
        frames: Number of frames.
        fps: Frames per second of the clips; None keeps each video's own.
        size: Height and width in pixels; None keeps each video's own.
        resize: `cover` scales to cover and cuts the middle, `crop` cuts the middle, `stretch` scales.
        upscale: Take videos that are smaller than `size`.
        portrait: Take videos that are higher than wide, though `size` is wider than high (or the other way round).
        still: Take videos in which nothing moves.
        dataset: Name of the data set that the videos are from; that of the folder by default.
        batch_size: Videos that a step is given at once.
        num_workers: Worker processes that read.
    """

    def __init__(
        self,
        videos: str | os.PathLike[str],
        frames: int = 25,
        fps: float | None = 7.0,
        size: tuple[int, int] | None = (576, 1024),
        resize: Resize = "cover",
        upscale: bool = False,
        portrait: bool = False,
        still: bool = False,
        dataset: str | None = None,
        batch_size: int = 1,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        if frames < 1 or (fps is not None and not fps > 0):
            raise InputError(f"frames is {frames}, fps {fps}; both are positive")
        self.videos = Path(videos)
        self.rules = {
            "frames": frames,
            "fps": fps,
            "size": size,
            "resize": resize,
            "upscale": upscale,
            "portrait": portrait,
            "still": still,
        }
        self.dataset = folder_of(self.videos).resolve().name if dataset is None else dataset
        self.batch_size = batch_size
        self.num_workers = num_workers

    def inputs(self) -> VideoInputs:
        """All videos as drafts, in the order of the CSV or of their names.

        Raises:
            InputError: There are none, or the CSV cannot be read.
        """
        return VideoInputs(self.videos, self.dataset, **self.rules)  # type: ignore[arg-type]

    def predict_dataloader(self) -> UnitLoader:
        """Units of drafts, for a builder."""
        return feed(self, self.inputs(), self.batch_size, self.num_workers)


class VideoInputs:
    """Drafts of videos; the arguments are those of `RawVideos`."""

    def __init__(
        self,
        videos: Path,
        dataset: str,
        frames: int,
        fps: float | None,
        size: tuple[int, int] | None,
        resize: Resize,
        upscale: bool,
        portrait: bool,
        still: bool,
    ) -> None:
        self.rows: pa.Table = list_files(videos, VIDEO_SUFFIXES, "video")
        self.folder, self.dataset = folder_of(videos), dataset
        self.frames, self.fps, self.size, self.resize = frames, fps, size, resize
        self.upscale, self.portrait, self.still = upscale, portrait, still
        size_json = list(size) if size else None
        taken = {"frames": frames, "fps": fps, "size": size_json, "resize": resize}
        allowed = {"upscale": upscale, "portrait": portrait, "still": still}
        self.reading: Mapping[str, Any] = {
            "data": "RawVideos",
            **taken,
            **allowed,
            "dataset": dataset,
            "at": str(videos),
        }

    @property
    def keys(self) -> pa.ChunkedArray:
        """The key of every video, made of its name."""
        return self.rows["key"]

    def __getitem__(self, index: int) -> Input:
        """Read one video, or find out why it cannot be used."""
        from insvie_lightning.builders.units import Input

        row = self.rows.slice(index, 1).to_pylist()[0]
        draft = unread(row, "real", self.dataset, {"RawVideos": {"file": row["name"], "fps": self.fps}})
        if row["problem"]:
            return Input(draft, bad=row["problem"])
        try:
            return Input(self._read(row, draft))
        except InputError as error:
            return Input(draft, bad=str(error))

    def _read(self, row: Mapping[str, Any], draft: Draft) -> Draft:
        clip = take_clip(self.folder / row["name"], row["name"], self.frames, self.fps, self._check)
        if not self.still and len(clip) > 1 and _is_still(clip):
            raise InputError(f"{row['name']}: nothing moves in it; still pictures are for Images, or set still")
        fitted = fit_clip(clip, self.size, self.resize) if self.size else clip
        return replace(tell_size(draft, clip.size), source=fitted)

    def _check(self, name: str, size: tuple[int, int]) -> None:
        """Refuse a video by its size, before more than one frame is read.

        Raises:
            InputError: It is too small, or portrait where landscape is wanted.
        """
        if self.size is None:
            return
        (height, width), (wanted_height, wanted_width) = size, self.size
        if not self.portrait and (height - width) * (wanted_height - wanted_width) < 0:
            raise InputError(
                f"{name}: {height}x{width} is {'higher than wide' if height > width else 'wider than high'}, of which "
                f"{wanted_height}x{wanted_width} would keep little; set portrait to take it"
            )
        if not self.upscale and (height < wanted_height or width < wanted_width):
            raise InputError(
                f"{name}: {height}x{width} is smaller than {wanted_height}x{wanted_width}; set upscale to take it"
            )


Check = Callable[[str, tuple[int, int]], None]
"""Called with the name and the size of an open video; raises to refuse it."""


def take_clip(path: Path, name: str, frames: int, fps: float | None, check: Check | None = None) -> Clip:
    """Read the first frames of a video at a frame rate, and nothing behind them.

    Frame i of the clip is frame round(i * rate / fps) of the video, at its mean rate.

    Args:
        path: The video.
        name: What to call it in errors.
        frames: How many to take.
        fps: Frames per second; None takes every frame.
        check: Called with name and size before the frames are read.

    Raises:
        InputError: It cannot be read, shows one picture only, is too short, or has fewer frames a second.
    """
    with open_video(path, name=name) as video:
        if check is not None:
            check(name, video.size)
        stride = 1.0 if fps is None else video.fps / fps
        if stride < 0.99:  # 6.99 frames a second are as good as 7
            raise InputError(f"{name}: {video.fps:g} frames a second, and {fps:g} are wanted; set fps lower")
        wanted = [round(number * max(stride, 1.0)) for number in range(frames)]
        numbers = set(wanted)
        taken, seen = [], 0
        for seen, pixels in enumerate(islice(video.frames, wanted[-1] + 1), 1):
            if seen - 1 in numbers:
                taken.append(pixels)
    if seen == 1 < frames:
        raise InputError(f"{name}: one frame only, so it is a picture and no video; pictures are for Images")
    if len(taken) < frames:
        raise InputError(
            f"{name}: too short, {seen} frames at {video.fps:g} a second; {frames} frames need {wanted[-1] + 1}"
        )
    return Clip(np.stack(taken), video.fps / stride)


def _is_still(clip: Clip) -> bool:
    """Whether every frame is the first one, but for the noise of a codec; a sixteenth of the pixels is looked at."""
    sparse = clip.frames[:, :, ::4, ::4].astype(np.int16)
    return bool((np.abs(sparse - sparse[:1]).mean(axis=(1, 2, 3)) < STILL_LEVELS).all())
