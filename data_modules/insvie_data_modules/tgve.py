"""TGVE (LOVEU 2023) as published: 76 videos with four edits each, for test."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from insvie_data_modules.edits import VideosToEdit, new_quarantine, tell_bad
from insvie_data_modules.samples import Form, Sample
from insvie_lightning.edit_list import Edit, can_exist
from insvie_lightning.errors import InputError, nearest, shortened
from insvie_lightning.files import open_text, read_json
from insvie_lightning.video import Resize

EditType = Literal["style", "object", "background", "multiple"]
EDIT_TYPES: tuple[EditType, ...] = ("style", "object", "background", "multiple")
"""The edits of each video, in the order of the CSV's columns."""
Text = Literal["instruction", "caption"]
MAX_FRAMES = 32
"""InsV2V, and those who compare with it, take every 4th frame of the clips of 128 (`insv2v_run_loveu_tgve.py`)."""
INSTRUCTIONS = "instructions.json"


class Tgve(LightningDataModule):
    """The videos of TGVE and their edits, for test and predict; batches have captions but no target.

    TGVE brings captions of the edited videos; instructions were written later (InsV2V's
    `loveu_tgve_edit_prompt_dict.json`), and are read from a file of that layout. A video that cannot be read is set
    aside in `quarantine-data-rank0.jsonl` of the run folder, and is in no mean.

    Args:
        folder: What the published zip holds: one CSV, and `DAVIS_480p`, `youtube_480p`, `videvo_480p`.
        instructions: JSON of video -> `edit_style`, `edit_object`, `edit_background`, `edit_multiple` -> sentence; None
            takes `instructions.json` of the folder.
        text: What the editor is told: the `instruction`, or the `caption` of the edited video.
        edits: Which edits, of style, object, background and multiple.
        batch_size: Videos per batch and process.
        frames: Number of frames, at the widest even stride; None keeps each clip's own (32 or 128).
        max_frames: A longer clip is sampled to so many at the widest even stride, as InsV2V does; None keeps all.
        size: Height and width in pixels that the sources are brought to; None keeps 480 x 480, which the metrics want.
            How an editor brings them to its own size and back is its `edit_options`.
        resize: `stretch` scales, `cover` scales to cover and cuts the middle, `crop` cuts the middle.
        frames_fps: Frames per second of folders of frames, which do not tell; videos tell themselves.
        num_workers: Worker processes.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        instructions: str | os.PathLike[str] | None = None,
        text: Text = "instruction",
        edits: tuple[EditType, ...] = EDIT_TYPES,
        batch_size: int = 1,
        frames: int | None = None,
        max_frames: int | None = MAX_FRAMES,
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
        self.form = Form(frames, size, resize, max_frames=max_frames)
        self.frames_fps = frames_fps
        self.num_workers = num_workers

    def test_dataloader(self) -> DataLoader[Sample]:
        """Batches of `EditBatch` without a target, video by video in the order of the CSV.

        Raises:
            InputError: As `read_tgve`; or an edit has no text.
        """
        edits = [edit for edit in read_tgve(self.folder, self.instructions) if edit.edit_type in self.edits]
        source = f"{self.instructions} gives instructions, the CSV captions"
        dataset = VideosToEdit(told(edits, self.text, source), self.form, new_quarantine(self.trainer), self.frames_fps)
        return dataset.loader(self.batch_size, self.num_workers)

    def predict_dataloader(self) -> DataLoader[Sample]:
        """As `test_dataloader`."""
        return self.test_dataloader()

    def teardown(self, stage: str) -> None:
        """Report what was set aside."""
        tell_bad(self.trainer)


def told(edits: Iterable[Edit], text: Text, source: str) -> list[Edit]:
    """Return edits whose instruction is what the editor is to be told.

    Args:
        edits: With an instruction, a caption of the edited video, or both.
        text: Which of them it is told.
        source: Where they come from, for the error.

    Raises:
        InputError: An edit has no such text.
    """
    chosen = [edit if text == "instruction" else replace(edit, instruction=edit.edited_caption) for edit in edits]
    for edit in chosen:
        if not edit.instruction:
            raise InputError(
                f"{edit.key!r} has no {text}: {source}; choose with --data.text instruction or --data.text caption"
            )
    return chosen


def read_tgve(folder: Path, instructions: Path | None = None) -> list[Edit]:
    """Return the four edits of each video.

    The CSV has section rows (`DAVIS Videos:`), which name the folder of the videos that follow, and blank rows.

    Args:
        folder: As of `Tgve`.
        instructions: As of `Tgve`; a file that is absent gives no instructions.

    Raises:
        InputError: There is no such folder or CSV, a row stands before the first section or lacks captions, a name
            repeats, a video is missing, or the instructions are no such JSON or lack a video.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {str(folder)!r} of TGVE; give it with --data.folder")
    tables = sorted(folder.glob("*.csv"))
    if len(tables) != 1:
        raise InputError(f"{folder} holds {len(tables)} CSV files; TGVE is one CSV beside DAVIS_480p, youtube_480p ...")
    known = _read_instructions(instructions) if instructions and instructions.is_file() else None
    edits: dict[str, Edit] = {}
    for line, section, cells in _read_rows(tables[0]):
        name, caption, *targets = cells
        where = f"{tables[0]}, line {line}"
        if len(targets) < len(EDIT_TYPES) or not all(targets[: len(EDIT_TYPES)]):
            raise InputError(
                f"{where}: {name!r} has too few captions; needed are the video's own and {len(EDIT_TYPES)} targets"
            )
        if known is not None and name not in known:
            raise InputError(f"{where}: {instructions} has no instructions for {name!r}{nearest(name, known)}")
        video = _find_in_section(folder, section, name, where)
        for edit_type, target in zip(EDIT_TYPES, targets, strict=False):
            key = f"{re.sub(r'[^A-Za-z0-9_-]', '_', name)}_{edit_type}"
            if key in edits:
                raise InputError(f"{where}: the video {name!r} stands there twice")
            sentence = known[name].get(f"edit_{edit_type}", "") if known else ""
            edits[key] = Edit(key, video, sentence, f"{key}.mp4", caption, target, edit_type)
    if not edits:
        raise InputError(f"{tables[0]} names no video")
    return list(edits.values())


