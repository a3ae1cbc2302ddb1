"""The record: what is known about one sample, as JSON inside a tar and as a row of the manifest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import pyarrow as pa

from insvie_lightning.batch import ORIGINS, Draft, Triplet
from insvie_lightning.errors import InputError, nearest

_TEXT = {name: pa.string() for name in ("instruction", "source_caption", "edited_caption", "dataset", "edit_type")}
SHAPE = {"frames": pa.int32(), "height": pa.int32(), "width": pa.int32(), "fps": pa.float64()}
"""What is known of the clips once one of them was decoded."""
_MEMBER = pa.struct({"name": pa.string(), "offset": pa.int64(), "size": pa.int64(), "sha256": pa.string()})
_RECORD = {"key": pa.string(), "origin": pa.string(), **_TEXT, **SHAPE, "lineage": pa.string()}
_STORAGE = {
    "shard": pa.string(),
    "source_shard": pa.string(),
    "accepted": pa.bool_(),
    "reason": pa.string(),
    "members": pa.list_(_MEMBER),
    "tar_sha256": pa.string(),
    "tar_bytes": pa.int64(),
}
COLUMNS: dict[str, pa.DataType] = {**_RECORD, **_STORAGE}
"""The columns that every manifest has; all other columns are scores (float64).

The members of a sample lie in its `shard`, but `source.mp4` in its `source_shard` if it has one. A shard is a tar, or,
where published data is used in place, a zip or a video file. Zips bring checksums of their own: `sha256` is empty then.
"""
LATER = {"source_shard"}
"""Columns that manifests of an earlier version lack; they are read as null."""


def describe(sample: Draft | Triplet) -> dict[str, Any]:
    """Return the record of a triplet or draft: all but its pixels; `scores` and `lineage` are nested.

    The shape of a source without frames, which could not be read, is not known.
    """
    height, width = sample.source.size
    texts = {name: getattr(sample, name) for name in _TEXT}
    known = {"frames": len(sample.source), "height": height, "width": width, "fps": sample.source.fps}
    shape = known if len(sample.source) else {}
    nested = {"scores": dict(sample.scores), "lineage": dict(sample.lineage)}
    return {"key": sample.key, "origin": sample.origin, **texts, **shape, **nested}


def to_record(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record behind a row of the manifest: score columns become `scores`, lineage is parsed.

    A record comes back as a record, so that callers need not know which of the two they hold.
    """
    record = {name: row[name] for name in row if name in _RECORD}
    if "scores" not in row:
        scores = {name: value for name, value in row.items() if name not in COLUMNS}
    else:
        scores = row["scores"]
        record |= {name: value for name, value in row.items() if name not in COLUMNS and name != "scores"}
    # SQL sorts NaN above every number, so a failed score must be absent lest it pass `judge >= 4`.
    record["scores"] = {name: value for name, value in scores.items() if value is not None and value == value}
    lineage = row.get("lineage") or {}
    try:
        record["lineage"] = json.loads(lineage) if isinstance(lineage, str) else dict(lineage)
    except (ValueError, RecursionError):
        raise InputError(f"the lineage of {row.get('key')!r} is no readable JSON") from None
    return record


def to_row(record: Mapping[str, Any], **storage: Any) -> dict[str, Any]:
    """Return the manifest row of a record: the inverse of `to_record`, plus the storage columns.

    Raises:
        InputError: An unknown field, an origin that is none of `ORIGINS`, or a score named like a fixed column.
    """
    key, origin, scores = record["key"], record.get("origin", "real"), record.get("scores", {})
    fields = {name: value for name, value in record.items() if name != "scores"}
    for name in fields:
        if name not in _RECORD:
            raise InputError(f"sample {key!r} has an unknown field {name!r}; legal: {', '.join(_RECORD)}, scores")
    for name, value in scores.items():
        if not name.isidentifier() or name.lower() in COLUMNS or not isinstance(value, Real):
            raise InputError(f"sample {key!r}: {name!r} is no score; legal: a number named like no fixed column")
    if origin not in ORIGINS:
        raise InputError(f"sample {key!r} has origin {origin!r}; legal: {', '.join(ORIGINS)}{nearest(origin, ORIGINS)}")
    texts = dict.fromkeys(_TEXT, "")
    lineage = json.dumps(record.get("lineage", {}), ensure_ascii=False)
    numbers = {name: float(value) for name, value in scores.items()}
    return {**texts, **fields, "origin": origin, "lineage": lineage, **numbers, **storage}


def to_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return rows as a table: the fixed columns, then one float64 column per score in alphabetical order."""
    rows = list(rows)
    scores = sorted({name for row in rows for name in row} - COLUMNS.keys())
    schema = pa.schema({**COLUMNS, **dict.fromkeys(scores, pa.float64())})
    return pa.Table.from_pylist(rows, schema=schema)
