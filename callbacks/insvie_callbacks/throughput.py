"""How fast training runs, and what it waits for."""

from __future__ import annotations

import sys
from collections import deque
from time import perf_counter
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from insvie_lightning.batch import EditBatch


class _Step(NamedTuple):
    samples: int
    waiting: float
    working: float


class Throughput(Callback):
    """Log `samples_per_second`, `data_wait_share`, `step_ms` and `peak_memory_mib` over a sliding window of batches.

    Samples are counted over all processes. Waiting is the time between the end of a batch and the start of the next:
    loading, and moving to the device; validation is left out of everything. On a GPU the host runs ahead of the device,
    so one step's times say little, but a window's are right, and nothing is synchronised to take them. Logging copies
    numbers to the device, so it happens only at the steps that the trainer logs (`log_every_n_steps`).

    Args:
        window: Number of batches to average over.
    """

    def __init__(self, window: int = 50) -> None:
        self._steps: deque[_Step] = deque(maxlen=window)
        self._idle_since = self._started = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count what is between epochs as neither waiting nor working."""
        self._idle_since = perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count validation as neither waiting nor working."""
        self._idle_since = perf_counter()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: EditBatch, batch_idx: int
    ) -> None:
        """Note the start of a batch."""
        self._started = perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: EditBatch, batch_idx: int
    ) -> None:
        """Take the times of a batch, and log the window at the trainer's logging steps."""
        now = perf_counter()
        samples = len(batch) * trainer.world_size
        self._steps.append(_Step(samples, self._started - self._idle_since, now - self._started))
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and trainer.global_step % every == 0:
            self._log(pl_module)
        self._idle_since = perf_counter()

    def _log(self, pl_module: LightningModule) -> None:
        samples, waiting, working = (sum(column) for column in zip(*self._steps, strict=True))
        total = waiting + working
        pl_module.log("samples_per_second", samples / total, prog_bar=True, on_step=True, on_epoch=False)
        pl_module.log("data_wait_share", waiting / total, on_step=True, on_epoch=False)
        pl_module.log("step_ms", 1000 * working / len(self._steps), on_step=True, on_epoch=False)
        pl_module.log("peak_memory_mib", _peak_memory_mib(pl_module.device), on_step=True, on_epoch=False)


def _peak_memory_mib(device: torch.device) -> float:
    """Return the most memory that tensors have held on a CUDA device; elsewhere the process's largest resident size."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource  # absent on Windows, where only a GPU is measured

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
