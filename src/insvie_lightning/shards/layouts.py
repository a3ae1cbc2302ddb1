"""Layouts in which triplets arrive: the released CSVs, or two folders of videos with a file of instructions."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from insvie_lightning.batch import Origin
from insvie_lightning.errors import InputError, shortened
from insvie_lightning.files import open_text, read_json

HEADERS = (
    ("video", "instruct"),
    ("video", "source_caption", "instruction"),
    ("source_video", "source_caption", "instruction", "edited_caption", "edited_folder"),
)
"""The released column layouts; names may differ in case and wording, as long as they say video and instruct(ion)."""
INSTRUCTIONS = "instructions.json"


class Entry(NamedTuple):
    """One row of a layout, before anything of it is opened.

    Attributes:
        line: Line in the CSV, or number in the folder, counted from 1.
        video: Name of the source and of the edited video, each in its folder.
        source_folder: Where the source video is: a folder, a zip or a pattern of zips.
        edited_folder: Where the edited video is.
        instruction: The sentence.
        source_caption: Empty if unknown.
        edited_caption: Empty if unknown.
        problem: Why the row cannot be used whatever its videos hold; empty if it can.
    """

    line: int
    video: str
    source_folder: Path
    edited_folder: Path
    instruction: str
    source_caption: str = ""
    edited_caption: str = ""
    problem: str = ""

    @property
    def key(self) -> str:
        """Made of the video's name; rows with the same video share it."""
        return re.sub(r"[^A-Za-z0-9_-]+", "_", os.path.splitext(self.video)[0]) if self.video else f"line_{self.line}"


def read_layout(src: Path, source_dir: str = "source", edited_dir: str = "edited") -> Iterator[Entry]:
    """Return every row of a data set in one of the known layouts, read as they are asked for.

    Args:
        src: A CSV with one of `HEADERS`; or a folder that holds one CSV; or a folder with `instructions.json`, which
            maps names of videos (with or without suffix) to sentences.
        source_dir: Folder of source videos, zip or pattern of zips (`source*.zip`), beside the CSV.
        edited_dir: The same of the edited videos; rows of five columns name it themselves.

    Raises:
        InputError: `src` is none of these, its header is not recognised, or it has no rows; and, when a row is asked
            for, it is no CSV there.
    """
    table = find_table(src)
    read = _read_instructions if src.is_dir() and table.name == INSTRUCTIONS else _read_csv
    return read(table, table.parent / source_dir, table.parent / edited_dir)


def find_table(src: Path) -> Path:
    """Return the file that lists the rows: `src` itself, or the only one in that folder.

    Raises:
        InputError: The folder holds none, or several CSVs.
    """
    if not src.is_dir():
        return src
    tables = sorted(src.glob("*.csv"))
    if not tables and (src / INSTRUCTIONS).is_file():
        return src / INSTRUCTIONS
    if len(tables) != 1:
        raise InputError(f"{src} holds {len(tables)} CSV files; name the one to read, or add {INSTRUCTIONS}")
    return tables[0]


def guess_origin(name: str) -> Origin:
    """Return the origin that the prefix of a released video's name tells."""
    if name.startswith("pexel-static-"):
        return "static"
    return "pair" if name.startswith(("magicbrush", "instructp2p")) else "real"


def _read_csv(path: Path, source_dir: Path, edited_dir: Path) -> Iterator[Entry]:
    rows = _csv_rows(path)
    if (first := next(rows, None)) is None:
        raise InputError(f"{path} is empty; legal headers: {_legal_headers()}")
    header = first[1]
    _check_header(path, header)
    if (second := next(rows, None)) is None:
        raise InputError(f"{path} has a header but no rows")
    folders = {"": edited_dir}
    return (_entry(*row, len(header), source_dir, folders, path.parent) for row in chain([second], rows))


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (number, cells) of each row that is not empty."""
    try:
        with open_text(path) as file:
            yield from ((number, row) for number, row in enumerate(csv.reader(file), start=1) if row)
    except csv.Error as error:
        raise InputError(f"{path} is no readable CSV: {error}") from None


def _check_header(path: Path, header: Sequence[str]) -> None:
    names = [cell.strip().lower() for cell in header]
    layouts = [layout for layout in HEADERS if len(layout) == len(names)]
    if layouts:
        instruction = next(index for index, name in enumerate(layouts[0]) if name.startswith("instruct"))
        video = re.fullmatch(r"(source|original|input)?[ _]?(video|file|clip)?[ _]?(name|path|file)?", names[0])
        if names[0] and video and re.fullmatch(r"(edit[ _]?)?(instruct(ion)?|prompt)s?", names[instruction]):
            return
    raise InputError(f"{path}: the first row {shortened(header)} is no known header; legal: {_legal_headers()}")


def _legal_headers() -> str:
    return " or ".join(f"`{','.join(header)}`" for header in HEADERS)


def _entry(
    line: int, row: list[str], columns: int, source_dir: Path, edited_dirs: dict[str, Path], base: Path
) -> Entry:
    cells = [cell.strip() for cell in row]
    problem = "" if len(cells) == columns else f"the row has {len(cells)} columns, its header {columns}"
    cells += [""] * (5 - len(cells))
    name, instruction = cells[0], cells[1] if columns == 2 else cells[2]
    caption, folder = (cells[1] if columns > 2 else ""), (cells[4] if columns == 5 else "")
    if not problem and not (name and instruction):
        problem = "the row has no video" if not name else "the row has no instruction"
    if not problem and (outside := next(filter(leads_outside, (name, folder)), None)):
        problem = f"the row names {outside!r}, which is not below the folder of its CSV"
    if folder not in edited_dirs:
        edited_dirs[folder] = base / folder
    return Entry(line, name, source_dir, edited_dirs[folder], instruction, caption, cells[3], problem)


def leads_outside(name: str) -> bool:
    """Whether a name of a file leaves the folder that it is looked up in."""
    return name.startswith(("/", "\\")) or (".." in name and ".." in re.split(r"[/\\]", name))


def _read_instructions(path: Path, source_dir: Path, edited_dir: Path) -> Iterator[Entry]:
    instructions = read_json(path)
    if not all(isinstance(text, str) for text in instructions.values()):
        raise InputError(f'{path} must map names of videos to sentences, such as {{"cat.mp4": "make it a dog"}}')
    names = sorted(video.name for video in source_dir.glob("*") if video.is_file())
    if not names:
        raise InputError(f"{source_dir} holds no videos")
    sentences = (instructions.get(name) or instructions.get(Path(name).stem, "") for name in names)
    rows = enumerate(zip(names, sentences, strict=True), start=1)
    return (_entry(number, list(row), 2, source_dir, {"": edited_dir}, path.parent) for number, row in rows)
