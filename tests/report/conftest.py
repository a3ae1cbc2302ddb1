"""A run of every part and a data set, synthetic."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from insvie_lightning.batch import Clip, Triplet
from insvie_lightning.shards.write import ShardWriter
from insvie_lightning.video import write_clip

COLOURS = {"red": (220, 60, 50), "blue": (50, 90, 220), "green": (60, 170, 90), "yellow": (235, 190, 60)}
SCRIPT = "<script>alert('instruction')</script>"


def square(colour: str | None, shift: int = 0) -> Clip:
    """A coloured square that moves over a quiet ground: 9 frames of 64 x 96."""
    frames = np.full((9, 3, 64, 96), 205, np.uint8)
    for i, frame in enumerate(frames):
        left = 10 + 6 * i + shift
        if colour:
            frame[:, 20:44, left : left + 24] = np.array(COLOURS[colour], np.uint8)[:, None, None]
    return Clip(frames, 8.0)


def write_metrics(path: Path, steps: int, start: float, seed: int = 0) -> None:
    noise = np.random.default_rng(seed).normal(0, 0.06, steps)
    lines = ["step,epoch,train/loss,val/loss,learning_rate,samples_per_second,data_wait_share,peak_memory_mib,step_ms"]
    for step in range(0, steps, 5):
        loss = (start * np.exp(-step / 150) + 0.03) * np.exp(noise[step])
        wait, memory = 0.08 + abs(noise[step]) / 4, 1480 + step / 10
        speed = f"{40 + 40 * noise[step]:.2f},{wait:.4f},{memory:.0f},{62 + 60 * noise[step]:.1f}"
        lines.append(f"{step},{step // 100},{loss:.6f},,{1e-3 * (1 - step / steps):.6f},{speed}")
        if step % 50 == 45:
            lines.append(f"{step},{step // 100},,{loss * 1.15:.6f},,,,,")
    path.write_text("\n".join(lines) + "\n")


def write_samples(folder: Path, count: int) -> None:
    entries = []
    for i in range(count):
        old, new = list(COLOURS)[i % 4], list(COLOURS)[(i + 1) % 4]
        clips = {"source": square(old, i), "edited": square(new, i), "target": square(new, i)}
        for part, clip in clips.items():
            write_clip(folder / f"scene-{i:03d}.{part}.mp4", clip)
        entry = {
            "key": f"scene-{i:03d}",
            "instruction": f"make the {old} square {new}",
            "scores": {"psnr_db": 28.4 + i},
        }
        entries.append(entry)
    entries[0]["instruction"] = SCRIPT
    (folder / "samples.json").write_text(json.dumps(entries))


@pytest.fixture
def make_run() -> Callable[..., Path]:
    """Write a run folder of 400 steps with two folders of samples and all results."""

    def make(folder: Path, start: float = 0.9, seed: int = 0, samples: int = 3) -> Path:
        folder.mkdir(parents=True)
        write_metrics(folder / "metrics.csv", 400, start, seed)
        (folder / "config.yaml").write_text(f"seed_everything: {seed}\nmodel:\n  class_path: InsViE # <b>bold</b>\n")
        summary = {
            "recolour_accuracy": 0.971,
            "removal_accuracy": 0.81,
            "psnr_db": 28.42,
            "copy_recolour_accuracy": 0.0,
            "copy_removal_accuracy": 0.0,
            "copy_psnr_db": 18.6,
            "untrained_recolour_accuracy": 0.15,
            "untrained_removal_accuracy": 0.29,
            "untrained_psnr_db": 12.85,
            "wrong_text_recolour_accuracy": 0.09,
            "no_source_psnr_db": 11.2,
            "sampler_steps": 10,
            "checkpoint": "last.ckpt",
        }
        (folder / "summary.json").write_text(json.dumps(summary))
        for step in (200, 400):
            write_samples(folder / f"samples/step-{step:06d}", samples)
        return folder

    return make


@pytest.fixture
def make_dataset() -> Callable[..., Path]:
    """Write shards of accepted samples of three origins, and rejected ones with reasons."""

    def make(folder: Path, count: int = 12) -> Path:
        rng = np.random.default_rng(0)
        with ShardWriter(folder, shard_size=8) as writer:
            for i in range(count):
                old, new = list(COLOURS)[i % 4], list(COLOURS)[(i + 1) % 4]
                triplet = Triplet(
                    key=f"real-{i:03d}",
                    source=square(old, i),
                    edited=square(new if i % 3 else None, i),
                    instruction=f"make the {old} square {new}" if i % 3 else f"remove the {old} square",
                    origin=("real", "static", "pair", "real")[i % 4],
                    dataset="toy",
                    edit_type="recolour" if i % 3 else "remove",
                    scores={"judge": float(rng.integers(3, 6)), "epe_px": float(rng.gamma(2.0, 0.4))},
                )
                writer.write(triplet)
            for i in range(count // 2):
                reason = f"judge {1 + i % 2} is below 4" if i % 3 else "epe_px 3.2 is above 2"
                writer.reject(f"bad-{i:03d}", reason, instruction=f"make {SCRIPT} green")
        return folder

    return make
