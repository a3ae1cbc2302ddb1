"""Videos and instructions to edit, without a target."""

from __future__ import annotations

import os
from pathlib import Path

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from insvie_data_modules.samples import Form, Sample, fit, stack, to_tensor
from insvie_lightning.edit_list import Edit, check, list_edits
from insvie_lightning.errors import InputError
from insvie_lightning.video import Resize, read_clip


class EditFolder(LightningDataModule):
    """Videos to edit, for predict and test: a folder, a video or a CSV with the columns `video,instruction`.

    Keys are the names of the videos without their ending, numbered where they repeat, or what a CSV's column `output`
    names, without `.mp4`. The callback `WriteEdits` writes what an editor makes of them as `KEY.mp4`; `insvie edit
    --csv` edits videos that are too long for the memory, too.

    Args:
        videos: A folder of videos, one video, or a CSV; paths in a CSV are relative to its folder.
        instruction: The sentence for every video that has none of its own.
        batch_size: Videos per batch and process.
        frames: Number of frames, taken from the start; None keeps each clip's own.
        size: Height and width in pixels; None keeps each clip's own.
        resize: `cover` scales to cover and cuts the middle, `crop` cuts the middle, `stretch` scales.
        pad_short: Repeat the last frame of a clip that is shorter than `frames`.
        num_workers: Worker processes.
        done: Leave out what `WriteEdits` has written into this folder before.
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
        done: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        self.videos = Path(videos)
        self.instruction = instruction
        self.batch_size = batch_size
        self.form = Form(frames, size, resize, pad_short)
        self.num_workers = num_workers
        self.done = None if done is None else Path(done)

    def predict_dataloader(self) -> DataLoader[Sample]:
        """Batches of `EditBatch` without a target.

        Raises:
            InputError: Nothing there, a column missing, an edit without video or instruction, or one output of two.
        """
        edits = list_edits(self.videos, self.instruction)
        taken: dict[str, Edit] = {}
        for edit in edits:
            check(edit)
            if (first := taken.setdefault(_key(edit), edit)) is not edit:
                raise InputError(
                    f"the output {edit.output!r} is that of {first.video} and of {edit.video}; name another"
                )
        left = [edit for edit in edits if self.done is None or not (self.done / f"{_key(edit)}.mp4").exists()]
        dataset = VideosToEdit(left, self.form)
        return DataLoader(dataset, batch_size=self.batch_size, num_workers=self.num_workers, collate_fn=stack)

    def test_dataloader(self) -> DataLoader[Sample]:
        """Batches of `EditBatch` without a target."""
        return self.predict_dataloader()


def _key(edit: Edit) -> str:
    """Name of the output without its ending, to which `WriteEdits` adds it again."""
    return str(Path(edit.output).with_suffix(""))


class VideosToEdit(Dataset[Sample]):
    """One sample per edit."""

    def __init__(self, edits: list[Edit], form: Form) -> None:
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
        edit = self.edits[index]
        try:
            clip = fit(read_clip(edit.video), self.form)
        except InputError as error:
            raise InputError(f"video {edit.video}: {error}") from error
        return Sample(_key(edit), edit.instruction, "real", clip.fps, {"source": to_tensor(clip)})
