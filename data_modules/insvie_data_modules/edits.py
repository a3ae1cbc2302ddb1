"""From lists of videos and what to change in them to samples without a target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader, Dataset

from insvie_data_modules.samples import Form, Sample, fit, stack, to_tensor
from insvie_lightning.batch import Clip, EditBatch
from insvie_lightning.edit_list import Edit
from insvie_lightning.errors import InputError
from insvie_lightning.files import read_bytes
from insvie_lightning.quarantine import Quarantine, read_quarantine
from insvie_lightning.shards.drafts import decode_png
from insvie_lightning.slow_reads import reading
from insvie_lightning.video import MAX_FRAMES, read_clip

FRAME_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


class VideosToEdit(Dataset[Sample | None]):
    """One sample per edit; its key is the name of the edit's output without `.mp4`, which `WriteEdits` adds again.

    Args:
        edits: Their videos are files, or folders of frames.
        form: The shape to bring them to.
        quarantine: Where edits go whose video cannot be read.
        frames_fps: Frames per second of folders of frames, which do not tell.
    """

    def __init__(self, edits: Sequence[Edit], form: Form, quarantine: Quarantine, frames_fps: float = 10.0) -> None:
        self.edits, self.form, self.quarantine, self.frames_fps = edits, form, quarantine, frames_fps

    def __len__(self) -> int:
        """Number of edits."""
        return len(self.edits)

    def __getitem__(self, index: int) -> Sample | None:
        """Read video `index`; None where it cannot be read, or is too short or too small."""
        edit = self.edits[index]
        try:
            with reading(str(edit.video)):
                whole = _read_frames(edit.video, self.frames_fps) if edit.video.is_dir() else read_clip(edit.video)
            clip = fit(whole, self.form)
        except InputError as error:
            self.quarantine.add(key_of(edit), str(error))
            return None
        self.quarantine.accept()
        return Sample(
            key_of(edit),
            edit.instruction,
            "real",
            clip.fps,
            {"source": to_tensor(clip)},
            edit.source_caption,
            edit.edited_caption,
            edit.edit_type,
        )

    def loader(self, batch_size: int, num_workers: int) -> DataLoader[Sample]:
        """Batches of `EditBatch` without a target, in order; those of bad videos only are left out."""
        return GoodBatches(self, batch_size=batch_size, num_workers=num_workers, collate_fn=_stack_good)


class GoodBatches(DataLoader[Any]):
    """A loader whose batches of bad samples only, which are None, are left out: it may give fewer than it counts."""

    def __iter__(self) -> Iterator[EditBatch]:  # type: ignore[override]
        """The other batches."""
        return (batch for batch in super().__iter__() if batch is not None)


def _stack_good(samples: Sequence[Sample | None]) -> EditBatch | None:
    good = [sample for sample in samples if sample is not None]
    return stack(good) if good else None


def new_quarantine(trainer: Trainer | None) -> Quarantine:
    """Begin a list of the bad edits of a run: `quarantine-data-rank0.jsonl` of its folder; all edits are tried."""
    path = _quarantine_path(trainer)
    path.unlink(missing_ok=True)
    return Quarantine(path, max_rate=1.0)


def tell_bad(trainer: Trainer | None) -> None:
    """Say at the end of a run how many edits were bad."""
    if bad := read_quarantine(path := _quarantine_path(trainer)):
        rank_zero_warn(f"{len(bad)} edits are bad and left out; {path} has their keys and reasons")


def _quarantine_path(trainer: Trainer | None) -> Path:
    folder, rank = (trainer.default_root_dir, trainer.global_rank) if trainer else (".", 0)
    return Path(folder) / f"quarantine-data-rank{rank}.jsonl"


def key_of(edit: Edit) -> str:
    """Key of the sample of an edit."""
    return str(Path(edit.output).with_suffix(""))


def _read_frames(folder: Path, fps: float) -> Clip:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in FRAME_SUFFIXES)
    if len(paths) > MAX_FRAMES:
        raise InputError(f"{folder} has {len(paths)} frames; at most {MAX_FRAMES} are read")
    frames = [decode_png(read_bytes(path, "a picture"), str(path)) for path in paths]
    if len({frame.shape for frame in frames}) != 1:
        raise InputError(
            f"{folder} has {len(frames)} frames of {len({f.shape for f in frames})} sizes; needed is one size"
        )
    return Clip(np.stack(frames), fps)
