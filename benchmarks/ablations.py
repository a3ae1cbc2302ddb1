"""InsViE's ablations (paper 5.4 and 10) in the toy world: what each part of the recipe is worth, with its spread.

Command:  python benchmarks/ablations.py [--steps-scale 0.05] [--seeds 3] [--only no_judge no_flow] [--folder DIR]
Hardware: two CPU cores. May be killed at any time and run again: a run that has its `result.json` is not made anew,
          and results of other settings are refused.
Result:   a table of the differences to the full recipe, seed by seed: mean and standard deviation of recolour accuracy,
          removal accuracy and PSNR on held-out scenes, written to `benchmarks/ablations.md` whatever it says.

A run ends with the weights of `insvie fit -c curriculum -c toy -c ablations/NAME`, tested by `insvie test -c test_toy`.
It is trained stage by stage, which is the same to the last bit, so that stages which ablations have in common are
trained once. All share one data set, half of which is flawed in the ways that the filters are there for. Stages that
need no pixels are fed with its cached latents. As many runs are made at a time as there are cores, each on one of them.
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

    def result(self, folder: Path) -> Path:
        """Where its scores are written when it is done."""
        return folder / self.name / f"seed-{self.seed}" / "result.json"


def make(run: Run, settings: Settings, folder: Path) -> dict[str, float]:
    """Train and test once, or read the scores of an earlier time.

    Raises:
        InputError: The earlier time had other settings.
        RuntimeError: The command failed.
    """
    path = run.result(folder)
    if path.is_file():
        earlier = json.loads(path.read_text())
        if earlier["settings"] != asdict(settings):
            raise InputError(f"{path} has the settings {earlier['settings']}; choose another --folder for other ones")
        scores: dict[str, float] = earlier["scores"]
        return scores
    stages = stages_of(run.name)
    weights = train(stages, run.seed, settings, folder)
    test, quiet = path.parent / "test", path.with_name("test.yaml")
    callbacks = [{"class_path": "ToyScores", "init_args": {"baselines": False}}, "Summary"]
    _write(quiet, yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    seconds = _insvie(
        f"test -c test_toy -c {quiet} --model.start_from {weights} --data.test_samples {settings.test_samples} "
        f"{_seeds(run.seed)} {_into(test)}",
        path.with_name("test.log"),
    )
    summary = json.loads((test / "summary.json").read_text())
    scores = {name: float(summary[name]) for name in SCORES}
    _write(path, json.dumps({"scores": scores, "seconds": seconds, "settings": asdict(settings)}, indent=1) + "\n")
    return scores


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


def train(stages: Sequence[Stage], seed: int, settings: Settings, folder: Path) -> Path:
    """Train the last of some stages on the weights of those before it, unless that was done; return its weights.

    Raises:
        RuntimeError: The command failed.
    """
    told = json.dumps([[asdict(stage) for stage in stages], seed, asdict(settings)])
    digest = hashlib.sha256(told.encode()).hexdigest()[:8]
    own = folder / "stages" / f"{'-'.join(stage.name for stage in stages)}-seed-{seed}-{digest}"
    done, weights, recipe = own / "done.json", own / "fit" / "weights", own / "stage.yaml"
    with _training[own]:
        if done.is_file():
            return weights
        start = f"--model.start_from {train(stages[:-1], seed, settings, folder)}" if stages[1:] else ""
        shutil.rmtree(own, ignore_errors=True)  # what a run that was stopped has left
        _write(recipe, yaml.safe_dump(feed(stages[-1], folder), sort_keys=False))
        seconds = _insvie(
            f"fit -c curriculum -c toy -c {recipe} {start} --data.steps_scale {settings.steps_scale} "
            f"--data.batch_size {settings.batch_size} --data.seed {seed} --trainer.max_steps -1 {_seeds(seed)} "
            f"{_into(own / 'fit')}",
            own / "fit.log",
        )
        _write(done, json.dumps({"stages": told, "seconds": seconds}) + "\n")
    return weights


def feed(stage: Stage, folder: Path) -> dict[str, Any]:
    """Return an overlay that trains one stage; pixels are read only where LPIPS compares with them."""
    shards = str(folder / ("data" if stage.lpips_weight else "latents"))
    query = {name: value for name, value in asdict(stage).items() if name != "lpips_weight"}
    return {
        "model": {"init_args": {"lpips_weight": stage.lpips_weight}},
        "data": {"init_args": {"shards": shards, "stages": [query]}},
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
        "--data.batch_size 64 --data.num_workers 0 --trainer.accelerator cpu --trainer.devices 1 "
        f"--trainer.precision 32-true --trainer.default_root_dir {folder / 'encode'} "
        "--trainer.enable_progress_bar false",
        folder / "encode.log",
    )


def compare(results: Mapping[Run, Mapping[str, float]]) -> list[str]:
    """Return the table: the full recipe's scores, then each ablation's differences to it, by seeds that both have."""
    seeds = sorted(run.seed for run in results if run.name == FULL)
    full = {name: [results[Run(FULL, seed)][name] for seed in seeds] for name in SCORES}
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
            differences = [results[Run(ablation, seed)][name] - results[Run(FULL, seed)][name] for seed in paired]
            worse = sum(difference < 0 for difference in differences)
            cells.append(f"{_spread(differences, '+')}, {worse} of {len(paired)} worse")
        lines.append(f"| {ablation} | {len(paired)} | {' | '.join(cells)} |")
    return lines


def report(results: Mapping[Run, Mapping[str, float]], failed: Iterable[str], settings: Settings, folder: Path) -> str:
    """Return the whole text: how it was made, the table, and what failed."""
    timed = [*folder.glob("stages/*/done.json"), *(run.result(folder) for run in results)]
    seconds = sum(json.loads(path.read_text())["seconds"] for path in timed)
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
    build_data(settings, folder)
    results: dict[Run, Mapping[str, float]] = {}
    failed: list[str] = []
    with ThreadPoolExecutor(arguments.jobs) as pool:
        runs = [Run(name, seed) for seed in range(arguments.seeds) for name in chosen]
        making = {pool.submit(make, run, settings, folder): run for run in runs}
        for done in as_completed(making):
            run = making[done]
            try:
                results[run] = done.result()
            except InputError:
                pool.shutdown(cancel_futures=True)
                raise
            except Exception as error:  # the other runs of a long night are worth having
                failed.append(f"{run.name}, seed {run.seed}: {error}")
            if Run(FULL, 0) in results:
                _write(arguments.output, report(results, failed, settings, folder))
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
