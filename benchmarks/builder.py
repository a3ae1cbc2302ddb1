"""What a builder costs beside the bare calls of its step, and what its ledger and manifest cost when they are large.

Command:  python benchmarks/builder.py [--samples 256] [--units 10000] [--rows 1000000]
Hardware: any CPU; seven minutes, 200 MB of disk.
Result:   seconds a sample of `make` alone and of the whole run (claims, lineage, storing, renaming), and their ratio,
          for a real step at toy size, which encodes triplets in batches of four; and for steps that take one draft at
          a time and wait (as for a GPU or a server) or compute, 0.1 s, which is less than any step takes at real size,
          or 0.02 s. With workers none and two. On a busy machine the wall clock says little: of a step that waits, the
          processor time is the overhead;
          seconds to claim, finish and let go all units of a ledger; and seconds to open a manifest of so many rows, in
          parts of 256, and to find what a clause keeps: by its parts, as while a job is at work, and compact, as a
          finished job leaves it.

Every way is run in one process, one after the other; the drafts are drawn beforehand, since reading is no overhead.
"""

from __future__ import annotations

import argparse
import logging
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from lightning import Trainer

from insvie_lightning.batch import Clip, Draft
from insvie_lightning.builders.builder import Builder, Built
from insvie_lightning.builders.latents import EncodeLatents
from insvie_lightning.builders.units import Input
from insvie_lightning.shards.compact import compact
from insvie_lightning.shards.drafts import clips_of, encode_member
from insvie_lightning.shards.ledger import Ledger
from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.record import describe, to_row, to_table


@dataclass
class Drawn:
    """Inputs that are one small clip, as an earlier step stores it, or two."""

    count: int
    triplets: bool = False

    def __post_init__(self) -> None:
        frames = np.random.default_rng(0).integers(0, 256, (9, 3, 64, 96), np.uint8)
        clip = Clip(frames, 8.0)
        name = next(iter(clips_of(Draft("x", clip))))
        self.clip, self.members = clip, {name: encode_member(name, clip)}
        self.keys = pa.chunked_array([[f"clip{index:06d}" for index in range(self.count)]], pa.string())
        self.reading = {"data": "Drawn"}

    def __getitem__(self, index: int) -> Input:
        draft = Draft(f"clip{index:06d}", self.clip, instruction="an instruction")
        return Input(draft.triplet(self.clip, self.clip) if self.triplets else draft, self.members)


class Step(Builder[Draft]):
    """Spends some time on each draft, waiting or computing, and captions it."""

    def __init__(self, output: Path, shard_size: int = 64, seconds: float = 0.1, compute: bool = False) -> None:
        super().__init__(output, shard_size)
        self.seconds, self.compute = seconds, compute

    def make(self, drafts: Sequence[Draft]) -> list[Built]:
        """Caption some drafts."""
        return [self.one(draft) for draft in drafts]

    def one(self, draft: Draft) -> Draft:
        """Caption one draft."""
        end = time.perf_counter() + self.seconds
        if not self.compute:
            time.sleep(self.seconds)
        while time.perf_counter() < end:
            np.sqrt(draft.source.frames[0, 0].astype(np.float32))
        return replace(draft, source_caption="a caption", scores={"clip": 0.5})


def bare(step: Builder[Any], inputs: Drawn, batch_size: int) -> float:
    """Seconds a sample of nothing but `make`."""
    step.configure_model()
    samples: list[Any] = [inputs[index].sample for index in range(inputs.count)]
    start = time.perf_counter()
    with torch.no_grad():
        for first in range(0, inputs.count, batch_size):
            step.make(samples[first : first + batch_size])
    return (time.perf_counter() - start) / inputs.count


