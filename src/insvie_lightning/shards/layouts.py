"""Layouts in which triplets arrive: the released CSVs, or two folders of videos with a file of instructions."""

from __future__ import annotations

import csv
import json
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from insvie_lightning.batch import Origin
from insvie_lightning.errors import InputError

HEADERS = (
    ("video", "instruct"),
    ("video", "source_caption", "instruction"),
    ("source_video", "source_caption", "instruction", "edited_caption", "edited_folder"),
)
"""The released column layouts; names may differ in case and wording, as long as they say video and instruct(ion)."""
INSTRUCTIONS = "instructions.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a layout, before anything of it is opened.

    Attributes:
        key: Made of the video's name; unique.
        line: Line in the CSV, or number in the folder, counted from 1.
        source: Path of the source video.
        edited: Path of the edited video.
        instruction: The sentence.
        source_caption: Empty if unknown.
        edited_caption: Empty if unknown.
        problem: Why the row cannot be used whatever its videos hold; empty if it can.
    """

    key: str
    line: int
    source: Path
    edited: Path
    instruction: str
    source_caption: str = ""
    edited_caption: str = ""
    problem: str = ""


def read_layout(src: Path, source_dir: str = "source", edited_dir: str = "edited") -> list[Entry]:
    """Return every row of a data set in one of the known layouts.

    Args:
        src: A CSV with one of `HEADERS`; or a folder that holds one CSV; or a folder with `instructions.json`, which
            maps names of videos (with or without suffix) to sentences.
        source_dir: Folder of source videos, beside the CSV.
        edited_dir: Folder of edited videos, beside the CSV; rows of five columns name it themselves.

    Raises:
        InputError: `src` is none of these, its header is not recognised, or it has no rows.
    """
    if src.is_dir():
        tables = sorted(src.glob("*.csv"))
        if not tables and (src / INSTRUCTIONS).is_file():
            return _unique(_read_instructions(src / INSTRUCTIONS, src / source_dir, src / edited_dir))
        if len(tables) != 1:
            raise InputError(f"{src} holds {len(tables)} CSV files; name the one to read, or add {INSTRUCTIONS}")
        src = tables[0]
    return _unique(_read_csv(src, src.parent / source_dir, src.parent / edited_dir))


def guess_origin(name: str) -> Origin:
    """Return the origin that the prefix of a released video's name tells."""
    if name.startswith("pexel-static-"):
        return "static"
    return "pair" if name.startswith(("magicbrush", "instructp2p")) else "real"


class Videos:
    """Encoded videos by path: files, or members of the zips that lie in the folder where the file would be."""

    def __init__(self) -> None:
        self._indices: dict[Path, dict[str, tuple[zipfile.ZipFile, str]]] = {}

    def read(self, path: Path, name: str) -> bytes:
        """Return the bytes of a video, called `name` in errors.

        Raises:
            InputError: Neither the file nor a zip member of that name exists, or it cannot be read.
        """
        try:
            if path.is_file():
                return path.read_bytes()
            archive, member = self._index(path.parent)[path.name]
            return archive.read(member)
        except KeyError:
            raise InputError(f"{name}: no such file") from None
        except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{name}: cannot be read ({error})") from None

    def _index(self, folder: Path) -> dict[str, tuple[zipfile.ZipFile, str]]:
        if folder not in self._indices:
            archives = [zipfile.ZipFile(path) for path in sorted(folder.glob("*.zip"))]
            self._indices[folder] = {Path(name).name: (zip, name) for zip in archives for name in zip.namelist()}
        return self._indices[folder]


def _read_csv(path: Path, source_dir: Path, edited_dir: Path) -> list[Entry]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [(number, row) for number, row in enumerate(csv.reader(file), start=1) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no readable CSV: {error}") from None
    if not rows:
        raise InputError(f"{path} is empty; legal headers: {_legal_headers()}")
    header = rows[0][1]
    _check_header(path, header)
    if len(rows) == 1:
        raise InputError(f"{path} has a header but no rows")
    return [_entry(number, row, len(header), source_dir, edited_dir, path.parent) for number, row in rows[1:]]


def _check_header(path: Path, header: Sequence[str]) -> None:
    names = [cell.strip().lower() for cell in header]
    layouts = [layout for layout in HEADERS if len(layout) == len(names)]
    if layouts:
        instruction = next(index for index, name in enumerate(layouts[0]) if name.startswith("instruct"))
        video = re.fullmatch(r"(source|original|input)?[ _]?(video|file|clip)?[ _]?(name|path|file)?", names[0])
        if names[0] and video and re.fullmatch(r"(edit[ _]?)?(instruct(ion)?|prompt)s?", names[instruction]):
            return
    raise InputError(f"{path}: the first row {header} is no known header; legal: {_legal_headers()}")


def _legal_headers() -> str:
    return " or ".join(f"`{','.join(header)}`" for header in HEADERS)


def _entry(line: int, row: list[str], columns: int, source_dir: Path, edited_dir: Path, base: Path) -> Entry:
    cells = [cell.strip() for cell in row]
    problem = "" if len(cells) == columns else f"the row has {len(cells)} columns, its header {columns}"
    cells += [""] * (5 - len(cells))
    name, instruction = cells[0], cells[1] if columns == 2 else cells[2]
    caption = cells[1] if columns > 2 else ""
    folder = base / cells[4] if columns == 5 and cells[4] else edited_dir
    if not problem and not (name and instruction):
        problem = "the row has no video" if not name else "the row has no instruction"
    key = re.sub(r"[^A-Za-z0-9_-]+", "_", str(Path(name).with_suffix(""))) if name else f"line_{line}"
    return Entry(key, line, source_dir / name, folder / name, instruction, caption, cells[3], problem)


def _read_instructions(path: Path, source_dir: Path, edited_dir: Path) -> list[Entry]:
    try:
        instructions = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no readable JSON: {error}") from None
    if not isinstance(instructions, dict) or not all(isinstance(text, str) for text in instructions.values()):
        raise InputError(f'{path} must map names of videos to sentences, such as {{"cat.mp4": "make it a dog"}}')
    names = sorted(video.name for video in source_dir.glob("*") if video.is_file())
    if not names:
        raise InputError(f"{source_dir} holds no videos")
    entries = []
    for number, name in enumerate(names, start=1):
        instruction = instructions.get(name) or instructions.get(Path(name).stem, "")
        entries.append(_entry(number, [name, instruction], 2, source_dir, edited_dir, path.parent))
    return entries


def _unique(entries: list[Entry]) -> list[Entry]:
    """Number repeated keys, and mark rows that say again what an earlier one said."""
    keys: set[str] = set()
    lines: dict[tuple[Path, Path, str], int] = {}
    unique = []
    for entry in entries:
        key, count = entry.key, 1
        while key in keys:
            count += 1
            key = f"{entry.key}-{count}"
        keys.add(key)
        first = lines.setdefault((entry.source, entry.edited, entry.instruction), entry.line)
        problem = entry.problem or ("" if first == entry.line else f"the row repeats line {first}")
        unique.append(replace(entry, key=key, problem=problem))
    return unique
