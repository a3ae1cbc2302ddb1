import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest

from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.mapped import map_rows


def on_disk(table: pa.Table) -> bool:
    """Tell whether every buffer of a table lies in a file of `map_rows`."""
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if "insvie-rows-" in line]
    spans = [tuple(int(end, 16) for end in line[0].split("-")) for line in lines]
    buffers = [b for column in table.columns for chunk in column.chunks for b in chunk.buffers() if b and b.size]
    assert buffers
    return all(any(first <= buffer.address < last for first, last in spans) for buffer in buffers)


def test_rows_lie_on_disk_and_come_back() -> None:
    table = pa.table({"key": ["a", "bc", None], "members": [[{"size": 1}], [], None]})
    mapped = map_rows(pa.Table.to_reader(table, max_chunksize=2))
    assert mapped.equals(table)
    assert on_disk(mapped) and not on_disk(table)


def test_no_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    table = map_rows(pa.table({"key": ["a"] * 100}).to_reader())
    assert os.listdir(tmp_path) == []
    assert table["key"].to_pylist() == ["a"] * 100

    def fail() -> pa.RecordBatch:
        raise OSError("disk full")
        yield

    with pytest.raises(OSError, match="disk full"):
        map_rows(pa.RecordBatchReader.from_batches(table.schema, fail()))
    assert os.listdir(tmp_path) == []


def test_no_rows() -> None:
    assert map_rows(pa.table({"key": pa.array([], pa.string())}).to_reader()).num_rows == 0


def test_queries_lie_on_disk(dataset: Path) -> None:
    table = open_manifest(dataset).query()
    assert on_disk(table)
    assert on_disk(table.slice(1, 2))
