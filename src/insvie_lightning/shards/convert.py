"""Turn data sets in other layouts into shards."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from insvie_lightning.batch import Origin, Triplet
from insvie_lightning.errors import InputError
from insvie_lightning.shards.layouts import Entry, Videos, guess_origin, read_layout
from insvie_lightning.shards.manifest import keys_done, open_manifest
from insvie_lightning.shards.progress import track
from insvie_lightning.shards.record import describe
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

    Every video is decoded once as a check. H.264 mp4s are stored byte for byte, others are encoded. A bad row becomes a
    rejected sample with its reason. A rerun continues after the last finished shard.

    Args:
        src: As in `read_layout`.
        dst: Folder of the shards.
        source_dir: Folder of source videos, beside the CSV.
        edited_dir: Folder of edited videos, beside the CSV; rows of five columns name it themselves.
        origin: Of all samples; None guesses it from the prefix of each name.
        dataset: Name of the data set; that of the folder by default.
        shard_size: Rows per shard.
        max_bad_rate: Share of bad rows (0 to 1) above which the job stops.
        progress: Show a bar on stderr.

    Raises:
        InputError: As `read_layout`; too many rows are bad; or `dst` holds other samples already.
    """
    src, dst = Path(src), Path(dst)
    entries = read_layout(src, source_dir, edited_dir)
    done = keys_done(dst, [entry.key for entry in entries])
    rest = [entry for entry in entries if entry.key not in done]
    dataset = dataset or (src if src.is_dir() else src.parent).resolve().name
    videos, reasons = Videos(), Counter[str]()
    with ShardWriter(dst, shard_size=shard_size) as writer:
        for seen, entry in enumerate(track(rest, "rows", progress), start=1):
            lineage = {"builder": "convert", "table": src.name, "line": entry.line}
            lineage |= {"source": str(entry.source), "edited": str(entry.edited)}
            known = {"origin": origin or guess_origin(entry.source.name), "dataset": dataset, "lineage": lineage}
            try:
                record, members = _load(entry, videos, known)
            except InputError as error:
                reasons.update(count_reasons([str(error)]))
                texts = {name: getattr(entry, name) for name in ("instruction", "source_caption", "edited_caption")}
                writer.reject(entry.key, str(error), **texts, **known)
                _check_rate(reasons, max(seen, min(_ROWS_BEFORE_STOP, len(rest))), max_bad_rate)
            else:
                writer.write_members(record, members)
    table = open_manifest(dst).table
    rejected = table.filter(~pc.field("accepted"))["reason"].to_pylist()
    return Conversion(len(table) - len(rejected), count_reasons(rejected))


def _load(entry: Entry, videos: Videos, known: dict[str, Any]) -> tuple[dict[str, Any], dict[str, bytes]]:
    if entry.problem:
        raise InputError(entry.problem)
    clips, members = {}, {}
    for side, path in (("source", entry.source), ("edited", entry.edited)):
        data = videos.read(path, f"{side} clip")
        clips[side] = read_clip(data, name=f"{side} clip")
        members[f"{side}.mp4"] = data if is_h264_mp4(data) else encode_clip(clips[side])
    source, edited = clips["source"], clips["edited"]
    if source.size != edited.size:
        raise InputError("source and edited clip differ in size: {}x{} and {}x{}".format(*source.size, *edited.size))
    if len(source) != len(edited):
        raise InputError(f"source and edited clip differ in length: {len(source)} and {len(edited)} frames")
    texts = {name: getattr(entry, name) for name in ("instruction", "source_caption", "edited_caption")}
    return describe(Triplet(entry.key, source, edited, **texts, **known)), members


def _check_rate(reasons: Counter[str], seen: int, max_bad_rate: float) -> None:
    bad = reasons.total()
    if bad > max_bad_rate * seen:
        commonest = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3))
        raise InputError(f"stopped: {bad} bad rows are more than {max_bad_rate:.0%} of {seen}; commonest: {commonest}")
