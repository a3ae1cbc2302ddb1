"""The manifest: a row per sample over all shards of a folder, queried with SQL WHERE clauses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from insvie_lightning.errors import InputError, first_line, nearest
from insvie_lightning.files import open_regular
from insvie_lightning.shards.mapped import ROWS_AT_ONCE, map_rows
from insvie_lightning.shards.record import COLUMNS, LATER

COMPACT = "manifest.parquet"
PARTS = b"insvie_parts"
_ROW = "insvie_row"


@dataclass(frozen=True)
class Manifest:
    """All rows of a data set, in the order in which the samples lie in its tars.

    Attributes:
        folder: Where the shards are.
        files: The Parquet files of the rows.
        schema: The columns, over all files.
        length: Number of rows, rejected ones included.
    """

    folder: Path
    files: tuple[Path, ...]
    schema: pa.Schema
    length: int

    def query(self, where: str = "true", columns: Sequence[str] | None = None, accepted_only: bool = True) -> pa.Table:
        """Return the rows that a clause keeps, in storage order; they lie on disk (`map_rows`), not in memory.

        Args and errors are those of `stream`.
        """
        return map_rows(self.stream(where, columns, accepted_only))

    def stream(
        self, where: str = "true", columns: Sequence[str] | None = None, accepted_only: bool = True
    ) -> pa.RecordBatchReader:
        """Read the rows that a clause keeps, in storage order, batch by batch as they are asked for.

        Args:
            where: A DuckDB WHERE clause over the columns, such as `judge >= 4 and epe_px <= 2`. It can neither read
                nor write anything but the manifest.
            columns: Names of the columns to return; None for all.
            accepted_only: Leave rejected samples out.

        Raises:
            InputError: The clause is no SQL, or names a column that does not exist.
        """
        for name in columns or ():
            if name not in self.schema.names:
                raise self._unknown(name)
        names = [name for name in self.schema.names if columns is None or name in columns]
        rows = self._scan(names, accepted_only)
        return rows if where == "true" else _chosen(rows, self._matches(where, accepted_only))

    def _matches(self, where: str, accepted_only: bool) -> np.ndarray:
        """Tell for each row whether a clause keeps it; the database sees only the columns that the clause can need."""
        clause = where.lower()
        every = "columns" in clause  # DuckDB's COLUMNS(...) names them by a pattern
        names = [name for name in self.schema.names if every or name.lower() in clause]
        # The newline ends a trailing comment of the clause before the bracket.
        sql = f"SELECT {_ROW} FROM manifest WHERE ({where}\n)"
        with duckdb.connect() as connection:
            connection.register("manifest", _numbered(self._scan(names or ["accepted"], accepted_only)))
            # Threads would read ahead of what is fetched.
            for setting in ("threads = 1", "python_enable_replacements = false", "enable_external_access = false"):
                connection.execute(f"SET {setting}")
            connection.execute("SET lock_configuration = true")
            try:
                kept = np.zeros(self.length, np.bool_)
                for batch in connection.execute(sql).to_arrow_reader(ROWS_AT_ONCE):  # in any order
                    kept[batch[_ROW].to_numpy()] = True
                return kept
            except duckdb.BinderException as error:
                unknown = re.search(r'(?:Referenced column|column named) "([^"]+)"', str(error))
                raise self._unknown(unknown[1]) if unknown else _illegal(where, error) from None
            except duckdb.Error as error:
                raise _illegal(where, error) from None

    def _scan(self, columns: Sequence[str], accepted_only: bool) -> pa.RecordBatchReader:
        """Read columns batch by batch as they are asked for; a scanner of pyarrow would read far ahead."""
        schema = pa.schema([self.schema.field(name) for name in columns])

        def batches() -> Iterator[pa.RecordBatch]:
            for path in self.files:
                with _open_part(path) as part:
                    present = {*columns, "accepted"}.intersection(part.schema_arrow.names)
                    for group in range(part.num_row_groups):
                        for batch in part.iter_batches(ROWS_AT_ONCE, [group], sorted(present)):
                            batch = batch.filter(batch["accepted"]) if accepted_only else batch
                            arrays = [
                                batch[field.name] if field.name in present else pa.nulls(len(batch), field.type)
                                for field in schema
                            ]
                            yield pa.RecordBatch.from_arrays(arrays, names=schema.names).cast(schema)
                        # What was read of a group is let go at the end of a call, and then kept for later ones.
                        pa.default_memory_pool().release_unused()

        return pa.RecordBatchReader.from_batches(schema, batches())

    def _unknown(self, name: str) -> InputError:
        names = self.schema.names
        return InputError(f"{self.folder} has no column {name!r}; it has {', '.join(names)}{nearest(name, names)}")


def open_manifest(folder: Path | str) -> Manifest:
    """Return the manifest of a folder, from `manifest.parquet` where that is up to date, else from its parts.

    Raises:
        InputError: The folder is absent, holds no finished shard, or a part of the manifest is broken.
    """
    folder = Path(folder)
    parts = find_parts(folder)
    whole = folder / COMPACT
    if whole.exists() and _made_of(whole) == fingerprint(parts):
        parts = [whole]
    schemas, lengths = zip(*map(_read_schema, parts), strict=True)
    try:
        schema = pa.unify_schemas([pa.schema(COLUMNS), *schemas])
    except pa.ArrowException as error:
        raise InputError(f"{folder} is no readable manifest: {first_line(error)}") from None
    return Manifest(folder, tuple(parts), schema, sum(lengths))


def find_parts(folder: Path) -> list[Path]:
    """Return the Parquet parts of a data set, of which there must be one.

    Raises:
        InputError: The folder is absent or holds no finished shard.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder of shards")
    if not (parts := finished_shards(folder)):
        raise InputError(f"{folder} holds no finished shard (shard-*.parquet); `insvie shards convert` makes them")
    return parts


