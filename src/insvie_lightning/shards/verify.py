"""Compare a data set with its manifest, byte for byte."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from insvie_lightning.errors import InputError, first_line
from insvie_lightning.files import open_regular
from insvie_lightning.shards.manifest import find_parts, read_part
from insvie_lightning.shards.progress import track
from insvie_lightning.shards.read import read_member, shard_of
from insvie_lightning.shards.write import list_tar


class Problem(NamedTuple):
    """One thing that is wrong: in which shard, with which sample (empty for the whole shard), and what."""

    shard: str
    key: str
    sentence: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` looked at and what it found: number of shards, of accepted samples, and all problems."""

    shards: int
    samples: int
    problems: tuple[Problem, ...]


def verify(folder: Path | str, *, progress: bool = False) -> VerifyReport:
    """Hash every member and tar, compare keys both ways, look for duplicates and for tars nobody finished.

    Of videos that are used in place the checksums of their zips are compared.

    Args:
        folder: The data set; `manifest.parquet` is not looked at, its parts are.
        progress: Show a bar on stderr.

    Raises:
        InputError: The folder is absent or holds no finished shard.
    """
    folder = Path(folder)
    parts = find_parts(folder)
    problems: list[Problem] = []
    samples = 0
    shard_of: dict[str, str] = {}
    for part in track(parts, "shards", progress):
        shard = part.with_suffix(".tar").name
        try:
            table = read_part(part)
        except InputError as error:
            problems.append(Problem(shard, "", str(error)))
            continue
        samples += pc.sum(table["accepted"]).as_py() or 0
        if len(table) and not table["tar_sha256"][0].as_py():
            problems += _check_in_place(folder, table)
            rows = table.select(["key"]).to_pylist()
        else:
            rows = table.to_pylist()
            problems += _check_shard(folder / shard, rows)
        for row in rows:
            if row["key"] in shard_of:
                problems.append(Problem(shard, row["key"], f"the key is also in {shard_of[row['key']]}"))
            shard_of.setdefault(row["key"], shard)
    unfinished = {tar.name for tar in folder.glob("shard-*.tar")} - {part.with_suffix(".tar").name for part in parts}
    problems += [
        Problem(shard, "", "the tar was never finished: no manifest beside it") for shard in sorted(unfinished)
    ]
    return VerifyReport(len(parts), samples, tuple(problems))


def _check_in_place(folder: Path, table: pa.Table) -> Iterator[Problem]:
    """Unpack every member of a manifest without tars: zips know the checksums of theirs, plain files must be there."""
    for batch in table.to_batches(max_chunksize=256):
        for row in batch.to_pylist():
            for member in row["members"] or []:
                shard = shard_of(row, member["name"])
                try:
                    read_member(folder / shard, member["offset"], member["size"])
                except InputError as error:
                    yield Problem(shard, row["key"], f"{member['name']}: {error}")


def _check_shard(tar: Path, rows: list[dict[str, Any]]) -> Iterator[Problem]:
    if not tar.is_file():
        yield Problem(tar.name, "", "the tar is missing")
        return
    try:
        yield from _check_members(tar, rows)
    except (InputError, OSError) as error:  # no permission, or a disk that fails
        yield Problem(tar.name, "", f"the tar cannot be read: {first_line(error)}")


def _check_members(tar: Path, rows: list[dict[str, Any]]) -> Iterator[Problem]:
    sound = True
    with open_regular(tar, "a tar") as file:
        for row in rows:
            if row["shard"] != tar.name:
                sound = False
                yield Problem(tar.name, row["key"], f"the manifest says that the sample is in {row['shard']}")
            for member in row["members"] or []:
                file.seek(member["offset"])
                data = file.read(max(0, min(member["size"], tar.stat().st_size - member["offset"])))
                if hashlib.sha256(data).hexdigest() != member["sha256"]:
                    sound = False
                    cut = f"is cut after {len(data)} of {member['size']} bytes"
                    reason = cut if len(data) < member["size"] else "differs from its hash"
                    yield Problem(tar.name, row["key"], f"{member['name']} {reason}")
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    for problem in _compare_keys(tar, rows):
        sound = False
        yield problem
    # The hash of the tar only says something new when every member is sound: the damage is in a header.
    if sound and rows and sha256 != rows[0]["tar_sha256"]:
        yield Problem(tar.name, "", "the tar differs from its hash, though every member is sound")


def _compare_keys(tar: Path, rows: list[dict[str, Any]]) -> Iterator[Problem]:
    listed = {f"{row['key']}.{member['name']}" for row in rows for member in row["members"] or []}
    present = set(list_tar(tar))
    for name in sorted(listed - present):
        yield Problem(tar.name, name.partition(".")[0], f"{name} is in the manifest but not in the tar")
    for name in sorted(present - listed):
        yield Problem(tar.name, name.partition(".")[0], f"{name} is in the tar but not in the manifest")
