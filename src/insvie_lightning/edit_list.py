"""What is to be edited: a video, a folder of videos, or a CSV with the columns `video,instruction` and maybe more."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from insvie_lightning.columns import find_columns
from insvie_lightning.errors import InputError, shortened
from insvie_lightning.files import open_text

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif"})


@dataclass(frozen=True, slots=True)
class Edit:
    """One video and what to change in it.

    Attributes:
        key: Name of the video without its ending, numbered where it repeats; letters, digits, `_` and `-` only.
        video: The file; where a row names none, the folder of the CSV.
        instruction: The sentence; empty if none was given.
        output: Name of the edited video inside the output folder.
        source_caption: What the video shows; empty if unknown.
        edited_caption: What it should show; empty if unknown.
        edit_type: What tables of scores are grouped by; empty if unknown.
    """

    key: str
    video: Path
    instruction: str
    output: str
    source_caption: str = ""
    edited_caption: str = ""
    edit_type: str = ""


def list_edits(videos: Path, instruction: str | None = None, columns: Mapping[str, str] | None = None) -> list[Edit]:
    """List the edits of a folder, a video or a CSV.

    Args:
        videos: A folder of videos, one video, or a CSV, whose videos are relative to its own folder. Its columns are
            `video`, `instruction`, and if it has them `output`, `source_caption`, `edited_caption` and `edit_type`, by
            these or other names that `columns.ALIASES` knows.
        instruction: The sentence for every video that has none of its own.
        columns: Meaning -> column of a CSV, for names that are not known.

    Raises:
        InputError: Nothing there, no instruction at all, or a CSV that is none or lacks a column; what is wrong with
            one row only is left to `check`.
    """
    rows = _rows(videos, instruction, columns)
    if not rows:
        raise InputError(f"{videos} holds no video; legal endings are {', '.join(sorted(VIDEO_SUFFIXES))}")
    if not instruction and not any(row.get("instruction") for row in rows):
        raise InputError(f"{videos} has no instruction: give one for all, or a CSV with the columns video,instruction")
    keys = unique_keys(Path(row["video"]).stem for row in rows)
    folder = videos if videos.is_dir() else videos.parent
    return [
        Edit(
            key,
            folder / row["video"],
            row.get("instruction") or instruction or "",
            row.get("output") or f"{key}.mp4",
            **{name: row.get(name, "") for name in ("source_caption", "edited_caption", "edit_type")},
        )
        for key, row in zip(keys, rows, strict=True)
    ]


def check(edit: Edit) -> None:
    """Refuse an edit that cannot be made.

    Raises:
        InputError: No video or instruction, or an output that is no mp4 inside the output folder.
    """
    for name in (str(edit.video), edit.output):
        if not can_exist(name):
            raise InputError(f"{shortened(name)!r} can be the name of no file; legal are 255 bytes a part and no NUL")
    if edit.video.is_dir():
        raise InputError("the row names no video; needed are video,instruction")
    if not edit.instruction:
        raise InputError(
            f"{edit.video} has no instruction: give one for all, or a CSV with the columns video,instruction"
        )
    output = Path(edit.output)
    if output.is_absolute() or ".." in output.parts:
        raise InputError(f"the output {edit.output!r} leaves the output folder; legal are names inside it")
    if output.suffix != ".mp4":
        raise InputError(f"the output {edit.output!r} is no mp4; did you mean {output.with_suffix('.mp4').name!r}?")


def can_exist(path: Path | str) -> bool:
    """Whether a file system takes the name at all; asking it about another one raises."""
    return "\0" not in str(path) and all(len(os.fsencode(part)) <= 255 for part in Path(path).parts)


def keep_source(video: Path | str, output: Path | str) -> None:
    """Refuse to write an edit over its own source.

    Raises:
        InputError: Both are one file.
    """
    if os.path.realpath(output) == os.path.realpath(video):
        raise InputError(f"the output {output} is the video itself, which would be lost; name another")


def _rows(videos: Path, instruction: str | None, given: Mapping[str, str] | None) -> list[dict[str, str]]:
    """Meaning -> cell of each row."""
    if videos.is_dir():
        return [{"video": path.name} for path in sorted(videos.iterdir()) if path.suffix.lower() in VIDEO_SUFFIXES]
    if not videos.is_file():
        raise InputError(f"there is no file or folder {str(videos)!r}; legal are a folder of videos, a video or a CSV")
    if videos.suffix.lower() != ".csv":
        return [{"video": videos.name}]
    try:
        with open_text(videos) as file:
            reader = csv.DictReader(file)
            reader.fieldnames = names = [column.strip() for column in reader.fieldnames or []]
            needed = ("video",) if instruction else ("video", "instruction")
            columns = find_columns(names, needed, videos, given)
            return [{meaning: (row.get(column) or "").strip() for meaning, column in columns.items()} for row in reader]
    except csv.Error as error:
        raise InputError(f"{videos} is no readable CSV: {error}") from None


def unique_keys(names: Iterable[str]) -> list[str]:
    """Make keys of names: letters, digits, `_` and `-` only, and numbered where they repeat."""
    keys: list[str] = []
    taken: set[str] = set()
    for name in names:
        stem = re.sub(r"[^A-Za-z0-9_-]", "_", name) or "video"
        key = next(key for key in chain([stem], (f"{stem}-{n}" for n in count(2))) if key not in taken)
        keys.append(key)
        taken.add(key)
    return keys