def finished_shards(folder: Path) -> list[Path]:
    """Return the Parquet parts of a folder in order; a shard is finished when, and only when, its part exists."""
    return sorted(folder.glob("shard-*.parquet"))


def fingerprint(parts: Sequence[Path]) -> bytes:
    """Tell parts from others by their names, sizes and times, which a compact manifest stores under `PARTS`."""
    return json.dumps([[part.name, part.stat().st_size, part.stat().st_mtime_ns] for part in parts]).encode()


def finished_keys(folder: Path | str) -> set[str]:
    """Return the keys of all samples in finished shards, rejected ones included: what a resumed job skips."""
    return {key for part in finished_shards(Path(folder)) for key in read_part(part, ["key"])["key"].to_pylist()}


def keys_done(folder: Path | str, planned: Iterable[str]) -> set[str]:
    """Return which of the planned keys finished shards hold already, for a job that is run again.

    Raises:
        InputError: The folder holds other keys, too, so it belongs to another job; or an index, whose samples lie
            elsewhere, so that the job would have nothing left to do.
    """
    for part in finished_shards(Path(folder)):
        if table := indexed_table(part):
            raise InputError(f"{folder} holds the index of {table}, not shards of its own; choose an empty folder")
    done = finished_keys(folder)
    if others := done.difference(planned):
        raise InputError(f"{folder} holds {len(others)} other samples, such as {min(others)!r}; choose an empty folder")
    return done


def indexed_table(part: Path) -> str | None:
    """Return the name of the table whose index a part is; None of a shard, whose samples lie in a tar beside it.

    Raises:
        InputError: As `read_part`.
    """
    with _open_part(part) as file:
        first = next(file.iter_batches(1, columns=["tar_sha256", "lineage"]), None)
    row = first.to_pylist()[0] if first else {"tar_sha256": "", "lineage": "{}"}
    return None if row["tar_sha256"] else str(json.loads(row["lineage"]).get("table", "a table"))


def read_part(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Return the rows of one Parquet file of a manifest.

    Raises:
        InputError: The file is broken, or another kind of table.
    """
    with _open_part(path) as file:
        table = file.read(columns).replace_schema_metadata()
    absent = pa.schema({name: COLUMNS[name] for name in COLUMNS.keys() - set(table.column_names)})
    return table if columns else pa.concat_tables([table, absent.empty_table()], promote_options="default")


def _made_of(whole: Path) -> bytes | None:
    """Return the fingerprint of the parts that a compact manifest was made of; None where it cannot be read."""
    try:
        with _open_part(whole) as file:
            found: bytes | None = (file.schema_arrow.metadata or {}).get(PARTS)
            return found
    except InputError:
        return None  # the parts are the truth


def _read_schema(path: Path) -> tuple[pa.Schema, int]:
    """Return the columns of a part and the number of its rows."""
    with _open_part(path) as file:
        return file.schema_arrow.remove_metadata(), file.metadata.num_rows


@contextmanager
def _open_part(path: Path) -> Iterator[pq.ParquetFile]:
    open_regular(path, "a manifest").close()
    try:
        # ParquetFile, because read_table would look at the sibling files and infer partitions from the path.
        with pq.ParquetFile(path) as file:
            if missing := COLUMNS.keys() - LATER - set(file.schema_arrow.names):
                raise InputError(f"{path} is no manifest: it has no column {min(missing)!r}")
            _check_columns(path, file.schema_arrow)
            yield file
    except InputError:
        raise
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:  # ValueError: names that are no UTF-8
        raise InputError(f"{path} is no readable manifest: {first_line(error)}") from None


def _check_columns(path: Path, schema: pa.Schema) -> None:
    for name in schema.names:
        if schema.names.count(name) > 1:
            raise InputError(f"{path} is no manifest: it has the column {name!r} twice")
        found, needed = schema.field(name).type, COLUMNS.get(name, pa.float64())
        if pa.types.is_floating(found) and not pa.types.is_floating(needed):
            raise InputError(f"{path} is no manifest: its column {name!r} holds {found}, but {needed} is needed")


def _numbered(rows: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """Add a column of the numbers of the rows, from 0."""
    schema = rows.schema.append(pa.field(_ROW, pa.int64()))

    def batches() -> Iterator[pa.RecordBatch]:
        start = 0
        for batch in rows:
            numbers = pa.array(np.arange(start, start + len(batch)))
            yield pa.RecordBatch.from_arrays([*batch.columns, numbers], schema=schema)
            start += len(batch)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _chosen(rows: pa.RecordBatchReader, kept: np.ndarray) -> pa.RecordBatchReader:
    """Leave out the rows that a mask does not keep."""

    def batches() -> Iterator[pa.RecordBatch]:
        start = 0
        for batch in rows:
            yield batch.filter(pa.array(kept[start : start + len(batch)]))
            start += len(batch)

    return pa.RecordBatchReader.from_batches(rows.schema, batches())


def _illegal(where: str, error: Exception) -> InputError:
    return InputError(f"the clause {where!r} is no legal SQL condition: {first_line(error)}")
