"""All that is to be known of a GPU in one command: what it can do, and edits, training and VAE beside baselines.

Command:  python benchmarks/gpu.py [--output runs/gpu] [--seconds 490] [--parts calibrate edit ...]
Hardware: one GPU of 80 GB or more, in under nine minutes; with --tiny any CPU, a minute.
Needs:    torch, diffusers, transformers, peft, lightning, lpips and av; no weights, no data, no network.
Result:   results.json and results.txt in the output folder (by default $OUT, or runs/gpu), written anew after every
          part, so that a run that is cut off leaves what it has; and the table on the screen.

Parts, in this order, each in a box of time; what one leaves is the next one's. All but the last two fit into nine
minutes; what is not reached is told, and another command with `--parts` does it:
    calibrate   large products, copies, every kernel of attention, 3-D convolutions in both layouts, fp8 products:
                `mfu` is the share of the best bfloat16 product found here; without this part, of the data sheet
    edit        the exact ways of `edit.py`, 25 frames; also all 50 steps of `stock` and `ours`
    train       `train.py`, 25 frames, the authors' batch of 2
    vae         `vae.py`, 25 frames
    edit fast   `stock`, and ours that leaves work out
    edit long   `stock` and `ours`, 49 frames
    train more  ours on cached latents in a batch of 4
    train long  `factory no AC` and `ours cached`, 49 frames, batch 1
Clocks, power and temperature are read by `nvidia-smi` once a second; no setting of the accelerator is changed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import edit
import torch
import train
import vae
from calibrate import best_product, calibrate, calibration_table
from real_size import Setting, machine, read_setting
from timing import free

GOALS: dict[str, tuple[tuple[str, ...], str, float]] = {
    "edit of 25 frames, exact, s": (("edit", "ways", "ours", "edit_seconds"), "<=", 13.9),
    "its peak memory, GB": (("edit", "ways", "ours", "memory_gb"), "<=", 20.0),
    "times as fast as stock diffusers": (("edit", "ratios", "exact against stock"), ">=", 1.2),
    "edit of 25 frames, fast, s": (("edit fast", "ways", "ours fast", "edit_seconds"), "<=", 6.5),
    "times as fast as stock diffusers, fast": (("edit fast", "ratios", "fast against stock"), ">=", 2.5),
    "edit of 49 frames, exact, s": (("edit long", "ways", "ours", "edit_seconds"), "<=", 36.0),
    "training, 25 frames, cached, samples/s": (("train", "ways", "ours cached", "samples_per_second"), ">=", 3.6),
    "the same in a batch of 4, samples/s": (("train more", "ways", "ours cached", "samples_per_second"), ">=", 3.6),
    "training, 25 frames, online, samples/s": (("train", "ways", "ours online", "samples_per_second"), ">=", 1.6),
    "training, 49 frames, cached, samples/s": (("train long", "ways", "ours cached", "samples_per_second"), ">=", 1.27),
    "times as fast as released, cached": (("train", "ratios", "cached against as released"), ">=", 4.0),
    "times as fast as released, online": (("train", "ratios", "online against as released"), ">=", 1.8),
    "encoding 25 frames, s": (("vae", "ways", "encode, ours", "seconds"), "<=", 0.19),
    "decoding 25 frames, s": (("vae", "ways", "decode, ours", "seconds"), "<=", 0.41),
    "apart from stock diffusers at the first step": (("edit", "guards", "ours and stock", "first_step"), "<=", 1e-2),
    "cosine with its pixels": (("edit", "guards", "ours and stock", "pixels_cosine"), ">=", 0.999),
    "apart from the factory's loss": (("train", "guards", "ours cached and factory no AC", "loss"), "<=", 1e-3),
    "cosine with its gradients": (
        ("train", "guards", "ours cached and factory no AC", "gradient_cosine"), ">=", 0.995
    ),
}  # fmt: skip
"""What is asked of an H200, and of the guards: where it stands in the results, and what it should be."""
SENSORS = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu", "utilization.gpu")
GRACE_SECONDS = 15.0


@dataclass(frozen=True)
class Part:
    """A part of the programme.

    Attributes:
        seconds: Its box, of `PLANNED_SECONDS` in all.
        run: Measures until a time; returns what it found.
        table: That for people.
    """

    seconds: float
    run: Callable[[Setting, float], dict[str, Any]]
    table: Callable[[Mapping[str, Any]], list[str]]


FAST = ("stock", "ours short", *edit.WHOLE)
LONG = {"edit": ("stock", "ours"), "train": ("factory no AC", "ours cached")}
PARTS = {
    "calibrate": Part(30, calibrate, calibration_table),
    "edit": Part(
        155, lambda on, until: edit.measure(on, 6, 2, None, (*edit.EXACT, "offload"), until, whole=True), edit.table
    ),
    "train": Part(145, lambda on, until: train.measure(on, 2, 3, until=until, warm_up=1), train.table),
    "vae": Part(25, lambda on, until: vae.measure(on, 3, until=until), vae.table),
    "edit fast": Part(85, lambda on, until: edit.measure(on, 6, 1, only=FAST, until=until), edit.table),
    "edit long": Part(
        60, lambda on, until: edit.measure(on, 3, 2, on.size.long_frames, LONG["edit"], until), edit.table
    ),
    "train more": Part(60, lambda on, until: train.measure(on, 4, 3, only=("ours cached",), until=until), train.table),
    "train long": Part(
        60, lambda on, until: train.measure(on, 1, 3, on.size.long_frames, LONG["train"], until), train.table
    ),
}
PLANNED_SECONDS = 500.0
"""What the boxes are made for."""


@contextmanager
def ended_cleanly() -> Iterator[None]:
    """Let a request to end (SIGTERM), as of a time limit, end the program within as an exception does."""

    def leave(*_: Any) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise TimeoutError within, after so many seconds."""

    def ring(*_: Any) -> None:
        raise TimeoutError("the time of this part is over")

    before = signal.signal(signal.SIGALRM, ring)
    another = signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.1))
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *another)


