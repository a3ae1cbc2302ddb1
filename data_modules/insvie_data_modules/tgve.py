"""TGVE (LOVEU 2023) as published: 76 videos with four edits each, for test."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from insvie_data_modules.samples import Form, Sample, fit, stack, to_tensor
from insvie_lightning.batch import Clip
from insvie_lightning.errors import InputError, nearest
from insvie_lightning.video import Resize, read_clip

Edit = Literal["style", "object", "background", "multiple"]
EDITS: tuple[Edit, ...] = ("style", "object", "background", "multiple")
"""The edits, in the order of the CSV's columns."""
INSTRUCTIONS = "instructions.json"
FRAME_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


@dataclass(frozen=True, slots=True)
class TgveEdit:
    """One edit of one video.

    Attributes:
        key: Name of the video and the edit.
        video: The mp4, or a folder of frames.
        caption: What the video shows.
        target_caption: What it should show.
        edit: Which of `EDITS`.
        instruction: The sentence; empty where only the caption is known.
    """

    key: str
    video: Path
    caption: str
    target_caption: str
    edit: str
    instruction: str


class Tgve(LightningDataModule):
    """The videos of TGVE and their edits, for test and predict; batches have captions but no target.

    TGVE brings captions of the edited videos; instructions were written later (InsV2V's
    `loveu_tgve_edit_prompt_dict.json`), and are read from a file of that layout.

    Args:
        folder: What the published zip holds: one CSV, and `DAVIS_480p`, `youtube_480p`, `videvo_480p`.
        instructions: JSON of video -> `edit_style`, `edit_object`, `edit_background`, `edit_multiple` -> sentence; None
            takes `instructions.json` of the folder.
        text: What the editor is told: the `instruction`, or the `caption` of the edited video.
        edits: Which edits, of style, object, background and multiple.
        batch_size: Videos per batch and process.
        frames: Number of frames, at the widest even stride; None keeps each clip's own (32 or 128).
        size: Height and width in pixels; None keeps 480 x 480.
        resize: The paper stretches to 480 x 720 and back; `cover` scales to cover and cuts the middle, `crop` cuts.
        frames_fps: Frames per second of folders of frames, which do not tell; videos tell themselves.
        num_workers: Worker processes.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        instructions: str | os.PathLike[str] | None = None,
        text: Literal["instruction", "caption"] = "instruction",
        edits: tuple[Edit, ...] = EDITS,
        batch_size: int = 1,
        frames: int | None = None,
        size: tuple[int, int] | None = None,
        resize: Resize = "stretch",
        frames_fps: float = 10.0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.instructions = Path(instructions) if instructions else self.folder / INSTRUCTIONS
        self.text = text
        self.edits = edits
        self.batch_size = batch_size
        self.form = Form(frames, size, resize)
        self.frames_fps = frames_fps
        self.num_workers = num_workers

    def test_dataloader(self) -> DataLoader[Sample]:
        """Batches of `EditBatch` without a target, video by video in the order of the CSV.

        Raises:
            InputError: As `read_tgve`; or an edit has no text.
        """
        edits = [edit for edit in read_tgve(self.folder, self.instructions) if edit.edit in self.edits]
        for edit in edits:
            if not (edit.instruction if self.text == "instruction" else edit.target_caption):
                raise InputError(
                    f"{edit.key!r} has no {self.text}: {self.instructions} gives instructions, the CSV captions; "
                    f"choose with --data.text instruction or --data.text caption"
                )
        dataset = TgveVideos(edits, self.text, self.form, self.frames_fps)
        return DataLoader(dataset, batch_size=self.batch_size, num_workers=self.num_workers, collate_fn=stack)

    def predict_dataloader(self) -> DataLoader[Sample]:
        """As `test_dataloader`."""
        return self.test_dataloader()


class TgveVideos(Dataset[Sample]):
    """One sample per edit."""

    def __init__(self, edits: list[TgveEdit], text: str, form: Form, frames_fps: float) -> None:
        self.edits, self.text, self.form, self.frames_fps = edits, text, form, frames_fps

    def __len__(self) -> int:
        """Number of edits."""
        return len(self.edits)

    def __getitem__(self, index: int) -> Sample:
        """Read the video of edit `index`.

        Raises:
            InputError: It cannot be read, or is too short or too small.
        """
        edit = self.edits[index]
        clip = _read_frames(edit.video, self.frames_fps) if edit.video.is_dir() else read_clip(edit.video)
        try:
            clip = fit(clip, self.form)
        except InputError as error:
            raise InputError(f"video {edit.video}: {error}") from error
        text = edit.instruction if self.text == "instruction" else edit.target_caption
        return Sample(edit.key, text, "real", clip.fps, {"source": to_tensor(clip)}, edit.caption, edit.target_caption)


def read_tgve(folder: Path, instructions: Path | None = None) -> list[TgveEdit]:
    """Return the four edits of each video.

    The CSV has section rows (`DAVIS Videos:`), which name the folder of the videos that follow, and blank rows.

    Args:
        folder: As of `Tgve`.
        instructions: As of `Tgve`; a file that is absent gives no instructions.

    Raises:
        InputError: There is no such CSV, a row stands before the first section or lacks captions, a name repeats, a
            video is missing, or the instructions are no such JSON or lack a video.
    """
    tables = sorted(folder.glob("*.csv"))
    if len(tables) != 1:
        raise InputError(f"{folder} holds {len(tables)} CSV files; TGVE is one CSV beside DAVIS_480p, youtube_480p ...")
    known = _read_instructions(instructions) if instructions and instructions.is_file() else None
    edits: dict[str, TgveEdit] = {}
    for line, section, cells in _read_rows(tables[0]):
        name, caption, *targets = cells
        where = f"{tables[0]}, line {line}"
        if len(targets) < len(EDITS) or not all(targets[: len(EDITS)]):
            raise InputError(
                f"{where}: {name!r} has too few captions; needed are the video's own and {len(EDITS)} targets"
            )
        if known is not None and name not in known:
            raise InputError(f"{where}: {instructions} has no instructions for {name!r}{nearest(name, known)}")
        video = _find_video(folder, section, name, where)
        for edit, target in zip(EDITS, targets, strict=False):
            key = f"{re.sub(r'[^A-Za-z0-9_-]', '_', name)}_{edit}"
            if key in edits:
                raise InputError(f"{where}: the video {name!r} stands there twice")
            sentence = known[name].get(f"edit_{edit}", "") if known else ""
            edits[key] = TgveEdit(key, video, caption, target, edit, sentence)
    if not edits:
        raise InputError(f"{tables[0]} names no video")
    return list(edits.values())


def _read_rows(table: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Yield (line, section, cells) of each row that names a video."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = [(number, [cell.strip() for cell in row]) for number, row in enumerate(csv.reader(file), start=1)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} is no readable CSV: {error}") from None
    header = ", ".join(rows[0][1]) if rows else ""
    if not header.lower().startswith("video name") or len(rows[0][1]) < 2 + len(EDITS):
        raise InputError(
            f"{table} begins with {header!r}; TGVE's CSV has the columns Video name, Our GT caption, Style Change "
            "Caption, Object Change Caption, Background Change Caption, Multiple Changes Caption"
        )
    section = ""
    for number, cells in rows[1:]:
        if not any(cells):
            continue
        if found := re.fullmatch(r"(\w+) videos:?", cells[0], re.IGNORECASE):
            section = found[1]
        elif not section:
            raise InputError(
                f"{table}, line {number}: {cells[0]!r} stands before the first row such as 'DAVIS Videos:'"
            )
        else:
            yield number, section, cells + [""] * (2 - len(cells))


def _find_video(folder: Path, section: str, name: str, where: str) -> Path:
    # The CSV says Youtube and Videvo where the folders say youtube and videvo.
    parents = [path for path in folder.iterdir() if path.name.lower() == f"{section}_480p".lower()]
    if name in {"", ".", ".."} or "/" in name or "\\" in name:
        raise InputError(f"{where}: {name!r} is no name of a video")
    for parent in parents:
        for video in (parent / "480p_videos" / f"{name}.mp4", parent / "480p_frames" / name):
            if video.exists():
                return video
    raise InputError(
        f"{where}: there is no {section}_480p/480p_videos/{name}.mp4 and no 480p_frames/{name} in {folder}"
    )


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


def _read_instructions(path: Path) -> dict[str, dict[str, str]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no readable JSON: {error}") from None
    legal = '{"gold-fish": {"edit_style": "...", "edit_object": "...", ...}, ...}'
    if not isinstance(found, dict) or not all(isinstance(edits, dict) for edits in found.values()):
        raise InputError(f"{path} must map names of videos to edits, such as {legal}")
    return {name: {edit: str(text).strip() for edit, text in edits.items()} for name, edits in found.items()}
