"""Videos and instructions to edit, without a target."""

from __future__ import annotations

import csv
import os
import re
from itertools import chain, count
from pathlib import Path

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from insvie_data_modules.samples import Form, Sample, fit, stack, to_tensor
from insvie_lightning.errors import InputError, nearest
from insvie_lightning.video import Resize, read_clip

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif"})


class EditFolder(LightningDataModule):
    """Videos to edit, for predict and test: a folder, a video or a CSV with the columns `video,instruction`.

    Keys are the names of the videos without their ending, numbered where they repeat.

    Args:
        videos: A folder of videos, one video, or a CSV; paths in a CSV are relative to its folder.
        instruction: The sentence for every video that has none of its own.
        batch_size: Videos per batch and process.
        frames: Number of frames, taken from the start; None keeps each clip's own.
        size: Height and width in pixels; None keeps each clip's own.
        resize: `cover` scales to cover and cuts the middle, `crop` cuts the middle, `stretch` scales.
        pad_short: Repeat the last frame of a clip that is shorter than `frames`.
        num_workers: Worker processes.
    """

    def __init__(
        self,
        videos: str | os.PathLike[str],
        instruction: str | None = None,
        batch_size: int = 1,
        frames: int | None = None,
        size: tuple[int, int] | None = None,
        resize: Resize = "cover",
        pad_short: bool = True,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.videos = Path(videos)
        self.instruction = instruction
        self.batch_size = batch_size
        self.form = Form(frames, size, resize, pad_short)
        self.num_workers = num_workers

    def predict_dataloader(self) -> DataLoader[Sample]:
        """Batches of `EditBatch` without a target."""
        dataset = VideosToEdit(list_edits(self.videos, self.instruction), self.form)
        return DataLoader(dataset, batch_size=self.batch_size, num_workers=self.num_workers, collate_fn=stack)

    def test_dataloader(self) -> DataLoader[Sample]:
        """Batches of `EditBatch` without a target."""
        return self.predict_dataloader()


class VideosToEdit(Dataset[Sample]):
    """One sample per (key, video, instruction)."""

    def __init__(self, edits: list[tuple[str, Path, str]], form: Form) -> None:
        self.edits = edits
        self.form = form

    def __len__(self) -> int:
        """Number of edits."""
        return len(self.edits)

    def __getitem__(self, index: int) -> Sample:
        """Read video `index`.

        Raises:
            InputError: It cannot be read, or is too short or too small.
        """
        key, video, instruction = self.edits[index]
        try:
            clip = fit(read_clip(video), self.form)
        except InputError as error:
            raise InputError(f"video {video}: {error}") from error
        return Sample(key, instruction, "real", clip.fps, {"source": to_tensor(clip)})


def list_edits(videos: Path, instruction: str | None = None) -> list[tuple[str, Path, str]]:
    """List the (key, video, instruction) of a folder, a video or a CSV.

    Raises:
        InputError: Nothing there, a column missing, or a video without an instruction.
    """
    edits = []
    for video, sentence in _list_videos(videos):
        if not (sentence or instruction):
            raise InputError(
                f"{video} of {videos} has no instruction: give --data.instruction TEXT, or a CSV with the columns "
                "video,instruction"
            )
        edits.append((video, sentence or instruction or ""))
    if not edits:
        raise InputError(f"{videos} holds no video; legal endings are {', '.join(sorted(VIDEO_SUFFIXES))}")
    return [(key, video, sentence) for key, (video, sentence) in zip(_keys(edits), edits, strict=True)]


def _list_videos(videos: Path) -> list[tuple[Path, str]]:
    if videos.is_dir():
        return [(path, "") for path in sorted(videos.iterdir()) if path.suffix.lower() in VIDEO_SUFFIXES]
    if not videos.is_file():
        raise InputError(f"there is no file or folder {str(videos)!r}; legal are a folder of videos, a video or a CSV")
    if videos.suffix.lower() != ".csv":
        return [(videos, "")]
    with videos.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        if "video" not in columns:
            found = ", ".join(columns)
            raise InputError(
                f"{videos} has the columns {found}; needed are video,instruction{nearest('video', columns)}"
            )
        return [(videos.parent / row["video"], (row.get("instruction") or "").strip()) for row in reader]


def _keys(edits: list[tuple[Path, str]]) -> list[str]:
    keys: list[str] = []
    taken: set[str] = set()
    for video, _ in edits:
        stem = re.sub(r"[^A-Za-z0-9_-]", "_", video.stem)
        key = next(name for name in chain([stem], (f"{stem}-{n}" for n in count(2))) if name not in taken)
        keys.append(key)
        taken.add(key)
    return keys
