"""Use a published data set where it lies: a manifest of the members of its zips, and nothing is copied."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from insvie_lightning.batch import Origin
from insvie_lightning.errors import InputError
from insvie_lightning.shards.convert import Conversion, check_bad_rate, count_rows
from insvie_lightning.shards.layouts import find_table
from insvie_lightning.shards.locate import locate
from insvie_lightning.shards.manifest import finished_shards, indexed_table

PART = "shard-000000.parquet"
_ROWS_AT_ONCE = 16_384


def index(
    src: Path | str,
    dst: Path | str | None = None,
    *,
    source_dir: str = "source",
    edited_dir: str = "edited",
    origin: Origin | None = None,
    dataset: str | None = None,
    max_bad_rate: float = 0.5,
) -> Conversion:
    """Write the manifest of a CSV and its zips, which makes `dst` a data set for training, statistics and selection.

    Only names are looked at, so a video that cannot be decoded is found when it is read. The shape of clips is not
    known. Rows whose videos are not there become rejected samples. A rerun makes the manifest anew; that of
    another table needs a folder of its own.

    Args:
        src: As in `read_layout`.
        dst: Folder of the manifest; None puts it beside the CSV. Videos below it are named relative to it, so that
            they can move together.
        source_dir: Folder of source videos, zip or pattern of zips (`source*.zip`), beside the CSV.
        edited_dir: The same of the edited videos; rows of five columns name it themselves.
        origin: Of all samples; None guesses it from the prefix of each name.
        dataset: Name of the data set; that of the folder by default.
        max_bad_rate: Share of bad rows (0 to 1) above which nothing is written.

    Raises:
        InputError: As `locate`; too many rows are bad; or `dst` holds shards that are no such manifest, or the
            manifest of another table.
    """
    src = Path(src)
    dst = Path(dst) if dst else src if src.is_dir() else src.parent
    if others := [path.name for path in [*dst.glob("shard-*.tar"), *finished_shards(dst)] if path.name != PART]:
        raise InputError(f"{dst} holds shards already, such as {min(others)}; choose another folder for the manifest")
    table = find_table(src).name
    if (dst / PART).exists() and (other := indexed_table(dst / PART)) != table:
        raise InputError(f"{dst} holds the index of {other} already; give the one of {table} a folder of its own, DST")
    names = {"source_dir": source_dir, "edited_dir": edited_dir}
    # By shard, because the order of training holds numbers for each run of rows of a shard, not for each row.
    rows = locate(src, dst, builder="index", origin=origin, dataset=dataset, by_shard=True, **names)
    result = count_rows(rows)
    check_bad_rate(Counter(result.rejected), len(rows), max_bad_rate)
    dst.mkdir(parents=True, exist_ok=True)
    temporary = dst / f".{PART}.tmp"
    with pq.ParquetWriter(temporary, rows.schema, compression="zstd") as writer:
        for batch in rows.to_batches(max_chunksize=_ROWS_AT_ONCE):
            writer.write_batch(batch)
    os.replace(temporary, dst / PART)
    return result
