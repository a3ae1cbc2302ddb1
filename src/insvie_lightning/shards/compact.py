"""One file of rows beside the many that shards bring: reading a million of them takes a second instead of twenty."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

import pyarrow.parquet as pq

from insvie_lightning.shards.manifest import COMPACT, PARTS, fingerprint, finished_shards, open_manifest
from insvie_lightning.shards.mapped import join_batches

MANY_PARTS = 64
"""Reading so many parts one by one takes a few tenths of a second."""


def compact(folder: Path | str) -> Path:
    """Merge the parts of a manifest into one `manifest.parquet`; the parts stay and remain the truth.

    The file is used as long as the parts are those that it was made of. One that is up to date stays as it is.

    Raises:
        InputError: As `open_manifest`.
    """
    folder = Path(folder)
    path = folder / COMPACT
    parts = fingerprint(finished_shards(folder))
    manifest = open_manifest(folder)
    if manifest.files == (path,):
        return path
    rows = manifest.stream(accepted_only=False)
    # Jobs on several machines may finish at once, and process numbers of containers are often the same.
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with pq.ParquetWriter(temporary, rows.schema.with_metadata({PARTS: parts}), compression="zstd") as writer:
            for batch in join_batches(rows):
                writer.write_batch(batch)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def compact_many(folder: Path | str) -> None:
    """Compact a finished data set where it has so many parts that one by one they would be slow to read.

    Raises:
        InputError: As `open_manifest`.
    """
    if len(finished_shards(Path(folder))) >= MANY_PARTS:
        compact(folder)
