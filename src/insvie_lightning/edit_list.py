"""What is to be edited: a video, a folder of videos, or a CSV with the columns `video,instruction[,output]`."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from insvie_lightning.errors import InputError, nearest

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif"})


@dataclass(frozen=True, slots=True)
class Edit:
    """One video and what to change in it.

    Attributes:
        key: Name of the video without its ending, numbered where it repeats; letters, digits, `_` and `-` only.
        video: The file; where a row names none, the folder of the CSV.
        instruction: The sentence; empty if none was given.
        output: Name of the edited video inside the output folder.
    """

    key: str
    video: Path
    instruction: str
    output: str


def list_edits(videos: Path, instruction: str | None = None) -> list[Edit]:
    """List the edits of a folder, a video or a CSV.

    Args:
        videos: A folder of videos, one video, or a CSV. Its column `instruction` may also be called `instruct`, as in
            the released InsViE-1M; its videos are relative to its own folder.
        instruction: The sentence for every video that has none of its own.

    Raises:
        InputError: Nothing there, no instruction at all, or a CSV that is none or lacks a column; what is wrong with
            one row only is left to `check`.
    """
    rows = _rows(videos, instruction)
    if not rows:
        raise InputError(f"{videos} holds no video; legal endings are {', '.join(sorted(VIDEO_SUFFIXES))}")
    if not instruction and not any(sentence for _, sentence, _ in rows):
        raise InputError(f"{videos} has no instruction: give one for all, or a CSV with the columns video,instruction")
    keys = _keys([Path(name) for name, _, _ in rows])
    folder = videos if videos.is_dir() else videos.parent
    return [
        Edit(key, folder / name, sentence or instruction or "", output or f"{key}.mp4")
        for key, (name, sentence, output) in zip(keys, rows, strict=True)
    ]


def check(edit: Edit) -> None:
    """Refuse an edit that cannot be made.

    Raises:
        InputError: No video or instruction, or an output that is no mp4 inside the output folder.
    """
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


def keep_source(video: Path | str, output: Path | str) -> None:
    """Refuse to write an edit over its own source.

    Raises:
        InputError: Both are one file.
    """
    if Path(output).resolve() == Path(video).resolve():
        raise InputError(f"the output {output} is the video itself, which would be lost; name another")


def _rows(videos: Path, instruction: str | None) -> list[tuple[str, str, str]]:
    if videos.is_dir():
        return [(path.name, "", "") for path in sorted(videos.iterdir()) if path.suffix.lower() in VIDEO_SUFFIXES]
    if not videos.is_file():
        raise InputError(f"there is no file or folder {str(videos)!r}; legal are a folder of videos, a video or a CSV")
    if videos.suffix.lower() != ".csv":
        return [(videos.name, "", "")]
    try:
        with videos.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            reader.fieldnames = columns = [column.strip() for column in reader.fieldnames or []]
            if "video" not in columns:
                found = ", ".join(columns) or "none"
                hint = nearest("video", columns)
                raise InputError(f"{videos} has the columns {found}; needed are video,instruction{hint}")
            if not instruction and not {"instruction", "instruct"} & {*columns}:
                raise InputError(
                    f"{videos} has the columns {', '.join(columns)}: give one instruction for all, or the column "
                    f"instruction{nearest('instruction', columns)}"
                )
            names = ("video", "instruct" if "instruct" in columns else "instruction", "output")
            return [tuple((row.get(name) or "").strip() for name in names) for row in reader]  # type: ignore[misc]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{videos} is no CSV in UTF-8: {error}") from None


def _keys(videos: list[Path]) -> list[str]:
    keys: list[str] = []
    taken: set[str] = set()
    for video in videos:
        stem = re.sub(r"[^A-Za-z0-9_-]", "_", video.stem) or "video"
        key = next(name for name in chain([stem], (f"{stem}-{n}" for n in count(2))) if name not in taken)
        keys.append(key)
        taken.add(key)
    return keys
