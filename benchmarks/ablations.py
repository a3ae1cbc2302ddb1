"""InsViE's ablations (paper 5.4 and 10) in the toy world: what each part of the recipe is worth, with its spread.

Command:  python benchmarks/ablations.py [--steps-scale 0.05] [--seeds 3] [--only no_judge no_flow] [--folder DIR]
Hardware: two CPU cores, two and a half hours. May be killed at any time and run again: a run whose scores are in the
          file of results is not made anew, and results of other settings are refused. With that file (`--results`) the
          work may go on on another machine.
Result:   a table of the differences to the full recipe, seed by seed: mean and standard deviation of recolour accuracy,
          removal accuracy and PSNR on held-out scenes, written to `benchmarks/ablations.md` whatever it says.

A run ends with the weights of `insvie fit -c curriculum -c toy -c ablations/NAME`, tested by `insvie test -c test_toy`.
It is trained stage by stage, which is the same to the last bit, so that stages which ablations have in common are
trained once. All share one data set, half of which is flawed in the ways that the filters are there for, as cached
latents with the edited videos that LPIPS compares with. As many runs are made at a time as there are cores, each on one
of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any

import yaml

from insvie_lightning.config import config_root
from insvie_lightning.errors import InputError, nearest

FULL = "full"
OVERLAYS: dict[str, tuple[str, ...]] = {
    FULL: ("full",),
    "no_judge": ("no_judge",),
    "no_flow": ("no_flow",),
    "stage_1": ("stage_1",),
    "stages_1_2": ("stages_1_2",),
    "ratio_0_1": ("ratio_0_1",),
    "ratio_05_1": ("ratio_05_1",),
    "ratio_1_1": ("ratio_1_1",),
    "no_lpips": ("full", "no_lpips"),
}
"""Ablation -> the overlays of `configs/ablations` that make it."""
SCORES = ("recolour_accuracy", "removal_accuracy", "psnr_db")


@dataclass(frozen=True)
class Settings:
    """What all runs have in common; results of other settings are not comparable."""

    steps_scale: float = 0.05
    samples: int = 4096
    flawed: float = 0.5
    test_samples: int = 256
    batch_size: int = 16


@dataclass(frozen=True)
class Run:
    """One ablation with one seed."""

    name: str
    seed: int


@dataclass(frozen=True)
class Result:
    """What came of a run.

    Attributes:
        scores: By the names of `SCORES`.
        seconds: Its test took, and those stages that no other run had trained before.
    """

    scores: dict[str, float]
    seconds: float


def read_results(path: Path, settings: Settings) -> dict[Run, Result]:
    """What earlier times have made, from a file with a line of JSON for each run; nothing if there is none.

    Raises:
        InputError: The earlier times had other settings.
    """
    found: dict[Run, Result] = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        told = json.loads(line)
        if told["settings"] != asdict(settings):
            raise InputError(f"{path} has the settings {told['settings']}; choose another --results for other ones")
        found[Run(told["name"], told["seed"])] = Result(told["scores"], told["seconds"])
    return found


def write_results(path: Path, settings: Settings, results: Mapping[Run, Result]) -> None:
    """Write what `read_results` reads."""
    told = ({**asdict(run), **asdict(result), "settings": asdict(settings)} for run, result in results.items())
    _write(path, "".join(json.dumps(line) + "\n" for line in told))


def make(run: Run, settings: Settings, folder: Path) -> Result:
    """Train and test once.

    Raises:
        RuntimeError: A command failed.
    """
    own = folder / run.name / f"seed-{run.seed}"
    weights, trained = train(stages_of(run.name), run.seed, settings, folder)
    test, quiet = own / "test", own / "test.yaml"
    callbacks = [{"class_path": "ToyScores", "init_args": {"baselines": False}}, "Summary"]
    _write(quiet, yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    tested = _insvie(
        f"test -c test_toy -c {quiet} --model.start_from {weights} --data.test_samples {settings.test_samples} "
        f"{_seeds(run.seed)} {_into(test)}",
        own / "test.log",
    )
    summary = json.loads((test / "summary.json").read_text())
    return Result({name: float(summary[name]) for name in SCORES}, round(trained + tested, 1))


@dataclass(frozen=True)
class Stage:
    """One stage of an ablation, as `Curriculum` takes it, and its weight of LPIPS."""

    name: str
    steps: int
    where: str
    static_to_real: str | None = None
    lpips_weight: float = 0.0


def stages_of(name: str) -> tuple[Stage, ...]:
    """Read the stages of an ablation from its overlays."""
    weights: float | list[float] = 0.0
    stages: list[dict[str, Any]] = []
    for overlay in OVERLAYS[name]:
        recipe = yaml.safe_load((config_root() / f"ablations/{overlay}.yaml").read_text())
        weights = recipe.get("model", {}).get("init_args", {}).get("lpips_weight", weights)
        stages = recipe.get("data", {}).get("init_args", {}).get("stages", stages)
    each = weights if isinstance(weights, list) else [weights] * len(stages)
    return tuple(Stage(**stage, lpips_weight=float(weight)) for stage, weight in zip(stages, each, strict=True))


_training: defaultdict[Path, Lock] = defaultdict(Lock)


def train(stages: Sequence[Stage], seed: int, settings: Settings, folder: Path) -> tuple[Path, float]:
    """Train the last of some stages on the weights of those before it, unless that was done.

    Returns:
        Its weights, and the seconds that were spent now.

    Raises:
        RuntimeError: The command failed.
    """
    told = json.dumps([[asdict(stage) for stage in stages], seed, asdict(settings)])
    digest = hashlib.sha256(told.encode()).hexdigest()[:8]
    own = folder / "stages" / f"{'-'.join(stage.name for stage in stages)}-seed-{seed}-{digest}"
    done, weights, recipe = own / "done.json", own / "fit" / "weights", own / "stage.yaml"
    with _training[own]:
        if done.is_file():
            return weights, 0.0
        before, seconds = train(stages[:-1], seed, settings, folder) if stages[1:] else (None, 0.0)
        start = f"--model.start_from {before}" if before else ""
        shutil.rmtree(own, ignore_errors=True)  # what a run that was stopped has left
        _write(recipe, yaml.safe_dump(feed(stages[-1], folder), sort_keys=False))
        seconds += _insvie(
            f"fit -c curriculum -c toy -c {recipe} {start} --data.steps_scale {settings.steps_scale} "
            f"--data.batch_size {settings.batch_size} --data.seed {seed} --trainer.max_steps -1 {_seeds(seed)} "
            f"{_into(own / 'fit')}",
            own / "fit.log",
        )
        _write(done, told + "\n")
    return weights, seconds


def feed(stage: Stage, folder: Path) -> dict[str, Any]:
    """Return an overlay that trains one stage."""
    query = {name: value for name, value in asdict(stage).items() if name != "lpips_weight"}
    return {
        "model": {"init_args": {"lpips_weight": stage.lpips_weight}},
        "data": {"init_args": {"shards": str(folder / "latents"), "stages": [query]}},
    }


def build_data(settings: Settings, folder: Path) -> None:
    """Draw the toy world once for all runs, flawed samples included, and encode it; a rerun finishes what is there."""
    _insvie(
        f"predict -c build_toy --model.output {folder / 'data'} --model.flawed {settings.flawed} "
        f"--model.keep_wrong true --data.samples {settings.samples} --trainer.default_root_dir {folder / 'build'} "
        "--trainer.enable_progress_bar false",
        folder / "build.log",
    )
    _insvie(
        f"predict -c build_latents --model.base toy --data.shards {folder / 'data'} --model.output "
        f"{folder / 'latents'} --model.frames 9 --model.size [64,96] --model.dtype float32 --model.posterior mean "
        "--model.keep_edited true --data.batch_size 64 --data.num_workers 0 --trainer.accelerator cpu "
        f"--trainer.devices 1 --trainer.precision 32-true --trainer.default_root_dir {folder / 'encode'} "
        "--trainer.enable_progress_bar false",
        folder / "encode.log",
    )


def compare(results: Mapping[Run, Result]) -> list[str]:
    """Return the table: the full recipe's scores, then each ablation's differences to it, by seeds that both have."""
    seeds = sorted(run.seed for run in results if run.name == FULL)
    full = {name: [results[Run(FULL, seed)].scores[name] for seed in seeds] for name in SCORES}
    lines = [
        f"| recipe | seeds | {' | '.join(SCORES)} |",
        f"|---|---|{'---|' * len(SCORES)}",
        f"| {FULL} | {len(seeds)} | {' | '.join(_spread(full[name]) for name in SCORES)} |",
    ]
    for ablation in OVERLAYS:
        paired = [seed for seed in seeds if Run(ablation, seed) in results]
        if ablation == FULL or not paired:
            continue
        cells = []
        for name in SCORES:
            pairs = [(results[Run(ablation, seed)], results[Run(FULL, seed)]) for seed in paired]
            differences = [run.scores[name] - other.scores[name] for run, other in pairs]
            worse = sum(difference < 0 for difference in differences)
            cells.append(f"{_spread(differences, '+')}, {worse} of {len(paired)} worse")
        lines.append(f"| {ablation} | {len(paired)} | {' | '.join(cells)} |")
    return lines


def report(results: Mapping[Run, Result], failed: Iterable[str], settings: Settings) -> str:
    """Return the whole text: how it was made, the table, and what failed."""
    seconds = sum(result.seconds for result in results.values())
    packages = ", ".join(f"{name} {version(name)}" for name in ("insvie-lightning", "torch", "lightning"))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    options = ", ".join(f"{name} {value:g}" for name, value in asdict(settings).items())
    return "\n".join(
        [
            "# Ablations in the toy world",
            "",
            f"`python benchmarks/ablations.py`, {date.today():%d %B %Y}, {machine}, {packages}.",
            f"{len(results)} runs, {seconds / 3600:.1f} h; {options}.",
            "",
            "Scores of the full recipe, then differences to it at the same seed: mean +- standard deviation of seeds.",
            "The paper has every ablation worse than the full recipe, but for other scores and at full size.",
            "",
            *compare(results),
            *(["", "Failed:", "", *(f"- {line}" for line in failed)] if failed else []),
            "",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Make all runs that are not there, seed by seed, and write the table after each; return 1 if one failed."""
    defaults = Settings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--results", type=Path, help="of all runs; default: results.jsonl of the folder")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"), help="of the table")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time; default: one a core")
    parser.add_argument("--only", nargs="+", metavar="NAME", default=list(OVERLAYS), help="and always the full recipe")
    for name, value in asdict(defaults).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    arguments = parser.parse_args(argv)
    for name in arguments.only:
        if name not in OVERLAYS:
            raise InputError(f"no ablation {name!r}; legal are {', '.join(OVERLAYS)}{nearest(name, OVERLAYS)}")
    settings = Settings(**{name: getattr(arguments, name) for name in asdict(defaults)})
    chosen = [name for name in OVERLAYS if name == FULL or name in arguments.only]
    folder = arguments.folder
    made = arguments.results or folder / "results.jsonl"
    results = read_results(made, settings)
    failed: list[str] = []
    runs = [Run(name, seed) for seed in range(arguments.seeds) for name in chosen]
    if missing := [run for run in runs if run not in results]:
        build_data(settings, folder)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        making = {pool.submit(make, run, settings, folder): run for run in missing}
        for done in as_completed(making):
            run = making[done]
            try:
                results[run] = done.result()
            except Exception as error:  # the other runs of a long night are worth having
                failed.append(f"{run.name}, seed {run.seed}: {error}")
            write_results(made, settings, results)
            if Run(FULL, 0) in results:
                _write(arguments.output, report(results, failed, settings))
    print("\n".join([*compare(results), *failed]) if Run(FULL, 0) in results else "\n".join(failed))
    return 1 if failed else 0


def _seeds(seed: int) -> str:
    return f"--seed_everything {seed} --model.seed {seed}"


def _into(folder: Path) -> str:
    quiet = "--trainer.enable_progress_bar false --trainer.enable_model_summary false"
    return f"{quiet} --trainer.default_root_dir {folder} --trainer.logger.init_args.save_dir {folder}"


def _insvie(arguments: str, log: Path) -> float:
    """Run a command on one core; return its seconds."""
    print(f"$ insvie {' '.join(arguments.split())}", flush=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [str(Path(sys.executable).with_name("insvie")), *arguments.split()]
    start = time.monotonic()
    one_core = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    with log.open("w") as output:
        status = subprocess.run(command, stdout=output, stderr=output, env={**os.environ, **one_core}).returncode
    if status:
        raise RuntimeError(f"insvie {arguments.split()[0]} ended with status {status}; see {log}")
    return round(time.monotonic() - start, 1)


def _spread(values: Sequence[float], sign: str = "") -> str:
    deviation = f"{statistics.stdev(values):.3f}" if len(values) > 1 else "?"
    return f"{statistics.mean(values):{sign}.3f} +- {deviation}"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


if __name__ == "__main__":
    raise SystemExit(main())
