"""What a data set is composed of, as a row an origin: the columns of InsViE's Table 2 (paper 3.3)."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from insvie_lightning.batch import ORIGINS
from insvie_lightning.errors import InputError
from insvie_lightning.shards.manifest import open_manifest

if TYPE_CHECKING:
    from rich.table import Table

_COLUMNS = ("origin", "height", "width", "lineage", "judge", "epe_px")
_SOURCE_SIZE = r'"source_size": \[(?P<height>\d+), (?P<width>\d+)\]'
SUFFIXES = (".csv", ".json")


@dataclass(frozen=True, slots=True)
class Part:
    """The samples of one origin, or all of them.

    Attributes:
        origin: `real`, `pair`, `static` or `all`.
        samples: How many.
        source_size: Height x width in px of what the samples were made of, as `source_size` of a step's lineage has it:
            the commonest, with its share where there are others; empty where it is not known.
        output_size: Height x width in px of the stored clips, likewise.
        judge: Mean score of those that have one, 1 to 5; None where there is none.
        epe_px: Mean end-point error in px, likewise.
    """

    origin: str
    samples: int
    source_size: str
    output_size: str
    judge: float | None
    epe_px: float | None


def read_composition(folder: Path | str) -> tuple[Part, ...]:
    """Compose the accepted samples of a data set.

    Raises:
        InputError: As `open_manifest`.
    """
    manifest = open_manifest(folder)
    return compose(manifest.query(columns=[name for name in _COLUMNS if name in manifest.schema.names]))


def compose(rows: pa.Table) -> tuple[Part, ...]:
    """Return a part for each origin, then all samples together.

    Args:
        rows: Rows of a manifest; `judge` and `epe_px` may be absent.
    """
    by_origin = {origin: rows.filter(pc.equal(rows["origin"], origin)) for origin in ORIGINS}
    return tuple(_part(origin, found) for origin, found in (*by_origin.items(), ("all", rows)))


def write_composition(composed: Mapping[str, Sequence[Part]], path: Path) -> None:
    """Write the compositions of some data sets, by name, as CSV or JSON after the file's ending.

    Raises:
        InputError: The ending is neither.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path} ends with {path.suffix!r}; a composition is written as {' or '.join(SUFFIXES)}")
    rows = [{"set": name, **asdict(part)} for name, parts in composed.items() for part in parts]
    if path.suffix == ".json":
        text = json.dumps(rows, indent=1) + "\n"
    else:
        file = io.StringIO()
        writer = csv.DictWriter(file, ["set", *(field.name for field in fields(Part))], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        text = file.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def as_table(composed: Mapping[str, Sequence[Part]]) -> Table:
    """Return the compositions of some data sets, by name, as a table for the terminal."""
    from rich.table import Table

    table = Table(
        "set", "origin", "samples", "source px", "output px", "mean judge", "mean EPE px", title="composition"
    )
    for name, parts in composed.items():
        for part in parts:
            means = ("" if mean is None else f"{mean:.2f}" for mean in (part.judge, part.epe_px))
            table.add_row(name, part.origin, str(part.samples), part.source_size, part.output_size, *means)
        table.add_section()
    return table


def _part(origin: str, rows: pa.Table) -> Part:
    sizes = pc.extract_regex(rows["lineage"], _SOURCE_SIZE)
    made_of = pa.table({name: pc.struct_field(sizes, name) for name in ("height", "width")})
    means = (pc.mean(rows[name]).as_py() if name in rows.column_names else None for name in ("judge", "epe_px"))
    return Part(origin, len(rows), _commonest(made_of), _commonest(rows), *means)


def _commonest(rows: pa.Table) -> str:
    known = rows.filter(pc.and_(pc.is_valid(rows["height"]), pc.is_valid(rows["width"])))
    if not len(known):
        return ""
    counts = (
        known.group_by(["height", "width"])
        .aggregate([([], "count_all")])
        .sort_by([("count_all", "descending"), ("height", "ascending"), ("width", "ascending")])
    )
    first = counts.slice(0, 1).to_pylist()[0]
    share = "" if len(counts) == 1 else f" ({first['count_all'] / len(known):.0%})"
    return f"{first['height']} x {first['width']}{share}"
