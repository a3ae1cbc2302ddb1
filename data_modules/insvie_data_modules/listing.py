"""The files that a data set is built from: a folder of them, one of them, or a CSV that names them."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from lightning.pytorch import LightningDataModule

from insvie_lightning.batch import Clip, Draft
from insvie_lightning.errors import InputError, nearest, shortened
from insvie_lightning.files import open_text
from insvie_lightning.shards.layouts import leads_outside

if TYPE_CHECKING:
    from insvie_lightning.builders.units import Inputs, UnitLoader

COLUMNS = ("name", "instruction", "source_caption", "problem")


def feed(data: LightningDataModule, inputs: Inputs, batch_size: int, num_workers: int) -> UnitLoader:
    """Feed the builder that is running.

    Raises:
        InputError: What is running is no builder; or as `Builder.feed`.
    """
    from insvie_lightning.builders.builder import Builder

    module = data.trainer.lightning_module if data.trainer else None
    if not isinstance(module, Builder):
        raise InputError(f"{type(data).__name__} feeds builders; {type(module).__name__} is none")
    return module.feed(inputs, batch_size, num_workers)


def list_files(where: Path, suffixes: Collection[str], column: str) -> pa.Table:
    """List files in a fixed order, with the columns `key` and `COLUMNS`; none of them is opened.

    Args:
        where: A folder, which is listed with all below it; a file; or a CSV with the named column, and perhaps
            `instruction` (or `instruct`) and `caption`.
        suffixes: Endings of the files, lower case.
        column: The column of a CSV that names the files, relative to its folder.

    Returns:
        A row a file; `name` is relative to the folder (`folder_of`), `problem` is why it cannot be used.

    Raises:
        InputError: There is nothing, or the CSV cannot be read or has no such column.
    """
    if where.is_dir():
        rows = [_found(name) for name in sorted(_below(where, suffixes))]
    elif not where.is_file():
        raise InputError(f"there is no file or folder {str(where)!r}; legal are a folder, a {column} or a CSV")
    elif where.suffix.lower() == ".csv":
        rows = list(_read_csv(where, column))
    else:
        rows = [_found(where.name)]
    if not rows:
        raise InputError(f"{where} holds no {column}; legal endings are {', '.join(sorted(suffixes))}")
    keys = make_keys(name for name, *_ in rows)
    columns = {
        name: pa.array(values, pa.string()) for name, values in zip(COLUMNS, zip(*rows, strict=True), strict=True)
    }
    return pa.table({"key": pa.array(keys, pa.string()), **columns})


def folder_of(where: Path) -> Path:
    """The folder that names of a listing are relative to."""
    return where if where.is_dir() else where.parent


def make_keys(names: Iterable[str]) -> list[str]:
    """Make legal keys out of names of files, each once: `a/b c.mp4` is `a_b_c`, and a second one `a_b_c_2`."""
    keys: list[str] = []
    taken: set[str] = set()
    repeats: dict[str, int] = {}
    for name in names:
        stem = re.sub(r"[^A-Za-z0-9-]+", "_", os.path.splitext(name)[0]).strip("_") or "file"
        numbered = (f"{stem}_{n}" for n in count(repeats.get(stem, 1) + 1))
        key = next(key for key in chain([stem], numbered) if key not in taken)
        repeats[stem] = repeats.get(stem, 0) + 1
        keys.append(key)
        taken.add(key)
    return keys


def unread(row: Mapping[str, Any], origin: Any, dataset: str, lineage: Mapping[str, Any]) -> Draft:
    """What is known of a listed file before it is read; its source has no frames."""
    nothing = Clip(np.empty((0, 3, 0, 0), np.uint8), 0.0)
    texts = {name: row[name] for name in ("instruction", "source_caption")}
    return Draft(row["key"], nothing, **texts, origin=origin, dataset=dataset, lineage=lineage)


def tell_size(draft: Draft, size: tuple[int, int]) -> Draft:
    """Write the height and width in px of what was read into the lineage, where `shards.composition` counts them."""
    (step, entry), *rest = draft.lineage.items()
    return replace(draft, lineage=dict([(step, {**entry, "source_size": list(size)}), *rest]))


def _found(name: str) -> tuple[str, str, str, str]:
    """The row of a file that was found; a name of bytes that are no text cannot be written down, so is only shown."""
    shown = os.fsencode(name).decode(errors="replace")
    return (name, "", "", "") if shown == name else (shown, "", "", f"{shown}: its name is no UTF-8; rename it")


def _below(folder: Path, suffixes: Collection[str]) -> Iterable[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes:
                yield Path(parent, name).relative_to(folder).as_posix()


def _read_csv(path: Path, column: str) -> Iterable[tuple[str, str, str, str]]:
    try:
        with open_text(path) as file:
            reader = csv.DictReader(file)
            reader.fieldnames = columns = [name.strip() for name in reader.fieldnames or []]
            if column not in columns:
                found = shortened(", ".join(columns) or "none", 300)
                raise InputError(f"{path} has the columns {found}; needed is {column!r}{nearest(column, columns)}")
            for row in reader:
                cells = {name: (text or "").strip() for name, text in row.items() if isinstance(text, str | None)}
                name, text = cells.get(column, ""), cells.get("instruction") or cells.get("instruct") or ""
                problem = f"line {reader.line_num} names no {column}" if not name else ""
                if leads_outside(name):
                    problem = f"the row names {name!r}, which is not below the folder of its CSV"
                yield name, text, cells.get("caption") or cells.get("source_caption") or "", problem
    except csv.Error as error:
        raise InputError(f"{path} is no readable CSV: {error}") from None
