"""Videos and instructions to edit, without a target."""

from __future__ import annotations

import os
from pathlib import Path

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from insvie_data_modules.edits import VideosToEdit, key_of, new_quarantine, tell_bad
from insvie_data_modules.samples import Form, Sample
from insvie_lightning.edit_list import Edit, check, list_edits
from insvie_lightning.errors import InputError
from insvie_lightning.video import Resize


class EditFolder(LightningDataModule):
    """Videos to edit, for predict and test: a folder, a video or a CSV with the columns `video,instruction`.

    A CSV for a test also has the columns `source_caption`, `edited_caption` and `edit_type`, as far as its scores need
    them; `insvie_lightning.columns` lists other names that columns may have. Every video keeps its own length and size,
    as in the protocol of the paper's 100 test videos (section 5.1).

    Keys are the names of the videos without their ending, numbered where they repeat, or what a CSV's column `output`
    names, without `.mp4`. The callback `WriteEdits` writes what an editor makes of them as `KEY.mp4`; `insvie edit
    --csv` edits videos that are too long for the memory, too. An edit that is bad, as one whose video cannot be read,
    is set aside in `quarantine-data-rank0.jsonl` of the run folder with its key and reason.

    Args:
        videos: A folder of videos, one video, or a CSV; paths in a CSV are relative to its folder.
        instruction: The sentence for every video that has none of its own.
        batch_size: Videos per batch and process.
        frames: Number of frames, at the widest even stride; None keeps each clip's own.
        max_frames: A longer clip is sampled to so many at the widest even stride; None keeps all.
        size: Height and width in pixels; None keeps each clip's own.
        resize: `cover` scales to cover and cuts the middle, `crop` cuts the middle, `stretch` scales.
        pad_short: Repeat the last frame of a clip that is shorter than `frames`.
        num_workers: Worker processes.
        done: Leave out what `WriteEdits` has written into this folder before.
        columns: Meaning -> column of a CSV whose names are not known, such as `{edited_caption: wish}`.
    """

    def __init__(
        self,
        videos: str | os.PathLike[str],
        instruction: str | None = None,
        batch_size: int = 1,
        frames: int | None = None,
        max_frames: int | None = None,
        size: tuple[int, int] | None = None,
        resize: Resize = "cover",
        pad_short: bool = True,
        num_workers: int = 0,
        done: str | os.PathLike[str] | None = None,
        columns: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.videos = Path(videos)
        self.instruction = instruction
        self.batch_size = batch_size
        self.form = Form(frames, size, resize, pad_short, max_frames=max_frames)
        self.num_workers = num_workers
        self.columns = columns or {}
        self.done = None if done is None else Path(done)

    def predict_dataloader(self) -> DataLoader[Sample]:
        """Batches of `EditBatch` without a target.

        Raises:
            InputError: Nothing there, or a column missing.
        """
        edits = list_edits(self.videos, self.instruction, self.columns)
        quarantine = new_quarantine(self.trainer)
        good: dict[str, Edit] = {}
        for edit in edits:
            try:
                check(edit)
                if (first := good.setdefault(key_of(edit), edit)) is not edit:
                    raise InputError(
                        f"the output {edit.output!r} is that of {first.video} and of {edit.video}; name another"
                    )
            except InputError as error:
                quarantine.add(edit.key, str(error))
        left = [edit for key, edit in good.items() if self.done is None or not (self.done / f"{key}.mp4").exists()]
        return VideosToEdit(left, self.form, quarantine).loader(self.batch_size, self.num_workers)

    def test_dataloader(self) -> DataLoader[Sample]:
        """Batches of `EditBatch` without a target."""
        return self.predict_dataloader()

    def teardown(self, stage: str) -> None:
        """Report what was set aside."""
        tell_bad(self.trainer)
