"""Make a data set, or a list of keys, out of the samples that a clause keeps."""

from __future__ import annotations

import os
from pathlib import Path

from insvie_lightning.errors import InputError
from insvie_lightning.shards.manifest import keys_done, open_manifest
from insvie_lightning.shards.progress import track
from insvie_lightning.shards.read import read_members
from insvie_lightning.shards.record import to_record
from insvie_lightning.shards.write import ShardWriter

KEY_LIST = "keys.txt"


def select(
    src: Path | str,
    dst: Path | str,
    where: str,
    keys_only: bool = False,
    *,
    shard_size: int = 1000,
    progress: bool = False,
) -> int:
    """Copy the accepted samples that a clause keeps into new shards; records and members stay as they are.

    A rerun continues after the last finished shard. A sample that cannot be read is rejected with its reason.

    Args:
        src: The data set to select from.
        dst: The folder of the new one.
        where: A clause as in `Manifest.query`.
        keys_only: Write `keys.txt`, a key a line, instead of shards.
        shard_size: Samples per new shard.
        progress: Show a bar on stderr.

    Returns:
        How many samples the clause keeps.

    Raises:
        InputError: The clause is illegal or keeps nothing, or `dst` holds other samples already, or an index.
    """
    src, dst = Path(src), Path(dst)
    if src.resolve() == dst.resolve():
        raise InputError(f"{dst} is the data set to select from; the new one needs a folder of its own")
    manifest = open_manifest(src)
    rows = manifest.query(where)
    keys = rows["key"].to_pylist()
    if not keys:
        raise InputError(f"the clause {where!r} keeps none of the {len(manifest.table)} samples of {src}")
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
    return len(keys)
