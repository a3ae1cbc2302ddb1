"""How long the command line takes to answer, beside a program that imports what it may need before it reads a word.

Command:  python benchmarks/startup.py [--repeats 5] [--no-fit]
Hardware: any CPU; a minute.
Result:   a line a command: median seconds of CPU time and of the clock, the ratio to the eager program, and a line of
          JSON. The last is a whole `insvie fit` of one step of the toy model: start, data, model, step, save, exit.

Commands run in turn, each in a process of its own. `eager` imports torch, Lightning, diffusers and transformers and the
classes that an editor needs from them, and prints a help text.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

EAGER = """
import argparse, torch, lightning.pytorch, peft, webdataset
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from transformers import T5EncoderModel
argparse.ArgumentParser().print_help()
"""
LIGHT = "import sys, insvie_lightning; assert 'torch' not in sys.modules"
INSVIE = str(Path(sys.executable).with_name("insvie"))
COMMANDS: dict[str, list[str]] = {
    "eager": [sys.executable, "-c", EAGER],
    "import insvie_lightning": [sys.executable, "-c", LIGHT],
    "insvie --version": [INSVIE, "--version"],
    "insvie --help": [INSVIE, "--help"],
    "insvie list": [INSVIE, "list"],
    "insvie fit --help": [INSVIE, "fit", "--help"],
}
BUILD = "predict -c build_toy --model.output {folder}/data --data.samples 32 --trainer.default_root_dir {folder}/build"
FIT = (
    "fit -c s1 -c toy --data.shards {folder}/data --trainer.max_steps 1 --trainer.default_root_dir {folder}/run "
    "--trainer.logger.init_args.save_dir {folder}/run"
)


def seconds(command: list[str]) -> tuple[float, float]:
    """Run a command; return the CPU time and the time of the clock that it took."""
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    wall, after = time.perf_counter() - start, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return cpu, wall


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="default 5")
    parser.add_argument("--no-fit", action="store_true", help="leave the toy training out")
    args = parser.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "lightning", "diffusers", "transformers"))
    print(f"{date.today()}, {platform.machine()}, Python {platform.python_version()}, {packages}")
    commands = dict(COMMANDS)
    with tempfile.TemporaryDirectory() as folder:
        if not args.no_fit:
            seconds([INSVIE, *BUILD.format(folder=folder).split()])
            commands["insvie fit, one toy step"] = [INSVIE, *FIT.format(folder=folder).split()]
        runs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(args.repeats):
            for name, command in commands.items():
                runs[name].append(seconds(command))
    cpu = {name: statistics.median(run[0] for run in found) for name, found in runs.items()}
    wall = {name: statistics.median(run[1] for run in found) for name, found in runs.items()}
    for name in commands:
        print(f"{name:26}{cpu[name]:8.2f} s CPU{wall[name]:8.2f} s  1/{cpu['eager'] / cpu[name]:.1f}")
    print(json.dumps({"benchmark": "startup", "cpu_seconds": cpu, "seconds": wall}))


if __name__ == "__main__":
    main()
