"""The manifest: a row per sample over all shards of a folder, queried with SQL WHERE clauses."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from insvie_lightning.errors import InputError, first_line, nearest
from insvie_lightning.shards.mapped import map_rows
from insvie_lightning.shards.record import COLUMNS, LATER

COMPACT = "manifest.parquet"
_PARTS = b"insvie_parts"
_ROWS_AT_ONCE = 16_384


@dataclass(frozen=True)
class Manifest:
    """All rows of a data set, in the order in which the samples lie in its tars.

    Attributes:
        folder: Where the shards are.
        files: The Parquet files of the rows.
        schema: The columns, over all files.
    """

    folder: Path
    files: tuple[Path, ...]
    schema: pa.Schema

    @cached_property
    def table(self) -> pa.Table:
        """Every row, rejected samples included, in memory."""
        return pa.concat_tables(map(read_part, self.files), promote_options="default")

    def query(self, where: str = "true", columns: Sequence[str] | None = None, accepted_only: bool = True) -> pa.Table:
        """Return the rows that a clause keeps, in storage order; they lie on disk (`map_rows`), not in memory.

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
        selected = ", ".join(f'"{name}"' for name in columns) if columns else "*"
        # The newline ends a trailing comment of the clause before the bracket.
        sql = f"SELECT {selected} FROM manifest WHERE ({where}\n)"
        with duckdb.connect() as connection:
            connection.register("manifest", self._scan(self._named(where, columns), accepted_only))
            for setting in ("python_enable_replacements = false", "enable_external_access = false"):
                connection.execute(f"SET {setting}")
            connection.execute("SET lock_configuration = true")
            try:
                return map_rows(connection.sql(sql).to_arrow_reader(_ROWS_AT_ONCE))
            except duckdb.BinderException as error:
                unknown = re.search(r'(?:Referenced column|column named) "([^"]+)"', str(error))
                raise self._unknown(unknown[1]) if unknown else _illegal(where, error) from None
            except duckdb.Error as error:
                raise _illegal(where, error) from None

    def _named(self, where: str, columns: Sequence[str] | None) -> list[str]:
        """Return the columns that a query can need: those it returns, and those whose name stands in its clause."""
        clause = where.lower()
        every = columns is None or "columns" in clause  # DuckDB's COLUMNS(...) names them by a pattern
        return [name for name in self.schema.names if every or name in (columns or ()) or name.lower() in clause]

    def _scan(self, columns: list[str], accepted_only: bool) -> pa.RecordBatchReader:
        # Without reading ahead, which would hold the whole of a large manifest in memory.
        options = {"batch_size": _ROWS_AT_ONCE, "batch_readahead": 1, "fragment_readahead": 1, "use_threads": False}
        kept = pc.field("accepted") if accepted_only else None
        rows = ds.dataset([str(path) for path in self.files], schema=self.schema, format="parquet")
        return rows.scanner(columns=columns, filter=kept, **options).to_reader()

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
    if whole.exists() and (pq.read_schema(whole).metadata or {}).get(_PARTS) == _fingerprint(parts):
        parts = [whole]
    schemas = [_read_schema(part) for part in parts]
    return Manifest(folder, tuple(parts), pa.unify_schemas([pa.schema(COLUMNS), *schemas]))


def compact(folder: Path | str) -> Path:
    """Merge the parts into one `manifest.parquet`, which opens faster; the parts stay and remain the truth.

    Raises:
        InputError: As `open_manifest`.
    """
    manifest = open_manifest(folder)
    parts = _fingerprint(finished_shards(manifest.folder))
    path = manifest.folder / COMPACT
    temporary = path.with_name(f".{path.name}.tmp")
    pq.write_table(manifest.table.replace_schema_metadata({_PARTS: parts}), temporary, compression="zstd")
    os.replace(temporary, path)
    return path


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


def _read_schema(path: Path) -> pa.Schema:
    with _open_part(path) as file:
        return file.schema_arrow.remove_metadata()


@contextmanager
def _open_part(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        # ParquetFile, because read_table would look at the sibling files and infer partitions from the path.
        with pq.ParquetFile(path) as file:
            if missing := COLUMNS.keys() - LATER - set(file.schema_arrow.names):
                raise InputError(f"{path} is no manifest: it has no column {min(missing)!r}")
            yield file
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is no readable manifest: {first_line(error)}") from None


def _fingerprint(parts: Sequence[Path]) -> bytes:
    return json.dumps([[part.name, part.stat().st_size, part.stat().st_mtime_ns] for part in parts]).encode()


def _illegal(where: str, error: Exception) -> InputError:
    return InputError(f"the clause {where!r} is no legal SQL condition: {first_line(error)}")
