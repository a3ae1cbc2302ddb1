"""Tables that lie on disk instead of in memory: however many rows there are, opening them costs the same memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator

import pyarrow as pa

ROWS_AT_ONCE = 16_384
"""Smaller batches are joined: finding a row takes the longer the more of them there are."""


def map_rows(batches: pa.RecordBatchReader) -> pa.Table:
    """Write rows to a nameless file in the folder for temporary files, and return them as a table mapped from there.

    Its pages are read when touched, dropped when memory is short, and shared with forked workers. The disk space is
    free again once nobody holds the table.
    """
    descriptor, path = tempfile.mkstemp(prefix="insvie-rows-", suffix=".arrow")
    os.close(descriptor)
    try:
        with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, batches.schema) as writer:
            for batch in join_batches(batches):
                writer.write_batch(batch)
        return pa.ipc.open_file(pa.memory_map(path)).read_all()
    finally:
        os.unlink(path)


def join_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Join batches in their order into ones of at least `ROWS_AT_ONCE` rows, but for the last."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(map(len, waiting)) >= ROWS_AT_ONCE:
            yield pa.concat_batches(waiting)
            waiting.clear()
    if waiting:
        yield pa.concat_batches(waiting)
