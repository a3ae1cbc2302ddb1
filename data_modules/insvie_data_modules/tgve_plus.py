"""TGVE+ as published: one Parquet file of more edits of TGVE's videos, for test."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from insvie_data_modules.edits import VideosToEdit, new_quarantine, tell_bad
from insvie_data_modules.samples import Form, Sample
from insvie_data_modules.tgve import MAX_FRAMES, Text, find_video, told
from insvie_lightning.columns import find_columns
from insvie_lightning.edit_list import Edit, can_exist, unique_keys
from insvie_lightning.errors import InputError, first_line, nearest, shortened
from insvie_lightning.video import Resize

NEEDED = ("video", "instruction", "source_caption", "edited_caption", "edit_type")


class TgvePlus(LightningDataModule):
    """The 1,417 edits of TGVE+, for test and predict; batches have captions but no target.

    TGVE+ (EVE, arXiv 2403.09334, section 4.1) adds the tasks remove, add and texture to TGVE's four. Each row has an
    instruction, captions before and after, a task, and the path of a video in TGVE. A video that cannot be read is set
    aside in `quarantine-data-rank0.jsonl` of the run folder, and is in no mean.

    Args:
        table: The published Parquet file.
        folder: TGVE: the folder of `DAVIS_480p`, `youtube_480p`, `videvo_480p`.
        columns: Meaning -> column, where the table's names are not among those that `insvie_lightning.columns` knows.
        text: What the editor is told: the `instruction`, or the `caption` of the edited video.
        tasks: Only these; empty means all.
        batch_size: Videos per batch and process.
        frames: Number of frames, at the widest even stride; None keeps each clip's own (32 or 128).
        max_frames: A longer clip is sampled to so many at the widest even stride, as InsV2V does; None keeps all.
        size: Height and width in pixels that the sources are brought to; None keeps 480 x 480, which the metrics want.
        resize: `stretch` scales, `cover` scales to cover and cuts the middle, `crop` cuts the middle.
        frames_fps: Frames per second of folders of frames, which do not tell; videos tell themselves.
        num_workers: Worker processes.
    """

    def __init__(
        self,
        table: str | os.PathLike[str],
        folder: str | os.PathLike[str],
        columns: dict[str, str] | None = None,
        text: Text = "instruction",
        tasks: tuple[str, ...] = (),
        batch_size: int = 1,
        frames: int | None = None,
        max_frames: int | None = MAX_FRAMES,
        size: tuple[int, int] | None = None,
        resize: Resize = "stretch",
        frames_fps: float = 10.0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.table = Path(table)
        self.folder = Path(folder)
        self.columns = columns or {}
        self.text = text
        self.tasks = tasks
        self.batch_size = batch_size
        self.form = Form(frames, size, resize, max_frames=max_frames)
        self.frames_fps = frames_fps
        self.num_workers = num_workers

    def test_dataloader(self) -> DataLoader[Sample]:
        """Batches of `EditBatch` without a target, in the order of the table.

        Raises:
            InputError: As `read_tgve_plus`; a task of `tasks` is not in the table; or an edit has no text.
        """
        edits = read_tgve_plus(self.table, self.folder, self.columns)
        known = sorted({edit.edit_type for edit in edits})
        for task in self.tasks:
            if task not in known:
                raise InputError(
                    f"{self.table} has no task {task!r}; legal are {', '.join(known)}{nearest(task, known)}"
                )
        edits = [edit for edit in edits if not self.tasks or edit.edit_type in self.tasks]
        dataset = VideosToEdit(
            told(edits, self.text, str(self.table)), self.form, new_quarantine(self.trainer), self.frames_fps
        )
        return dataset.loader(self.batch_size, self.num_workers)

    def predict_dataloader(self) -> DataLoader[Sample]:
        """As `test_dataloader`."""
        return self.test_dataloader()

    def teardown(self, stage: str) -> None:
        """Report what was set aside."""
        tell_bad(self.trainer)


def read_tgve_plus(table: Path, folder: Path, columns: Mapping[str, str] = {}) -> list[Edit]:
    """Return the edits of the table; keys are the video's name and the task, numbered where they repeat.

    Args:
        table: As of `TgvePlus`.
        folder: As of `TgvePlus`.
        columns: As of `TgvePlus`.

    Raises:
        InputError: The table is absent or no Parquet file, lacks a column, or names a video that is not in the folder.
    """
    if not table.is_file():
        raise InputError(f"there is no file {str(table)!r}; give TGVE+'s Parquet file with --data.table")
    try:
        rows = pq.read_table(table)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{table} is no readable Parquet file: {first_line(error)}") from None
    if not folder.is_dir():
        raise InputError(f"there is no folder {str(folder)!r} of TGVE's videos; give it with --data.folder")
    named = find_columns(rows.column_names, NEEDED, table, columns)
    cells = [
        {meaning: str(row[named[meaning]] or "").strip() for meaning in NEEDED}
        for row in rows.select(sorted({named[meaning] for meaning in NEEDED})).to_pylist()
    ]
    if not cells:
        raise InputError(f"{table} has no rows")
    sections = sorted(path for path in folder.glob("*_480p") if path.is_dir())
    videos = [_find_video(folder, sections, row["video"], f"{table}, row {n}") for n, row in enumerate(cells, 1)]
    keys = unique_keys(f"{video.stem}_{row['edit_type']}" for video, row in zip(videos, cells, strict=True))
    return [
        Edit(
            key,
            video,
            row["instruction"],
            f"{key}.mp4",
            **{name: row[name] for name in ("source_caption", "edited_caption", "edit_type")},
        )
        for key, video, row in zip(keys, videos, cells, strict=True)
    ]


def _find_video(folder: Path, sections: list[Path], value: str, where: str) -> Path:
    """Find a video by its path in TGVE, which may begin with the name of TGVE's folder, or by its name."""
    parts = PurePosixPath(value.replace("\\", "/")).parts
    if not parts or ".." in parts or parts[0] == "/" or not can_exist(f"{value}.mp4"):
        raise InputError(f"{where}: {shortened(value)!r} is no path of a video inside {folder}")
    for start in range(len(parts)):
        path = folder.joinpath(*parts[start:])
        for video in (path, path.with_name(f"{path.name}.mp4")):
            if video.is_file() or (video.is_dir() and video.parent.name == "480p_frames"):
                return video
    if found := find_video(sections, parts[-1].removesuffix(".mp4")):
        return found
    raise InputError(f"{where}: there is no {value!r} in {folder}, nor a video of that name in its *_480p folders")
