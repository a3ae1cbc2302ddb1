"""What a data set holds, read from its manifest alone."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.record import COLUMNS

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, slots=True)
class Stats:
    """Numbers of a data set; all but `rejected` and `reasons` count accepted samples only.

    Attributes:
        accepted: Samples fit for use.
        rejected: Samples with a reason not to be.
        reasons: Reason -> rejected samples, digits replaced by N so that like reasons count together.
        origins: Origin -> samples.
        datasets: Data set -> samples.
        edit_types: Edit type -> samples; `unknown` where it is not recorded.
        shapes: `F x H x W, fps` -> samples.
        scores: Name -> (least, mean, largest, how many have it).
        tar_bytes: Size of all tars.
    """

    accepted: int
    rejected: int
    reasons: Counter[str]
    origins: Counter[str]
    datasets: Counter[str]
    edit_types: Counter[str]
    shapes: Counter[str]
    scores: dict[str, tuple[float, float, float, int]]
    tar_bytes: int

    @property
    def static_per_real(self) -> float:
        """Static samples per real one, where real includes pairs; infinite when all are static."""
        real = self.origins["real"] + self.origins["pair"]
        return self.origins["static"] / real if real else float("inf" if self.origins["static"] else 0)


def stats(folder: Path | str) -> Stats:
    """Count a data set.

    Raises:
        InputError: As `open_manifest`.
    """
    table = open_manifest(folder).query(accepted_only=False)
    accepted = table.filter(pc.field("accepted"))
    rejected = table.filter(~pc.field("accepted"))
    shape = accepted.group_by(["frames", "height", "width", "fps"]).aggregate([([], "count_all")])
    shapes = {_shape_name(row): row["count_all"] for row in shape.to_pylist()}
    scores = {}
    for name in accepted.column_names:
        count = pc.count(accepted[name]).as_py()
        if name not in COLUMNS and count:
            extremes = pc.min_max(accepted[name]).as_py()
            scores[name] = (extremes["min"], pc.mean(accepted[name]).as_py(), extremes["max"], count)
    tar_bytes = table.group_by("shard").aggregate([("tar_bytes", "max")])["tar_bytes_max"]
    return Stats(
        accepted=len(accepted),
        rejected=len(rejected),
        reasons=count_rejected(rejected),
        origins=Counter(accepted["origin"].to_pylist()),
        datasets=Counter(name or "unknown" for name in accepted["dataset"].to_pylist()),
        edit_types=Counter(name or "unknown" for name in accepted["edit_type"].to_pylist()),
        shapes=Counter(shapes),
        scores=scores,
        tar_bytes=pc.sum(tar_bytes).as_py(),
    )


def _shape_name(row: dict[str, Any]) -> str:
    return "unknown" if None in row.values() else "{frames} x {height} x {width}, {fps:g} fps".format(**row)


def count_reasons(reasons: Iterable[str]) -> Counter[str]:
    """Count reasons for rejection with their numbers replaced by N, so that like ones count together."""
    return Counter(re.sub(r"\d+", "N", reason) for reason in reasons)


def count_rejected(rows: pa.Table) -> Counter[str]:
    """Count the reasons of rejected rows, by `count_reasons` and `without_names`."""
    rows = rows.select(["key", "reason", "lineage"])
    told = (row for batch in rows.to_batches(max_chunksize=1024) for row in batch.to_pylist())
    return count_reasons(without_names(row["reason"] or "no reason given", **_named(row)) for row in told)


def without_names(reason: str, key: str, lineage: Mapping[str, Any]) -> str:
    """A reason with its sample's key and files replaced by KEY and FILE, so that like reasons count together.

    Args:
        reason: In words.
        key: Of the sample.
        lineage: Of the sample; the texts of its first entry, that of a data module, name files.
    """
    read = next(iter(lineage.values()), None)
    files = [text for text in read.values() if isinstance(text, str)] if isinstance(read, Mapping) else []
    for name, word in sorted([*((file, "FILE") for file in files), (key, "KEY")], key=lambda pair: -len(pair[0])):
        reason = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", word, reason) if name else reason
    return reason


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    try:
        lineage = json.loads(row["lineage"] or "{}")
    except (ValueError, RecursionError):
        lineage = {}
    return {"key": row["key"], "lineage": lineage if isinstance(lineage, dict) else {}}


def as_table(numbers: Stats) -> Table:
    """Return the numbers as a table for the terminal."""
    from rich.filesize import decimal
    from rich.table import Table

    title = f"{numbers.accepted} samples, {decimal(numbers.tar_bytes)}"
    table = Table("what", "value", "samples", "share", title=title)
    groups = {"origin": numbers.origins, "data set": numbers.datasets, "edit type": numbers.edit_types}
    for what, counts in {**groups, "frames x height x width": numbers.shapes}.items():
        for value, count in counts.most_common(12):
            table.add_row(what, value, str(count), f"{count / numbers.accepted:.1%}")
    table.add_row("static : real", f"{numbers.static_per_real:.2f} : 1", "", "")
    table.add_section()
    for name, (least, mean, largest, count) in numbers.scores.items():
        extremes = f"{least:.3g} .. {mean:.3g} .. {largest:.3g}"
        table.add_row(f"score {name}", extremes, str(count), f"{count / numbers.accepted:.1%}")
    table.add_section()
    total = numbers.accepted + numbers.rejected
    table.add_row("rejected", "", str(numbers.rejected), f"{numbers.rejected / total:.1%}")
    for reason, count in numbers.reasons.most_common(12):
        table.add_row("", reason, str(count), f"{count / total:.1%}")
    return table
