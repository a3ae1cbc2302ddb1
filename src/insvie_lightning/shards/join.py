"""Make one data set of several, such as the routes of a build."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from insvie_lightning.errors import InputError
from insvie_lightning.shards.compact import compact_many
from insvie_lightning.shards.job import check_finished
from insvie_lightning.shards.manifest import keys_done, open_manifest
from insvie_lightning.shards.progress import track
from insvie_lightning.shards.read import read_members
from insvie_lightning.shards.record import to_record
from insvie_lightning.shards.write import ShardWriter


def join(sources: Sequence[Path | str], dst: Path | str, shard_size: int = 1000, progress: bool = False) -> int:
    """Copy every sample of some data sets into one, in their order; records and members stay as they are.

    Rejected samples come along, with their reasons. A rerun continues after the last finished shard. A sample that
    cannot be read is rejected with its reason.

    Args:
        sources: The data sets.
        dst: The folder of the new one.
        shard_size: Samples per new shard.
        progress: Show a bar on stderr.

    Returns:
        How many samples are accepted.

    Raises:
        InputError: A source is no data set or is still being built, two have the same key, or `dst` is one of them or
            holds other samples.
    """
    dst, folders = Path(dst), [Path(source) for source in sources]
    if dst.resolve() in [folder.resolve() for folder in folders]:
        raise InputError(f"{dst} is one of the data sets to join; the new one needs a folder of its own")
    for folder in folders:
        check_finished(folder)
    rows = [open_manifest(folder).query(accepted_only=False) for folder in folders]
    keys = pa.chunked_array([chunk for table in rows for chunk in table["key"].chunks], pa.string())
    if pc.count_distinct(keys).as_py() < len(keys):
        counts = keys.value_counts()
        twice = counts.field("values")[pc.index(pc.greater(counts.field("counts"), 1), True).as_py()]
        raise InputError(f"the key {twice.as_py()!r} is in two of the data sets; keys are unique in one")
    dst.mkdir(parents=True, exist_ok=True)
    done = keys_done(dst, keys.to_pylist())
    places = [(number, index) for number, table in enumerate(rows) for index in range(len(table))]
    with ShardWriter(dst, shard_size=shard_size) as writer:
        for number, index in track(places, "samples", progress):
            row = rows[number].slice(index, 1).to_pylist()[0]
            if row["key"] in done:
                continue
            try:
                reason, members = row["reason"], read_members(folders[number], row)
            except InputError as error:
                row, reason, members = {**row, "accepted": False}, str(error), {}
            if row["accepted"]:
                writer.write_members(row, members)
            else:
                record = to_record(row)
                writer.reject(record.pop("key"), reason, **record)
    compact_many(dst)
    return len(open_manifest(dst).query(columns=["key"]))