def _read_rows(table: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Yield (line, section, cells) of each row that names a video."""
    try:
        with open_text(table) as file:
            rows = [(number, [cell.strip() for cell in row]) for number, row in enumerate(csv.reader(file), start=1)]
    except csv.Error as error:
        raise InputError(f"{table} is no readable CSV: {error}") from None
    header = ", ".join(rows[0][1]) if rows else ""
    if not header.lower().startswith("video name") or len(rows[0][1]) < 2 + len(EDIT_TYPES):
        raise InputError(
            f"{table} begins with {header[:80]!r}; TGVE's CSV has the columns Video name, Our GT caption, Style Change "
            "Caption, Object Change Caption, Background Change Caption, Multiple Changes Caption"
        )
    section = ""
    for number, cells in rows[1:]:
        if not any(cells):
            continue
        if not can_exist(f"{cells[0]}.mp4"):
            raise InputError(
                f"{table}, line {number}: {shortened(cells[0])!r} can be the name of no video; legal are 255 bytes and "
                "no NUL"
            )
        if found := re.fullmatch(r"(\w+) videos:?", cells[0], re.IGNORECASE):
            section = found[1]
        elif not section:
            raise InputError(
                f"{table}, line {number}: {cells[0]!r} stands before the first row such as 'DAVIS Videos:'"
            )
        else:
            yield number, section, cells + [""] * (2 - len(cells))


def find_video(sections: Sequence[Path], name: str) -> Path | None:
    """Return the mp4 of a name, else its folder of frames, in the first of some of TGVE's folders that has it."""
    for section in sections:
        for video in (section / "480p_videos" / f"{name}.mp4", section / "480p_frames" / name):
            if video.exists():
                return video
    return None


def _find_in_section(folder: Path, section: str, name: str, where: str) -> Path:
    if name in {"", ".", ".."} or "/" in name or "\\" in name:
        raise InputError(f"{where}: {name!r} is no name of a video")
    # The CSV says Youtube and Videvo where the folders say youtube and videvo.
    sections = [path for path in folder.iterdir() if path.name.lower() == f"{section}_480p".lower()]
    if (video := find_video(sections, name)) is None:
        raise InputError(
            f"{where}: there is no {section}_480p/480p_videos/{name}.mp4 and no 480p_frames/{name} in {folder}"
        )
    return video


def _read_instructions(path: Path) -> dict[str, dict[str, str]]:
    found = read_json(path)
    legal = '{"gold-fish": {"edit_style": "...", "edit_object": "...", ...}, ...}'
    if not all(isinstance(edits, dict) for edits in found.values()):
        raise InputError(f"{path} must map names of videos to edits, such as {legal}")
    return {name: {edit: str(text).strip() for edit, text in edits.items()} for name, edits in found.items()}
