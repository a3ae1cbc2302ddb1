"""Runs that are stopped or killed go on bit for bit: weights, average, optimizer, losses, samples."""

import json
import os
import random
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from insvie_data_modules.stages import RankSampler
from insvie_lightning.resume.checkpoints import newest_checkpoint
from insvie_lightning.shards.order import Ratio, Runs, StreamOrder, interleave
from insvie_lightning.shards.write import ShardWriter
from insvie_lightning.toy.edits import example, to_triplet
from insvie_lightning.weights.deliverable import load_deliverable

HARNESS = Path(__file__).with_name("forked_fits.py")
STAGES = "[{name: a, steps: 3, static_to_real: '1:1'}, {name: b, steps: 3}]"
SAVING = "{class_path: RunCheckpoint, init_args: {every_n_train_steps: %d}}"
GLOO = "--trainer.strategy={class_path: DDPStrategy, init_args: {process_group_backend: gloo}}"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Static and real toy scenes."""
    folder = tmp_path_factory.mktemp("shards")
    drawn = (example("train", index) for index in range(10_000))
    with ShardWriter(folder, shard_size=5, lossless=True) as writer:
        for origin in ["static", "real"] * 6:
            sample = next(sample for sample in drawn if sample.origin == origin)
            writer.write(to_triplet(sample, 5, 32, 48))
    return folder


@pytest.fixture(scope="module")
def command(shards: Path, tiny_base: Path) -> Callable[..., list[str]]:
    """The `insvie fit` of two stages of three steps of two accumulated batches, in a run folder."""

    def make(folder: Path, *more: str, every: int = 1000) -> list[str]:
        return [
            "-c", "curriculum", "-c", "toy", f"--model.base={tiny_base}", f"--data.shards={shards}",
            f"--data.stages={STAGES}", "--data.batch_size=2", "--data.frames=5", "--data.size=[32, 48]",
            "--trainer.max_steps=-1", "--trainer.accumulate_grad_batches=2", "--trainer.log_every_n_steps=1",
            "--model.trainable=lora", "--model.lora_rank=4", "--model.lora_alpha=4", "--model.lpips_weight=0",
            "--model.warmup_steps=2", f"--trainer.callbacks=[LoraEMA, SaveEditor, {SAVING % every}]",
            "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
            f"--trainer.default_root_dir={folder}", f"--trainer.logger.init_args.save_dir={folder}", *more,
        ]  # fmt: skip

    return make


def forked(tmp_path: Path, runs: list[dict[str, Any]], timeout: float = 120) -> list[dict[str, Any]]:
    """Run fits in processes of their own; see `forked_fits.py`."""
    plan = tmp_path / f"runs{random.randrange(10**9)}.json"
    plan.write_text(json.dumps(runs))
    done = subprocess.run(
        [sys.executable, str(HARNESS), str(plan)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def recorded(record: Path, rank: int = 0) -> list[tuple[str, int, tuple[str, ...], float]]:
    lines = Path(f"{record}.{rank}").read_text().splitlines()
    return [(stage, step, tuple(keys), loss) for stage, step, keys, loss in map(json.loads, lines)]


def assert_same_end(folder: Path, straight: Path, steps: int = 6) -> None:
    """Weights, average, and all that the last checkpoints hold of optimizer, schedule and random numbers are equal."""
    one, other = (load_deliverable(path / "weights") for path in (folder, straight))
    assert one.ema_updates == other.ema_updates == steps
    assert_equal([one.raw, one.ema], [other.raw, other.ema])
    found = [newest_checkpoint((path / "checkpoints").glob("step=*.ckpt")).path for path in (folder, straight)]
    states = [torch.load(path, weights_only=True) for path in found if path]
    for name in (
        "state_dict",
        "optimizer_states",
        "lr_schedulers",
        "lora_ema",
        "Curriculum",
        "random_states",
        "cells_seen",
    ):
        assert_equal(states[0][name], states[1][name])
    assert states[0]["cells_seen"].sum() > 0


def assert_equal(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert_equal(value, other[name])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_equal(left, right)
    else:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.fixture(scope="module")
def straight(command: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of an undisturbed fit; `seen.0` in it are its batches."""
    folder = tmp_path_factory.mktemp("straight")
    (done,) = forked(folder, [{"args": command(folder), "record": str(folder / "seen")}])
    assert done["statuses"] == [0], (folder / "seen.0.log").read_text()
    assert [batch[:2] for batch in recorded(folder / "seen")] == [(s, step) for s in "ab" for step in range(6)]
    return folder


def test_killed_twice_and_rerun_by_the_same_command(command: Any, straight: Path, tmp_path: Path) -> None:
    run = {"args": command(tmp_path / "run", every=1), "record": str(tmp_path / "seen")}
    kills = [{"kill_in_save": (2, "half written")}, {"kill_in_save": (2, "flushed")}]
    first, second, third = forked(tmp_path, [*({**run, **kill} for kill in kills), run])
    assert (first["statuses"], second["statuses"], third["statuses"]) == ([-9], [-9], [0])
    said = (tmp_path / "seen.0.log").read_text()
    assert "resuming at step 1 from" in said and "skipped step=2.ckpt.part: its save was interrupted" in said
    assert_same_end(tmp_path / "run", straight)
    assert set(recorded(tmp_path / "seen")) == set(recorded(straight / "seen"))
    assert not list((tmp_path / "run/checkpoints").glob("*.part"))