class Sensors:
    """Reads clocks, power and temperature of the first GPU once a second, and changes nothing; none where none is.

    Args:
        file: Where the readings go.
    """

    def __init__(self, file: Path) -> None:
        self.file, self._read = file, 0
        query = [f"--query-gpu={','.join(SENSORS)}", "--format=csv,noheader,nounits", "--loop-ms=1000", "--id=0"]
        self._process: subprocess.Popen[bytes] | None = None
        with file.open("wb") as readings, suppress(OSError):  # no such program
            self._process = subprocess.Popen(["nvidia-smi", *query], stdout=readings, stderr=subprocess.DEVNULL)

    def since(self) -> dict[str, list[float]]:
        """Least, median and greatest of every reading since the last time."""
        lines = self.file.read_text(encoding="utf-8").splitlines()
        fresh, self._read = lines[self._read :], len(lines)
        rows = [row for row in map(_numbers, fresh) if row]
        return {
            name: [min(values), statistics.median(values), max(values)]
            for name, values in zip(SENSORS, zip(*rows, strict=True), strict=False)
        }

    def close(self) -> None:
        """End the readings."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        self.file.unlink()


def _numbers(line: str) -> tuple[float, ...]:
    try:
        values = tuple(float(value) for value in line.split(","))
    except ValueError:  # what a GPU does not tell, or half a line
        return ()
    return values if len(values) == len(SENSORS) else ()


def run(setting: Setting, folder: Path, names: list[str], seconds: float) -> dict[str, Any]:
    """Run the parts of these names, writing after each what there is."""
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    results: dict[str, Any] = {"benchmark": "gpu", "machine": machine(setting), "sensors": {}, "seconds": {}}
    box, share = 0.0, seconds / PLANNED_SECONDS
    with ended_cleanly(), closing(Sensors(folder / ".sensors")) as sensors:
        for name in names:
            box += PARTS[name].seconds * share
            began, until = time.perf_counter(), start + min(box, seconds)
            if began > until - 0.3 * PARTS[name].seconds * share:
                results[name] = {"failed": "no time was left"}
            else:
                results[name] = one_part(PARTS[name], setting, until)
            if name == "calibrate":
                setting = replace(setting, peak_tflops=best_product(results[name]) or setting.peak_tflops)
            results["seconds"][name] = round(time.perf_counter() - began, 1)
            results["sensors"][name] = sensors.since()
            results["goals"] = {} if setting.size.name == "tiny" else goals(results)
            write(results, folder)
            free(setting)
            torch._dynamo.reset()
            print(f"{name}: {results['seconds'][name]} s", flush=True)
    return results


def one_part(part: Part, setting: Setting, until: float) -> dict[str, Any]:
    """What a part finds, or why it found nothing."""
    try:
        with alarm(until - time.perf_counter() + GRACE_SECONDS):
            return part.run(setting, until)
    except Exception as error:  # the other parts are worth having
        return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]}


def goals(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Every goal that was measured: the value, what it should be, and whether it is."""
    told = {}
    for what, (keys, sign, limit) in GOALS.items():
        value: Any = results
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            told[what] = {
                "value": value,
                "goal": f"{sign} {limit}",
                "met": value <= limit if sign == "<=" else value >= limit,
            }
    return told


def lines(results: Mapping[str, Any]) -> list[str]:
    """All results for people."""
    told = [results["machine"]]
    for name, part in PARTS.items():
        if name not in results:
            continue
        told += ["", f"{name} ({results['seconds'][name]} s)"]
        told += [f"  {results[name]['failed']}"] if "failed" in results[name] else part.table(results[name])
        told += [f"  {sensor}: {low:g} to {high:g}, median {middle:g}"
                 for sensor, (low, middle, high) in results["sensors"][name].items()]  # fmt: skip
    if results["goals"]:
        told += ["", "goals, of an H200"]
    return told + [
        f"  {'met ' if goal['met'] else 'MISSED'} {what}: {goal['value']} ({goal['goal']})"
        for what, goal in results["goals"].items()
    ]


def write(results: Mapping[str, Any], folder: Path) -> None:
    """Write both files, each whole or not at all."""
    for name, text in (("results.json", json.dumps(results, indent=1)), ("results.txt", "\n".join(lines(results)))):
        part = folder / f".{name}.part"
        part.write_text(text + "\n", encoding="utf-8")
        os.replace(part, folder / name)


def main(argv: list[str] | None = None) -> int:
    """Read the command line; 1 where a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(os.environ.get("OUT") or "runs/gpu"), help="a folder")
    parser.add_argument("--seconds", type=float, default=490.0, help="of all parts; default 490")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default all")
    args, setting = read_setting(parser, argv)
    results = run(setting, args.output, [name for name in PARTS if name in args.parts], args.seconds)
    print("\n".join(lines(results)))
    return int(any("failed" in results[name] for name in args.parts))


if __name__ == "__main__":
    sys.exit(main())
