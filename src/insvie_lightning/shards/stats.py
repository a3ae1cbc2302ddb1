"""What a data set holds, read from its manifest alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        reasons=count_reasons(rejected["reason"].to_pylist()),
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