@pytest.mark.proof
@pytest.mark.timeout(3600)
def test_killed_at_thirty_random_moments(command: Any, tmp_path: Path) -> None:
    draw = random.Random(0)
    stages = "--data.stages=[{name: a, steps: 60, static_to_real: '1:1'}, {name: b, steps: 60}]"
    straight = {"args": command(tmp_path / "straight", stages), "record": str(tmp_path / "straight.seen")}
    run = {"args": command(tmp_path / "run", stages, every=1), "record": str(tmp_path / "seen")}
    kills: list[dict[str, Any]] = [{"kill_after_s": draw.uniform(0, 1)} for _ in range(5)]
    kills += [{"kill_after_s": draw.uniform(0, 0.3), "in_training": True} for _ in range(10)]
    moments = ["half written", "written", "flushed", "named"]
    kills += [{"kill_in_save": (draw.choice([1, 2]), moments[number % 4])} for number in range(15)]
    draw.shuffle(kills)
    results = forked(tmp_path, [straight, *({**run, **kill} for kill in kills), run], timeout=3500)
    statuses = [result["statuses"] for result in results]
    said = (tmp_path / "seen.0.log").read_text()
    resumed, skipped = said.count("resuming at step"), said.count("skipped step=")
    seen = recorded(tmp_path / "seen")
    print(
        f"killed {statuses.count([-9])} times, resumed {resumed} times, skipped {skipped} cut saves, trained "
        f"{len(seen)} batches for 240, {sum(result['seconds'] for result in results):.0f} s"
    )
    assert statuses[0] == statuses[-1] == [0] and statuses.count([-9]) >= 28 and skipped >= 5
    assert_same_end(tmp_path / "run", tmp_path / "straight", steps=120)
    assert set(seen) == set(recorded(tmp_path / "straight.seen")) and len(set(seen)) == 240


@pytest.mark.proof
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("world", [1, 2])
def test_stopped_anywhere_and_rerun(command: Any, tmp_path: Path, world: int) -> None:
    ranks = [f"--trainer.devices={world}", f"--data.batch_size={2 // world}", *([GLOO] if world > 1 else [])]

    def run(name: str, *more: str, every: int = 1000, **options: Any) -> dict[str, Any]:
        args = command(tmp_path / name, *ranks, *more, every=every)
        return {"args": args, "record": str(tmp_path / f"{name}.seen"), "world": world, **options}

    places = [("inside a stage", 4, 15), ("border", 6, 15), ("mid-accumulation", 9, 15), ("killed", 3, 9)]
    cases = {f"{place}, {workers} workers": (workers, *at) for workers in (0, 2) for place, *at in places}
    runs = [run("straight")]
    for name, (workers, batch, signum) in cases.items():
        loading = f"--data.num_workers={workers}"
        sent = batch - (signum == 15) * (world - 1)  # two ranks agree on it while they do another batch
        runs.append(run(name, loading, every=1 if signum == 9 else 1000, signal_at=sent, signum=signum))
        runs.append(run(name, loading))
    results = forked(tmp_path, runs, timeout=3500)
    logs = {path.name: path.read_text()[-2000:] for path in tmp_path.glob("*.0.log")}
    assert results[0]["statuses"] == [0] * world, logs["straight.seen.0.log"]
    for number, (name, (_, batch, signum)) in enumerate(cases.items()):
        stopped, rerun = results[1 + 2 * number], results[2 + 2 * number]
        print(f"{world} ranks, {name}: {stopped}, {rerun}")
        if signum == 15:
            assert stopped["statuses"] == [143] + [0] * (world - 1), logs[f"{name}.seen.0.log"]
        assert rerun["statuses"] == [0] * world, logs[f"{name}.seen.0.log"]
        assert_same_end(tmp_path / name, tmp_path / "straight")
        for rank in range(world):
            seen = recorded(tmp_path / f"{name}.seen", rank)
            assert set(seen) == set(recorded(tmp_path / "straight.seen", rank)) and len(set(seen)) == 12
            assert len(seen) == 12 + batch % 2  # what was accumulated is replayed


@pytest.mark.parametrize("samples", [7_680, pytest.param(1_000_704, marks=pytest.mark.proof)])
def test_an_epoch_over_64_ranks_of_8_workers_has_every_sample_once(samples: int) -> None:
    ranks, workers, per_batch, ratio, draw = 64, 8, 2, Ratio(5, 1), np.random.default_rng(0)
    batches = samples // ranks // per_batch
    rows = {"static": samples * 5 // 6, "real": samples // 6}
    start = time.monotonic()
    tracemalloc.start()
    orders = {name: StreamOrder(Runs.of(np.sort(draw.integers(0, 1 + count // 1000, count))), 3, f"s/{name}")
              for name, count in rows.items()}  # fmt: skip
    _ = [order[0] for order in orders.values()]  # draws the epoch
    built, (_, peak) = time.monotonic() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    drawn, static = {name: np.zeros(count, int) for name, count in rows.items()}, np.zeros(samples, bool)
    resume = int(draw.integers(1, batches))
    for rank in range(ranks):
        numbers = list(RankSampler(range(samples), ranks, rank))  # type: ignore[arg-type]
        again = list(RankSampler(range(samples), ranks, rank, start=resume * per_batch))  # type: ignore[arg-type]
        assert again == numbers[resume * per_batch :]
        of_rank = [numbers[first : first + per_batch] for first in range(0, len(numbers), per_batch)]
        for worker in range(workers):  # a loader hands its batches out in turn
            for number in (number for batch in of_rank[worker::workers] for number in batch):
                stream, index = interleave(number, ratio)
                drawn[stream][orders[stream][index]] += 1
                static[number] = stream == "static"
    assert all((count == 1).all() for count in drawn.values())
    assert (np.convolve(static, np.ones(6), "valid") == 5).all()
    print(
        f"{samples} samples, {ranks} ranks x {workers} workers: orders built in {built:.2f} s with "
        f"{peak / 2**20:.0f} MiB, all drawn in {time.monotonic() - start - built:.1f} s; "
        f"resumed at batch {resume} of {batches}"
    )
