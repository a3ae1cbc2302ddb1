"""Find where the videos of every row of a layout lie, for any number of rows in the same memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import duckdb
import pyarrow as pa

from insvie_lightning.batch import Origin
from insvie_lightning.errors import InputError
from insvie_lightning.shards.archives import LISTED, list_videos
from insvie_lightning.shards.layouts import Entry, find_table, guess_origin, read_layout
from insvie_lightning.shards.mapped import map_rows
from insvie_lightning.shards.record import COLUMNS

_MEMORY, _THREADS = "600MB", 2  # every thread needs memory of its own
_ROWS_AT_ONCE = 16_384
_ENTRY = pa.schema(
    {
        "line": pa.int64(),
        "key": pa.string(),
        "video": pa.string(),
        "name": pa.string(),
        "source_folder": pa.string(),
        "edited_folder": pa.string(),
        "origin": pa.string(),
        "instruction": pa.string(),
        "source_caption": pa.string(),
        "edited_caption": pa.string(),
        "problem": pa.string(),
    }
)

_NUMBERED = """
CREATE TABLE numbered AS
WITH repeats AS (
    SELECT *, min(line) OVER (PARTITION BY source_folder, edited_folder, video, instruction) AS first_line,
        row_number() OVER (PARTITION BY key ORDER BY line) AS nth
    FROM entries
), suffixed AS (
    SELECT * EXCLUDE (key), if(nth = 1, key, key || '-' || nth) AS key FROM repeats
)
SELECT * EXCLUDE (key, problem, first_line, nth),
    -- A second suffix where the first made a key that another row has by its name.
    if(row_number() OVER (PARTITION BY key ORDER BY nth, line) = 1, key, key || '-line' || line) AS key,
    if(problem = '' AND first_line < line, 'the row repeats line ' || first_line, problem) AS problem
FROM suffixed
"""

_FOUND = """
CREATE TABLE {side} AS
SELECT line, min_by({{'shard': shard, 'offset': "offset", 'size': size}}, shard) AS place,
    min_by(problem, shard) AS problem,
    min(crc) != max(crc) OR min(size) != max(size) AS differ,
    min(shard) || if(min(shard) = max(shard), '', ' and ' || max(shard)) AS shards
