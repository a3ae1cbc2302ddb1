"""Clips to look at, written while a model is validated or tested."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from insvie_callbacks.edit_metric import scores_of
from insvie_lightning.batch import Clip, EditBatch, EditedVideos
from insvie_lightning.nets.latents import to_uint8
from insvie_lightning.video import write_clip

DEFAULT_FPS = 8.0


class EditSamples(Callback):
    """Write source, edited and target clips of the first samples into the run folder, for `insvie report`.

    They lie in `samples/step-000100/` under the trainer's `log_dir`: `KEY.source.mp4`, `KEY.edited.mp4`,
    `KEY.target.mp4` where the batch knows them, and `samples.json` with key, instruction and scores: `psnr_db` of
    edited against target, and what the run's metrics say of the sample. Only the first process writes, so its share of
    the set is shown; samples without an edit are left out.

    Args:
        max_samples: How many samples to write each time.
        every_n_epochs: Write at every n-th epoch's validation; a test is always written.
    """

    def __init__(self, max_samples: int = 8, every_n_epochs: int = 1) -> None:
        self.max_samples = max_samples
        self.every_n_epochs = every_n_epochs
        self._entries: list[dict[str, Any]] = []
        self._run_folder = Path()
        self._folder = Path()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the run folder on every process, since `log_dir` is broadcast."""
        self._run_folder = Path(trainer.log_dir or trainer.default_root_dir)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a new list."""
        self._entries = []

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a new list."""
        self._entries = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: EditedVideos,  # type: ignore[override]
        batch: EditBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write samples of a batch until there are enough."""
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if due and not trainer.sanity_checking:
            self._write(trainer, outputs, batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: EditedVideos,  # type: ignore[override]
        batch: EditBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write samples of a batch until there are enough."""
        self._write(trainer, outputs, batch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the scores."""
        self._add_scores(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the scores."""
        self._add_scores(trainer)

    def _write(self, trainer: Trainer, edits: EditedVideos, batch: EditBatch) -> None:
        there = [i for i, key in enumerate(batch.keys) if key not in edits.missing]
        wanted = there[: max(0, self.max_samples - len(self._entries))]
        if not wanted or not trainer.is_global_zero:
            return
        self._folder = self._run_folder / "samples" / f"step-{trainer.global_step:06d}"
        source = batch.source if edits.source is None else edits.source
        target = batch.edited if edits.target is None else edits.target
        parts = {"source": source, "edited": to_uint8(edits.edited[wanted]), "target": target}
        pixels = {
            part: (clips if part == "edited" else clips[wanted]).cpu()
            for part, clips in parts.items()
            if clips is not None
        }
        for place, i in enumerate(wanted):
            key, fps = batch.keys[i], batch.fps[i] if batch.fps else DEFAULT_FPS
            for part, clips in pixels.items():
                write_clip(self._folder / f"{key}.{part}.mp4", Clip(clips[place].numpy(), fps))
            shown = {name: clips[place] for name, clips in pixels.items()}
            scores = {"psnr_db": _psnr_db(shown["edited"], shown["target"])} if "target" in shown else {}
            self._entries.append({"key": key, "instruction": batch.instructions[i], "scores": scores})
        self._list()

    def _add_scores(self, trainer: Trainer) -> None:
        values = scores_of(trainer)
        known = [entry for entry in self._entries if entry["key"] in values]
        for entry in known:
            found = values[entry["key"]]
            entry["scores"] |= {name: value for name, value in found.items() if math.isfinite(value)}
        if known:
            self._list()

    def _list(self) -> None:
        temporary = self._folder / ".samples.json.tmp"
        temporary.write_text(json.dumps(self._entries, indent=1, ensure_ascii=False), encoding="utf-8")
        os.replace(temporary, self._folder / "samples.json")


def _psnr_db(edited: Tensor, target: Tensor) -> float:
    """Return 10 log10(255^2 / MSE) of uint8 clips, with the MSE held above 1e-3: 78 dB says that they are equal."""
    mse = (edited.float() - target.float()).square().mean().clamp(min=1e-3)
    return float(10 * torch.log10(255.0**2 / mse))
