"""Turn data sets in other layouts into shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from insvie_lightning.batch import Origin, Triplet
from insvie_lightning.errors import InputError
from insvie_lightning.shards.compact import compact_many
from insvie_lightning.shards.locate import locate
from insvie_lightning.shards.manifest import keys_done, open_manifest
from insvie_lightning.shards.progress import track
from insvie_lightning.shards.read import read_member, shard_of
from insvie_lightning.shards.record import SHAPE, describe, to_record
from insvie_lightning.shards.stats import count_reasons
from insvie_lightning.shards.write import ShardWriter
from insvie_lightning.video import encode_clip, is_h264_mp4, read_clip

_ROWS_BEFORE_STOP = 100


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion left: accepted samples, and the reasons of the rejected ones with their counts."""

    samples: int
    rejected: Counter[str]


def convert(
    src: Path | str,
    dst: Path | str,
    *,
    source_dir: str = "source",
    edited_dir: str = "edited",
    origin: Origin | None = None,
    dataset: str | None = None,
    shard_size: int = 1000,
    max_bad_rate: float = 0.5,
    progress: bool = False,
) -> Conversion:
    """Convert a released CSV, or a folder of source and edited videos, into shards.

    Zips are read where they lie. Every video is decoded once as a check. H.264 mp4s are stored byte for byte, others
    are encoded. A bad row becomes a rejected sample with its reason. A rerun continues after the last finished shard.

    Args:
        src: As in `read_layout`.
        dst: Folder of the shards.
        source_dir: Folder of source videos, zip or pattern of zips (`source*.zip`), beside the CSV.
        edited_dir: The same of the edited videos; rows of five columns name it themselves.
        origin: Of all samples; None guesses it from the prefix of each name.
        dataset: Name of the data set; that of the folder by default.
        shard_size: Rows per shard.
        max_bad_rate: Share of bad rows (0 to 1) above which the job stops.
        progress: Show a bar on stderr.

    Raises:
        InputError: As `locate`; too many rows are bad; or `dst` holds other samples already, or an index.
    """
    dst, folder = Path(dst), Path("/")
    rows = locate(
        Path(src),
        folder,
        builder="convert",
        source_dir=source_dir,
        edited_dir=edited_dir,
        origin=origin,
        dataset=dataset,
    )
    done = keys_done(dst, (key for batch in rows["key"].chunks for key in batch.to_pylist()))
    count, reasons = len(rows) - len(done), Counter[str]()
    with ShardWriter(dst, shard_size=shard_size) as writer:
        for seen, row in enumerate(track(_rows_but(rows, done), "rows", progress, count), start=1):
            try:
                record, members = _load(folder, row)
            except InputError as error:
                reasons.update(count_reasons([str(error)]))
                record = to_record(row)
                writer.reject(record.pop("key"), str(error), **record)
                check_bad_rate(reasons, max(seen, min(_ROWS_BEFORE_STOP, count)), max_bad_rate)
            else:
                writer.write_members(record, members)
    compact_many(dst)
    return count_rows(open_manifest(dst).query(columns=["accepted", "reason"], accepted_only=False))


def count_rows(manifest: pa.Table) -> Conversion:
    """Count what became of the rows of a layout."""
    rejected = manifest.filter(~pc.field("accepted"))["reason"].to_pylist()
    return Conversion(len(manifest) - len(rejected), count_reasons(rejected))


def _rows_but(rows: pa.Table, done: set[str]) -> Iterator[dict[str, Any]]:
    return (row for batch in rows.to_batches(max_chunksize=256) for row in batch.to_pylist() if row["key"] not in done)


def _load(folder: Path, row: dict[str, Any]) -> tuple[dict[str, Any], dict[str, bytes]]:
    if not row["accepted"]:
        raise InputError(row["reason"])
    clips, members = {}, {}
    for member in row["members"]:
        side = member["name"].removesuffix(".mp4")
        try:
            data = read_member(folder / shard_of(row, member["name"]), member["offset"], member["size"])
        except InputError as error:
            raise InputError(f"{side} clip: {error}") from None
        clips[side] = read_clip(data, name=f"{side} clip")
        members[member["name"]] = data if is_h264_mp4(data) else encode_clip(clips[side])
    source, edited = clips["source"], clips["edited"]
    if source.size != edited.size:
        raise InputError("source and edited clip differ in size: {}x{} and {}x{}".format(*source.size, *edited.size))
    if len(source) != len(edited):
        raise InputError(f"source and edited clip differ in length: {len(source)} and {len(edited)} frames")
    known = {name: value for name, value in to_record(row).items() if name not in ("key", *SHAPE)}
    return describe(Triplet(row["key"], source, edited, **known)), members


def check_bad_rate(reasons: Counter[str], seen: int, max_bad_rate: float) -> None:
    """Stop a job with the three commonest reasons.

    Raises:
        InputError: More than `max_bad_rate` of the rows seen are bad.
    """
    bad = reasons.total()
    if bad > max_bad_rate * seen:
        commonest = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3))
        raise InputError(f"stopped: {bad} bad rows are more than {max_bad_rate:.0%} of {seen}; commonest: {commonest}")
