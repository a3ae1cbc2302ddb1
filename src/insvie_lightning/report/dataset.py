"""What a data set holds: counts, the funnel from made to accepted, scores, shapes, and clips to look at."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from insvie_lightning.errors import InputError
from insvie_lightning.report.charts import histogram
from insvie_lightning.report.curves import Chart, Line
from insvie_lightning.report.media import Budget, Gallery, Sample, preview
from insvie_lightning.report.values import number, show, title
from insvie_lightning.shards.composition import Part, compose
from insvie_lightning.shards.funnel import Step, read_funnel
from insvie_lightning.shards.latents import LATENTS
from insvie_lightning.shards.manifest import Manifest, finished_shards, open_manifest
from insvie_lightning.shards.read import read_member, shard_of
from insvie_lightning.shards.record import COLUMNS

MAX_SAMPLES = 12
MAX_BARS = 12
CLIPS = ("source", "edited")


@dataclass(frozen=True, slots=True)
class Bar:
    """A count with its share of the whole in percent, and a few words about it."""

    label: str
    count: int
    percent: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class DataSet:
    """The section of a data set.

    Attributes:
        counts: Title -> bars over the accepted samples.
        composition: The accepted samples by origin, and all of them.
        funnel: `accepted`, then the reasons of rejection; empty where nothing was rejected.
        steps: What the steps that built it left, the first input before them; empty where that is not known.
        scores: A histogram per score.
    """

    name: str
    rows: int
    accepted: int
    shards: int
    seconds: float
    bytes: int
    counts: Mapping[str, tuple[Bar, ...]]
    composition: tuple[Part, ...]
    funnel: tuple[Bar, ...]
    steps: tuple[Bar, ...]
    scores: tuple[Chart, ...]
    gallery: Gallery


def is_dataset(folder: Path) -> bool:
    """Tell whether a folder holds finished shards."""
    return bool(finished_shards(folder))


def read_dataset(folder: Path, budget: Budget) -> DataSet:
    """Read the manifest of a data set and a spread of its clips.

    Raises:
        InputError: The manifest or a shard is broken.
    """
    manifest = open_manifest(folder)
    accepted = manifest.query()
    rejected = manifest.query("NOT accepted", ["key", "reason", "instruction"], accepted_only=False)
    rows = manifest.query("true", ["shard", "tar_bytes"], accepted_only=False)
    sizes = rows.group_by("shard").aggregate([("tar_bytes", "max")])["tar_bytes_max"]
    return DataSet(
        name=folder.name,
        rows=len(rows),
        accepted=accepted.num_rows,
        shards=len(sizes),
        seconds=sum(frames / fps for frames, fps in _known(accepted, "frames", "fps") if fps),
        bytes=pc.sum(sizes).as_py() or 0,
        counts={
            "origin": _bars(accepted["origin"].to_pylist()),
            "edit type": _bars(accepted["edit_type"].to_pylist()),
            "data set": _bars(accepted["dataset"].to_pylist()),
            "clip": _bars(_shapes(accepted)),
        },
        composition=compose(accepted),
        funnel=_funnel(accepted.num_rows, rejected),
        steps=_steps(read_funnel(folder)),
        scores=_scores(accepted),
        gallery=_gallery(manifest, accepted, budget),
    )


def _bars(values: Iterable[str], whole: int = 0) -> tuple[Bar, ...]:
    """Count values, the commonest first; what goes beyond the last bar is counted together."""
    counts = Counter(value or "(not given)" for value in values)
    whole = whole or counts.total()
    bars = [Bar(label, count, 100 * count / whole) for label, count in counts.most_common(MAX_BARS)]
    rest = counts.total() - sum(bar.count for bar in bars)
    return (*bars, Bar(f"{len(counts) - MAX_BARS} others", rest, 100 * rest / whole)) if rest else tuple(bars)


def _shapes(table: pa.Table) -> list[str]:
    shapes = _known(table, "frames", "height", "width", "fps")
    return [f"{frames} frames, {height} x {width}, {fps:.4g} fps" for frames, height, width, fps in shapes]


def _known(table: pa.Table, *columns: str) -> list[tuple[Any, ...]]:
    rows = zip(*(table[column].to_pylist() for column in columns), strict=True)
    return [row for row in rows if None not in row]


def _funnel(accepted: int, rejected: pa.Table) -> tuple[Bar, ...]:
    """Count the reasons of rejection; those that differ in a number or a quoted name only are one."""
    if not rejected.num_rows:
        return ()
    rows = rejected.to_pylist()
    examples: dict[str, list[str]] = {}
    for row in rows:
        examples.setdefault(_cause(row["reason"]), []).append(f"{row['key']}: {row['reason']}")
    bars = _bars((_cause(row["reason"]) for row in rows), whole=accepted + len(rows))
    noted = [Bar(bar.label, bar.count, bar.percent, "; ".join(examples.get(bar.label, [])[:3])) for bar in bars]
    return Bar("accepted", accepted, 100 * accepted / (accepted + len(rows))), *noted


def _steps(steps: Sequence[Step]) -> tuple[Bar, ...]:
    """Draw the funnel over all steps: each bar is what is left, in percent of the widest."""
    if not steps:
        return ()
    widest = max([steps[0].inputs, *(step.accepted for step in steps)])
    bars = [Bar(f"into {steps[0].step}", steps[0].inputs, 100 * steps[0].inputs / widest)]
    for step in steps:
        lost = "; ".join(f"{count} x {reason}" for reason, count in list(step.rejected.items())[:3])
        bars.append(Bar(f"out of {step.step}", step.accepted, 100 * step.accepted / widest, lost))
    return tuple(bars)


def _cause(reason: str | None) -> str:
    return re.sub(r"'[^']*'|-?\d+(\.\d+)?", "\N{HORIZONTAL ELLIPSIS}", reason or "no reason given")


def _scores(table: pa.Table) -> tuple[Chart, ...]:
    charts = []
    for name in table.column_names:
        values = table[name].drop_null().to_numpy() if name not in COLUMNS else np.empty(0)
        values = values[np.isfinite(values)]
        if len(values):
            facts = {"median": np.median(values), "lowest": values.min(), "highest": values.max()}
            lines = tuple(Line(fact, show(name, float(value))) for fact, value in facts.items())
            known = f"{number(len(values))} of {number(len(table))} scored"
            charts.append(Chart(title(name), histogram(values), lines, known))
    return tuple(charts)


def _gallery(manifest: Manifest, accepted: pa.Table, budget: Budget) -> Gallery:
    """Take samples in turn from every pair of origin and edit type, so that the rare ones are seen, too."""
    groups: dict[tuple[str, str], list[int]] = {}
    pairs = zip(accepted["origin"].to_pylist(), accepted["edit_type"].to_pylist(), strict=True)
    for index, pair in enumerate(pairs):
        groups.setdefault(pair, []).append(index)
    turns = chain.from_iterable(zip_longest(*groups.values()))
    chosen = [index for index in turns if index is not None][:MAX_SAMPLES]
    samples = (_sample(manifest.folder, row) for row in accepted.take(chosen).to_pylist())
    return Gallery(manifest.folder.name, budget.take(sample for sample in samples if sample.clips), accepted.num_rows)


def _sample(folder: Path, row: Mapping[str, Any]) -> Sample:
    members = {member["name"]: member for member in row["members"]}
    if LATENTS in members:
        members = {}  # videos that were kept beside latents are those of another data set
    found = {part: members[f"{part}.mp4"] for part in CLIPS if f"{part}.mp4" in members}
    return Sample(
        key=row["key"],
        instruction=row["instruction"] or "",
        clips={
            part: _clip(folder / shard_of(row, member["name"]), member, f"{part} clip")
            for part, member in found.items()
        },
        tags=tuple(tag for tag in (row["origin"], row["edit_type"]) if tag),
        scores={title(name): show(name, row[name]) for name in row if name not in COLUMNS and row[name] is not None},
    )


def _clip(shard: Path, member: Mapping[str, Any], name: str) -> str:
    try:
        return preview(read_member(shard, member["offset"], member["size"]), name)
    except InputError as error:
        return str(error)
