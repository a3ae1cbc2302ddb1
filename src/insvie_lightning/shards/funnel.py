"""The funnel of a data set: how many samples went into each step, how many came out, and why the others did not."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from insvie_lightning.errors import InputError
from insvie_lightning.files import read_json
from insvie_lightning.shards.job import read_job
from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.stats import count_rejected

if TYPE_CHECKING:
    from rich.table import Table

FUNNEL = "funnel.json"


@dataclass(frozen=True, slots=True)
class Step:
    """What one step made of its input.

    Attributes:
        step: Its name.
        inputs: Samples that went in.
        accepted: Samples that came out; more than went in where a sample gave several.
        rejected: Reason -> samples, the commonest first; numbers are replaced by N, and the sample's key and
            files by KEY and FILE, so that like reasons count together.
    """

    step: str
    inputs: int
    accepted: int
    rejected: dict[str, int] = field(default_factory=dict)


def write_funnel(folder: Path, shown: bool = False) -> tuple[Step, ...]:
    """Count what a finished job made, write `funnel.json` with the steps before it, and return all steps.

    Args:
        folder: Its shards.
        shown: Print the table and where the samples are, too.

    Raises:
        InputError: The manifest or the job is broken.
    """
    job = read_job(folder)
    rows = open_manifest(folder).query(columns=["key", "accepted", "reason", "lineage"], accepted_only=False)
    rejected = rows.filter(pc.invert(rows["accepted"]))
    reasons = count_rejected(rejected)
    own = Step(str(job["step"]), job["input"]["samples"], len(rows) - len(rejected), dict(reasons.most_common()))
    before = read_funnel(folder / job["input"]["at"]) if "at" in job["input"] else ()
    steps = (*before, own)
    temporary = folder / f".{FUNNEL}.{os.getpid()}.tmp"
    text = json.dumps({"steps": [asdict(step) for step in steps]}, indent=1, ensure_ascii=False)
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, folder / FUNNEL)
    if shown:
        from rich.console import Console

        Console().print(as_table(steps))
        print(f"{own.accepted} samples in {folder}")
    return steps


def read_funnel(folder: Path) -> tuple[Step, ...]:
    """Return the steps that made a folder, the first one first; none where nothing is known.

    Raises:
        InputError: `funnel.json` is broken.
    """
    path = folder / FUNNEL
    if not path.is_file():
        return ()
    try:
        return tuple(Step(**step) for step in read_json(path)["steps"])
    except (InputError, KeyError, TypeError):
        raise InputError(f"{path} is no readable funnel; remove it, and the step's next run writes it anew") from None


def as_table(steps: Sequence[Step]) -> Table:
    """Return the steps as a table for the terminal."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("step", "", "samples", "share", title="funnel")
    for step in steps:
        out = step.accepted + sum(step.rejected.values())
        table.add_row(step.step, "in", str(step.inputs), "")
        table.add_row("", "accepted", str(step.accepted), f"{step.accepted / max(out, 1):.1%}")
        for reason, count in list(step.rejected.items())[:12]:
            table.add_row("", escape(reason), str(count), f"{count / max(out, 1):.1%}")
        table.add_section()
    return table