def whole(step: Builder[Any], inputs: Drawn, batch_size: int, num_workers: int) -> tuple[float, float]:
    """Seconds and processor seconds a sample of the run, from the trainer's start to the funnel."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", devices=1, **quiet)
    step.trainer = trainer  # whose precision its settings tell
    loader = step.feed(inputs, batch_size, num_workers)
    start, busy = time.perf_counter(), time.process_time()
    trainer.predict(step, loader, return_predictions=False)
    return (time.perf_counter() - start) / inputs.count, (time.process_time() - busy) / inputs.count


def ledger_seconds(folder: Path, units: int) -> float:
    """Claim, finish and let go every unit; the shard itself, which costs the same without a ledger, is left out."""
    ledger = Ledger(folder, units)
    start = time.perf_counter()
    for unit in ledger.unfinished():
        assert ledger.claim(unit) and ledger.holds(unit)
        (folder / f"shard-{unit:06d}.parquet").touch()
        ledger.release(unit)
    assert not ledger.unfinished()
    return time.perf_counter() - start


def write_rows(folder: Path, rows: int, shard_size: int = 256) -> None:
    """Write a manifest without its tars: scores, members, and a lineage of five steps of 300 letters."""
    lineage = {step: {"version": 1, "settings": "x" * 300} for step in ("read", "caption", "edit", "carry", "filter")}
    draft = Draft("key", Clip(np.zeros((25, 3, 8, 8), np.uint8), 8.0), instruction="make it snowy", lineage=lineage)
    members = [{"name": f"{side}.mp4", "offset": 0, "size": 9, "sha256": "0" * 64} for side in ("source", "edited")]
    stored = {"tar_sha256": "0" * 64, "tar_bytes": 9, "members": members}
    part = to_table(
        {
            **to_row({**describe(draft), "scores": {"judge": number % 6, "epe_px": number % 7 / 2}}, **stored),
            "accepted": number % 6 >= 3,
            "reason": "" if number % 6 >= 3 else "the judge gives less than 3",
        }
        for number in range(shard_size)
    )
    for shard in range(rows // shard_size):
        columns = {
            "key": [f"clip{shard * shard_size + number:08d}" for number in range(shard_size)],
            "shard": [f"shard-{shard:06d}.tar"] * shard_size,
        }
        for name, values in columns.items():
            part = part.set_column(part.schema.get_field_index(name), name, pa.array(values))
        pq.write_table(part, folder / f"shard-{shard:06d}.parquet", compression="zstd")


def query_seconds(folder: Path, how: str) -> None:
    """Print how long it takes to open a manifest and to find the rows of some clauses."""
    for where in ("true", "judge >= 4 and epe_px <= 1", "key like '%77%' and origin = 'real'"):
        start = time.perf_counter()
        manifest = open_manifest(folder)
        found = manifest.query(where, ["key", "origin"])
        seconds = time.perf_counter() - start
        print(f"manifest of {manifest.length} rows, {how}: {where!r} keeps {len(found)} in {seconds:.2f} s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What a builder costs beside the bare calls of its step.")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--units", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "lightning", "pyarrow"))
    print(f"{date.today()}, {platform.machine()}, Python {platform.python_version()}, {packages}")
    steps: dict[str, tuple[Callable[[Path], Builder[Any]], Drawn, int]] = {
        "encodes": (partial(EncodeLatents, base="toy", frames=9, min_psnr_db=0), Drawn(arguments.samples, True), 4),
        **{
            f"{'computes' if compute else 'waits'} {seconds} s": (
                partial(Step, seconds=seconds, compute=compute),
                Drawn(arguments.samples),
                1,
            )
            for seconds in (0.1, 0.02)
            for compute in (False, True)
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, (made, inputs, batch_size) in steps.items():
            for workers in (0, 2):
                step = made(Path(folder) / f"{name}, {workers} workers")
                alone = bare(step, inputs, batch_size)
                run, busy = whole(step, inputs, batch_size, workers)
                print(
                    f"{step.output.name}: make {1e3 * alone:.2f} ms, run {1e3 * run:.2f} ms a sample: "
                    f"overhead {100 * (run / alone - 1):.1f}%, {1e3 * busy:.2f} ms of processor time"
                )
        seconds = ledger_seconds(Path(folder) / "ledger", arguments.units)
        print(f"ledger of {arguments.units} units: {seconds:.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder), arguments.rows)
        query_seconds(Path(folder), "in parts")
        start = time.perf_counter()
        compact(folder)
        print(f"compacted, once: {time.perf_counter() - start:.2f} s")
        query_seconds(Path(folder), "compact")


if __name__ == "__main__":
    main()
