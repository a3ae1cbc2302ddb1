"""What a builder costs beside the bare calls of its step, and what its ledger and manifest cost when they are large.

Command:  python benchmarks/builder.py [--samples 500] [--units 10000] [--manifest DIR]
Hardware: any CPU; a minute.
Result:   seconds a sample of `make` alone and of the whole run (claims, lineage, storing, renaming), and their ratio,
          for a step of 20 ms that waits (as for a GPU or a server) and one that computes; with workers none and two;
          seconds to claim, finish and let go all units of a ledger; and, of a data set given with --manifest, seconds
          of a query over its rows.

Every way is run in one process, one after the other; the drafts are drawn beforehand, since reading is no overhead.
"""

from __future__ import annotations

import argparse
import logging
import platform
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
from lightning import Trainer

from insvie_lightning.batch import Clip, Draft
from insvie_lightning.builders.builder import Builder, Built
from insvie_lightning.builders.units import Input
from insvie_lightning.shards.drafts import clips_of, encode_member
from insvie_lightning.shards.ledger import Ledger
from insvie_lightning.shards.manifest import open_manifest

SECONDS = 0.02


class Drawn:
    """Drafts of a small clip that is encoded already, as an earlier step stores it."""

    def __init__(self, count: int) -> None:
        frames = np.random.default_rng(0).integers(0, 256, (9, 3, 64, 96), np.uint8)
        clip = Clip(frames, 8.0)
        name = next(iter(clips_of(Draft("x", clip))))
        self.clip, self.members = clip, {name: encode_member(name, clip)}
        self.keys = pa.chunked_array([[f"clip{index:06d}" for index in range(count)]], pa.string())
        self.reading = {"data": "Drawn"}

    def __getitem__(self, index: int) -> Input:
        return Input(Draft(f"clip{index:06d}", self.clip), self.members)


class Step(Builder[Draft]):
    """Spends 20 ms on each draft, waiting or computing, and captions it."""

    def __init__(self, output: Path, shard_size: int = 64, compute: bool = False) -> None:
        super().__init__(output, shard_size)
        self.compute = compute

    def make(self, drafts: Sequence[Draft]) -> list[Built]:
        """Caption some drafts."""
        return [self.one(draft) for draft in drafts]

    def one(self, draft: Draft) -> Draft:
        """Caption one draft."""
        end = time.perf_counter() + SECONDS
        if not self.compute:
            time.sleep(SECONDS)
        while time.perf_counter() < end:
            np.sqrt(draft.source.frames[0, 0].astype(np.float32))
        return replace(draft, source_caption="a caption", scores={"clip": 0.5})


def bare(step: Step, inputs: Drawn) -> float:
    """Seconds a sample of nothing but `make`."""
    drafts = [inputs[index].sample for index in range(len(inputs.keys))]
    start = time.perf_counter()
    for draft in drafts:
        step.make([draft])
    return (time.perf_counter() - start) / len(drafts)


def whole(step: Step, inputs: Drawn, num_workers: int) -> float:
    """Seconds a sample of the run, from the trainer's start to the funnel."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", devices=1, **quiet)
    loader = step.feed(inputs, batch_size=1, num_workers=num_workers)
    start = time.perf_counter()
    trainer.predict(step, loader, return_predictions=False)
    return (time.perf_counter() - start) / len(inputs.keys)


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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What a builder costs beside the bare calls of its step.")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--units", type=int, default=10_000)
    parser.add_argument("--manifest", type=Path, help="a data set whose manifest is queried")
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "lightning", "pyarrow"))
    print(f"{date.today()}, {platform.machine()}, Python {platform.python_version()}, {packages}")
    inputs = Drawn(arguments.samples)
    with tempfile.TemporaryDirectory() as folder:
        for compute in (False, True):
            for workers in (0, 2):
                name = f"{'computes' if compute else 'waits'}-{workers}"
                step = Step(Path(folder) / name, compute=compute)
                alone = bare(step, inputs)
                run = whole(step, inputs, workers)
                print(
                    f"{name:<11} make {1e3 * alone:.2f} ms, run {1e3 * run:.2f} ms a sample: "
                    f"overhead {100 * (run / alone - 1):.1f}%"
                )
        seconds = ledger_seconds(Path(folder) / "ledger", arguments.units)
        print(f"ledger of {arguments.units} units: {seconds:.2f} s")
    if arguments.manifest:
        for where in ("true", "instruction like '%snow%' and origin = 'real'", "key like '%0000%'"):
            start = time.perf_counter()
            rows = open_manifest(arguments.manifest).query(where, ["key", "origin"])
            print(f"{where}: {len(rows)} rows in {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main()
