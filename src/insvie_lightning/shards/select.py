"""Make a data set, or a list of keys, out of the samples that a clause keeps."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from insvie_lightning.errors import InputError
from insvie_lightning.shards.compact import compact_many
from insvie_lightning.shards.manifest import keys_done, open_manifest
from insvie_lightning.shards.order import Ratio
from insvie_lightning.shards.progress import track
from insvie_lightning.shards.read import read_members
from insvie_lightning.shards.record import to_record
from insvie_lightning.shards.write import ShardWriter

KEY_LIST = "keys.txt"


@dataclass(frozen=True, slots=True)
class Selection:
    """A set of samples that has a name; the other fields are the arguments of `choose`."""

    name: str
    folder: Path
    where: str = "true"
    static_to_real: str | float | None = None
    seed: int = 0

    def rows(self) -> pa.Table:
        """The chosen rows.

        Raises:
            InputError: As `choose`.
        """
        return choose(self.folder, self.where, self.static_to_real, self.seed)


def select(
    src: Path | str,
    dst: Path | str,
    where: str,
    keys_only: bool = False,
    *,
    static_to_real: str | float | None = None,
    seed: int = 0,
    shard_size: int = 1000,
    progress: bool = False,
) -> int:
    """Copy the accepted samples that a clause keeps into new shards; records and members stay as they are.

    A rerun continues after the last finished shard. A sample that cannot be read is rejected with its reason.

    Args:
        src: The data set to select from.
        dst: The folder of the new one.
        where: As of `choose`.
        keys_only: Write `keys.txt`, a key a line, instead of shards.
        static_to_real: As of `choose`.
        seed: As of `choose`.
        shard_size: Samples per new shard.
        progress: Show a bar on stderr.

    Returns:
        How many samples are kept, and can be read where they are copied.

    Raises:
        InputError: As `choose`, or `dst` holds other samples already, or an index.
    """
    src, dst = Path(src), Path(dst)
    if src.resolve() == dst.resolve():
        raise InputError(f"{dst} is the data set to select from; the new one needs a folder of its own")
    rows = choose(src, where, static_to_real, seed)
    keys = rows["key"].to_pylist()
    dst.mkdir(parents=True, exist_ok=True)
    if keys_only:
        temporary = dst / f".{KEY_LIST}.tmp"
        temporary.write_text("".join(f"{key}\n" for key in keys))
        os.replace(temporary, dst / KEY_LIST)
        return len(keys)
    done = keys_done(dst, keys)
    rest = [index for index, key in enumerate(keys) if key not in done]
    with ShardWriter(dst, shard_size=shard_size) as writer:
        for index in track(rest, "samples", progress):
            row = rows.slice(index, 1).to_pylist()[0]
            try:
                members = read_members(src, row)
            except InputError as error:
                record = to_record(row)
                writer.reject(record.pop("key"), str(error), **record)
            else:
                writer.write_members(row, members)
    compact_many(dst)
    return len(open_manifest(dst).query(columns=["key"]))


def choose(
    folder: Path | str, where: str = "true", static_to_real: str | float | None = None, seed: int = 0
) -> pa.Table:
    """Return the rows of the accepted samples that a clause keeps, in storage order.

    Args:
        folder: The data set.
        where: A clause as in `Manifest.query`.
        static_to_real: Static samples to real ones and pairs, such as '5:1': the most samples that hold it exactly, the
            rest left out by a hash of its keys. None keeps all.
        seed: Of that hash.

    Raises:
        InputError: The clause is illegal or keeps nothing, or too little for the ratio.
    """
    ratio = None if static_to_real is None else Ratio.parse(static_to_real)
    manifest = open_manifest(folder)
    rows = manifest.query(where)
    if not len(rows):
        every = len(manifest.query(columns=["key"], accepted_only=False))
        raise InputError(f"the clause {where!r} keeps none of the {every} samples of {folder}")
    if ratio is None:
        return rows
    static = pc.equal(rows["origin"], "static").to_numpy()
    sides = {"static": (ratio.static, np.flatnonzero(static)), "real": (ratio.real, np.flatnonzero(~static))}
    rounds = min(len(found) // part for part, found in sides.values() if part)
    if not rounds:
        counts = " and ".join(f"{len(found)} {side}" for side, (_, found) in sides.items())
        raise InputError(f"static:real = {ratio} cannot be held: the clause {where!r} keeps {counts} of {folder}")
    kept = [_some(rows["key"], found, rounds * part, seed) for part, found in sides.values()]
    return rows.take(np.sort(np.concatenate(kept)))


def _some(keys: pa.ChunkedArray, found: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Leave so many of some rows, the same ones whatever else is in the data set as far as they go."""
    if count == len(found):
        return found
    hashes = [hashlib.sha256(f"{seed}/{key}".encode()).digest() for key in keys.take(pa.array(found)).to_pylist()]
    return found[sorted(range(len(found)), key=hashes.__getitem__)[:count]]
