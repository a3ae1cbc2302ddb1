"""`insvie explain`: everything that made a sample, step by step."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from insvie_lightning.commands.parser import Parser


@dataclass(frozen=True, slots=True)
class Stage:
    """A sample as one step left it.

    Attributes:
        folder: Where.
        row: Its manifest row.
        job: What built the folder (`job.json`); empty if no step of this program did.
    """

    folder: Path
    row: Mapping[str, Any]
    job: Mapping[str, Any]


def main(argv: Sequence[str]) -> int:
    """Print what made a sample; return 0.

    Raises:
        InputError: The folder is no data set, or has no such key.
    """
    parser = Parser(prog="insvie explain", description="Print everything that made a sample.")
    parser.add_argument("key", metavar="KEY", help="of the sample, accepted or rejected")
    parser.add_argument("folder", type=Path, metavar="DIR", help="the data set")
    parser.add_argument("--json", action="store_true", help="print the manifest rows instead, one a line, latest first")
    arguments = parser.parse_args(argv)
    stages = list(trace(arguments.key, arguments.folder))
    if arguments.json:
        for stage in stages:
            print(json.dumps({"folder": str(stage.folder), "job": stage.job, "row": stage.row}, ensure_ascii=False))
    else:
        print("\n".join(_lines(stages)))
    return 0


def trace(key: str, folder: Path) -> Iterator[Stage]:
    """Yield a sample as it is in a folder, then what it was made of in the folders of earlier steps, if they are there.

    Raises:
        InputError: The folder is no data set, or has no such key.
    """
    from insvie_lightning.shards.job import read_job

    job = read_job(folder)
    row = _find(key, folder)
    yield Stage(folder, row, job)
    source = job.get("input", {}).get("at")
    before = (folder / source).resolve() if source else None
    if before is None or not before.is_dir() or not any(before.glob("shard-*.parquet")):
        return
    # A step may make several samples of one, whose keys are its key and a word.
    parent = next((name for name in (row["key"], row["key"].rpartition("-")[0]) if name and _has(name, before)), None)
    if parent is not None:
        yield from trace(parent, before)


def _find(key: str, folder: Path) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    from insvie_lightning.errors import InputError, nearest
    from insvie_lightning.shards.manifest import find_parts, read_part

    keys: list[pa.ChunkedArray] = []
    for part in find_parts(folder):
        column = read_part(part, ["key"])["key"]
        if (number := pc.index(column, key).as_py()) >= 0:
            found: dict[str, Any] = read_part(part).slice(number, 1).to_pylist()[0]
            return found
        keys.append(column)
    close = nearest(key, (name for column in keys[:100] for name in column.to_pylist()))
    raise InputError(f"{folder} has no sample {key!r}{close}")


def _has(key: str, folder: Path) -> bool:
    from insvie_lightning.errors import InputError

    try:
        _find(key, folder)
    except InputError:
        return False
    return True


def _lines(stages: Sequence[Stage]) -> Iterator[str]:
    from insvie_lightning.shards.record import COLUMNS

    row = stages[0].row
    yield f"{row['key']}: " + ("accepted" if row["accepted"] else f"rejected: {row['reason']}")
    known = {name: row[name] for name in ("instruction", "origin", "edit_type", "dataset") if row[name]}
    if row["source_caption"] or row["edited_caption"]:
        known |= {"captions": f"{row['source_caption'] or '?'} -> {row['edited_caption'] or '?'}"}
    if row["frames"]:
        known["clip"] = "{frames} frames, {height} x {width}, {fps:g} fps".format(**row)
    known |= {name: f"{row[name]:g}" for name in row if name not in COLUMNS and row[name] is not None}
    yield from (f"  {name:<14} {value}" for name, value in known.items())
    lineage = json.loads(row["lineage"] or "{}")
    for number, (step, entry) in enumerate(lineage.items(), 1):
        yield f"{number}. {step}" if isinstance(entry, dict) else f"{number}. {step}: {entry}"
        if isinstance(entry, dict):
            yield from (f"  {name:<14} {value}" for name, value in _flat(entry))
        for stage in stages:
            if stage.job.get("step") == step:
                yield from _stored(stage)
    if not any(stage.job.get("step") in lineage for stage in stages):
        yield from _stored(stages[0])


def _stored(stage: Stage) -> Iterator[str]:
    yield f"  {'stored in':<14} {stage.folder / (stage.row['shard'] or '')} as {stage.row['key']}"
    for member in stage.row["members"]:
        yield f"  {'':<14} {member['name']}: {member['size']} bytes, sha256 {member['sha256'][:16] or 'not known'}"


def _flat(entry: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in entry.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
