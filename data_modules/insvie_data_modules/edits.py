"""From lists of videos and what to change in them to samples without a target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader, Dataset

from insvie_data_modules.samples import Form, Sample, fit, stack, to_tensor
from insvie_lightning.batch import Clip
from insvie_lightning.edit_list import Edit
from insvie_lightning.errors import InputError
from insvie_lightning.video import read_clip

FRAME_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


class VideosToEdit(Dataset[Sample]):
    """One sample per edit; its key is the name of the edit's output without `.mp4`, which `WriteEdits` adds again.

    Args:
        edits: Their videos are files, or folders of frames.
        form: The shape to bring them to.
        frames_fps: Frames per second of folders of frames, which do not tell.
    """

    def __init__(self, edits: Sequence[Edit], form: Form, frames_fps: float = 10.0) -> None:
        self.edits, self.form, self.frames_fps = edits, form, frames_fps

    def __len__(self) -> int:
        """Number of edits."""
        return len(self.edits)

    def __getitem__(self, index: int) -> Sample:
        """Read video `index`.

        Raises:
            InputError: It cannot be read, or is too short or too small.
        """
        edit = self.edits[index]
        try:
            whole = _read_frames(edit.video, self.frames_fps) if edit.video.is_dir() else read_clip(edit.video)
            clip = fit(whole, self.form)
        except InputError as error:
            raise InputError(f"video {edit.video}: {error}") from error
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
        """Batches of `EditBatch` without a target, in order."""
        return DataLoader(self, batch_size=batch_size, num_workers=num_workers, collate_fn=stack)


def key_of(edit: Edit) -> str:
    """Key of the sample of an edit."""
    return str(Path(edit.output).with_suffix(""))


def _read_frames(folder: Path, fps: float) -> Clip:
    from PIL import Image, UnidentifiedImageError

    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in FRAME_SUFFIXES)
    try:
        frames = [np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1) for path in paths]
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{folder} has a frame that cannot be read: {error}") from None
    if len({frame.shape for frame in frames}) != 1:
        raise InputError(
            f"{folder} has {len(frames)} frames of {len({f.shape for f in frames})} sizes; needed is one size"
        )
    return Clip(np.stack(frames), fps)