FROM (
    SELECT numbered.line, listed.* FROM numbered JOIN listed
    ON listed.folder = numbered.{side}_folder AND listed.name = numbered.name AND (
        listed.path = numbered.video
        OR (crc IS NOT NULL AND (ends_with(path, '/' || video) OR ends_with(video, '/' || path)))
    )
    -- A file goes before a member of a zip, and a member that is called exactly so before one in some folder.
    QUALIFY rank() OVER (PARTITION BY line ORDER BY crc IS NOT NULL, path != video) = 1
)
GROUP BY line
"""

_LOCATED = """
WITH places AS (
    SELECT numbered.* EXCLUDE (problem), source.place AS source_place, edited.place AS edited_place,
        CASE
            WHEN numbered.problem != '' THEN numbered.problem
            WHEN source.line IS NULL THEN 'source clip: no such file' || source_broken.sentence
            WHEN source.differ THEN 'source clip: different videos of that name lie in ' || source.shards
            WHEN source.problem != '' THEN 'source clip: ' || source.problem
            WHEN edited.line IS NULL THEN 'edited clip: no such file' || edited_broken.sentence
            WHEN edited.differ THEN 'edited clip: different videos of that name lie in ' || edited.shards
            WHEN edited.problem != '' THEN 'edited clip: ' || edited.problem
            ELSE ''
        END AS reason
    FROM numbered
    LEFT JOIN source ON source.line = numbered.line
    LEFT JOIN edited ON edited.line = numbered.line
    JOIN broken AS source_broken ON source_broken.folder = numbered.source_folder
    JOIN broken AS edited_broken ON edited_broken.folder = numbered.edited_folder
)
SELECT {columns} FROM places ORDER BY {order}
"""

_VALUES = {
    "dataset": "$dataset",
    "edit_type": "''",
    "lineage": """to_json({'builder': $builder, 'table': $table, 'line': line,
        'source': source_folder || '/' || video, 'edited': edited_folder || '/' || video})::VARCHAR""",
    "shard": "if(reason = '', edited_place.shard, '')",
    "source_shard": "if(reason = '', source_place.shard, '')",
    "accepted": "reason = ''",
    "members": """if(reason = '', [
        {'name': 'source.mp4', 'offset': source_place."offset", 'size': source_place.size, 'sha256': ''},
        {'name': 'edited.mp4', 'offset': edited_place."offset", 'size': edited_place.size, 'sha256': ''}], [])""",
    "tar_sha256": "''",
    "tar_bytes": "0::BIGINT",
}
_VALUES |= {name: "NULL" for name in ("frames", "height", "width", "fps")}


def locate(
    src: Path,
    root: Path,
    *,
    builder: str,
    source_dir: str = "source",
    edited_dir: str = "edited",
    origin: Origin | None = None,
    dataset: str | None = None,
    by_shard: bool = False,
) -> pa.Table:
    """Return the rows of a layout as those of a manifest whose samples lie where they are.

    Zips are not extracted: a member is known by its zip and the byte of its local header. A row with a problem is a
    rejected sample. The table lies on disk, and the work is done in less than a gigabyte
    however many rows there are.

    Args:
        src: As in `read_layout`.
        root: Shards below it are named relative to it, others in full.
        builder: Name of the job, for the lineage.
        source_dir: As in `read_layout`.
        edited_dir: As in `read_layout`.
        origin: Of all samples; None guesses it from the prefix of each name.
        dataset: Name of the data set; that of the folder by default.
        by_shard: Put the rows shard by shard, then origin by origin; False keeps the layout's order.

    Raises:
        InputError: As `read_layout`; or there are neither files nor zips where the videos should be.
    """
    src, root = Path(os.path.abspath(src)), Path(os.path.abspath(root))
    entries = _entries(read_layout(src, source_dir, edited_dir), origin)
    table = find_table(src)
    names = {"dataset": dataset or table.parent.name, "builder": builder, "table": table.name}
    columns = ", ".join(f'({_VALUES.get(name, name)})::{_sql(kind)} AS "{name}"' for name, kind in COLUMNS.items())
    with (
        tempfile.TemporaryDirectory(prefix="insvie-locate-") as spill,
        # Tables in a file give their memory back; those of a database in memory do not always.
        duckdb.connect(f"{spill}/tables.duckdb") as connection,
    ):
        for setting in (f"memory_limit = '{_MEMORY}'", f"threads = {_THREADS}", "preserve_insertion_order = false"):
            connection.execute(f"SET {setting}")
        connection.execute("SET temp_directory = $spill", {"spill": spill})
        _load(connection, "entries", _ENTRY, entries)
        connection.execute(_NUMBERED)
        connection.execute("DROP TABLE entries")
        _list(connection, root)
        for side in ("source", "edited"):
            connection.execute(_FOUND.format(side=side))
        connection.execute("DROP TABLE listed")
        order = "shard, origin, line" if by_shard else "line"
        connection.execute(_LOCATED.format(columns=columns, order=order), names)
        return map_rows(connection.to_arrow_reader(_ROWS_AT_ONCE)).cast(pa.schema(COLUMNS))


def _entries(rows: Iterator[Entry], origin: Origin | None) -> Iterator[pa.RecordBatch]:
    while batch := list(islice(rows, _ROWS_AT_ONCE)):
        columns = {name: [getattr(entry, name) for entry in batch] for name in _ENTRY.names if hasattr(Entry, name)}
        columns["name"] = [entry.video.rpartition("/")[2] for entry in batch]
        columns["origin"] = [origin or guess_origin(name) for name in columns["name"]]
        for side in ("source_folder", "edited_folder"):
            columns[side] = [str(folder) for folder in columns[side]]
        yield pa.RecordBatch.from_pydict(columns, schema=_ENTRY)


def _list(connection: duckdb.DuckDBPyConnection, root: Path) -> None:
    """Make the tables `listed`, of all videos in the folders that rows name, and `broken`, of their unreadable zips."""
    found = connection.execute("SELECT source_folder FROM numbered UNION SELECT edited_folder FROM numbered").fetchall()
    folders = sorted(folder for (folder,) in found)
    broken: dict[str, dict[str, str]] = {folder: {} for folder in folders}
    batches = (batch for folder in folders for batch in list_videos(Path(folder), root, broken[folder]))
    _load(connection, "listed", LISTED, batches)
    sentences = ["".join(f"; {reason}" for reason in broken[folder].values()) for folder in folders]
    notes = pa.record_batch({"folder": folders, "sentence": sentences})
    _load(connection, "broken", notes.schema, [notes])
    if not connection.sql("SELECT 1 FROM listed LIMIT 1").fetchone() and not any(broken.values()):
        base = Path(folders[0]).parent
        beside = ", ".join(sorted(path.name for path in base.iterdir())[:8])
        raise InputError(
            f"there are no videos or zips in {' or '.join(folders)}; {base} has {beside}: "
            "name the right ones by source_dir and edited_dir (a folder, a zip or a pattern such as 'source*.zip')"
        )


def _load(
    connection: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> None:
    connection.register("incoming", schema.empty_table())
    connection.execute(f"CREATE TABLE {name} AS SELECT * FROM incoming")
    # Batch by batch, because what a generator raises inside DuckDB comes out as an error of DuckDB.
    for batch in batches:
        connection.register("incoming", pa.Table.from_batches([batch]))
        connection.execute(f"INSERT INTO {name} SELECT * FROM incoming")
    connection.unregister("incoming")


def _sql(kind: pa.DataType) -> str:
    names = {pa.string(): "VARCHAR", pa.bool_(): "BOOLEAN", pa.int32(): "INTEGER", pa.int64(): "BIGINT"}
    return {**names, pa.float64(): "DOUBLE"}.get(
        kind, 'STRUCT("name" VARCHAR, "offset" BIGINT, "size" BIGINT, sha256 VARCHAR)[]'
    )
