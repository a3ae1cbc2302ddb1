"""How fast training runs, and what it waits for."""

from __future__ import annotations

import re
import sys
from collections import deque
from time import perf_counter
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from insvie_lightning.batch import EditBatch

PEAK_TFLOPS = {
    "B200": 2250.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "L40": 181.0,
    "A10": 125.0,
    "RTX 4090": 165.0,
}
"""Dense bfloat16 TFLOP/s of GPUs by a word of their names, from NVIDIA's data sheets (their sparse figures halved)."""


def find_peak_tflops(device_name: str) -> float | None:
    """Dense bfloat16 TFLOP/s of a GPU by its name; None of one that is not known."""
    return next((peak for name, peak in PEAK_TFLOPS.items() if re.search(rf"\b{name}\b", device_name)), None)


class _Step(NamedTuple):
    samples: int
    waiting: float
    working: float
    tflop: float


class Throughput(Callback):
    """Log `samples_per_second`, `data_wait_share`, `step_ms` and `peak_memory_mib` over a sliding window of batches.

    Of a model with a method `flops_per_sample(batch)`, such as `InsViE`, also `tflops`, the TFLOP/s of each device that
    its samples need, and `mfu`, their share (0 to 1) of the device's peak. All but `step_ms` and `tflops` are shown in
    the bar.

    Samples are counted over all processes. Waiting is the time between the end of a batch and the start of the next:
    loading, and moving to the device; validation is left out of everything. On a GPU the host runs ahead of the device,
    so one step's times say little, but a window's are right, and nothing is synchronised to take them. They are logged
    at the steps that the trainer logs (`log_every_n_steps`), as numbers that never see the device.

    Args:
        window: Number of batches to average over.
        peak_tflops: TFLOP/s that `mfu` is a share of; None is the data sheet's dense bfloat16 peak of a known GPU, and
            no `mfu` elsewhere. A peak measured with large matrix products is 10 to 30 % lower.
    """

    def __init__(self, window: int = 50, peak_tflops: float | None = None) -> None:
        self.peak_tflops = peak_tflops
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
        count: Any = getattr(pl_module, "flops_per_sample", None)
        tflop = len(batch) * count(batch) / 1e12 if callable(count) else 0.0
        self._steps.append(_Step(samples, self._started - self._idle_since, now - self._started, tflop))
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and trainer.global_step % every == 0:
            self._log(pl_module)
        self._idle_since = perf_counter()

    def _log(self, pl_module: LightningModule) -> None:
        samples, waiting, working, tflop = (sum(column) for column in zip(*self._steps, strict=True))
        total = waiting + working
        shown = {
            "samples_per_second": samples / total,
            "data_wait_share": waiting / total,
            "peak_memory_mib": _peak_memory_mib(pl_module.device),
        }
        logged = {"step_ms": 1000 * working / len(self._steps)}
        if tflop:
            logged["tflops"] = tflop / total
            if peak := self.peak_tflops or _peak_of(pl_module.device):
                shown["mfu"] = tflop / total / peak
        pl_module.log_dict(_on_cpu(shown), prog_bar=True, on_step=True, on_epoch=False)
        pl_module.log_dict(_on_cpu(logged), on_step=True, on_epoch=False)


def _on_cpu(values: dict[str, float]) -> dict[str, torch.Tensor]:
    """Lightning would copy plain numbers to the device, and read those in the bar back from it after every batch."""
    return {name: torch.tensor(value) for name, value in values.items()}


def _peak_of(device: torch.device) -> float | None:
    return find_peak_tflops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def _peak_memory_mib(device: torch.device) -> float:
    """Return the most memory that tensors have held on a CUDA device; elsewhere the process's largest resident size."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource  # absent on Windows, where only a GPU is measured

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
