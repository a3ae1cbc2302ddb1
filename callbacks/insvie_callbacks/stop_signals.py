"""Signals that ask a training to stop, kept until the loop is at a place where it can."""

import os
import signal
import subprocess
import threading
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from lightning import Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment
from torch import Tensor


class StopSignals:
    """Notes Ctrl+C, SIGTERM and SIGUSR1 (or SLURM's own requeue signal); a second Ctrl+C quits at once.

    Lightning's handlers save or talk to other ranks wherever the signal happens to come, also inside an optimizer step.
    """

    def __init__(self) -> None:
        self._noted = 0
        self._asked: Tensor | None = None
        self._arrived: torch.cuda.Event | None = None
        self._before: dict[int, Any] = {}

    def install(self, trainer: Trainer) -> None:
        """Take the signals over; only the main thread can."""
        if threading.current_thread() is threading.main_thread():
            self._noted, self._asked, self._arrived = 0, None, None
            for signum in {signal.SIGINT, signal.SIGTERM, requeue_signal(trainer)}:
                self._before[signum] = signal.signal(signum, self._note)

    def remove(self) -> None:
        """Give the signals back."""
        while self._before:
            signal.signal(*self._before.popitem())

    def agreed(self, trainer: Trainer) -> int:
        """The number of a signal that any rank had noted, the same on all ranks; 0 if none had.

        All ranks call it after every batch. Of several ranks it is what they had noted when they called it last: the
        answer travels while a batch is computed, so that no rank waits for it, nor for its own device.
        """
        if trainer.world_size == 1:
            return self._noted
        if self._arrived is not None:
            self._arrived.synchronize()  # it was asked for a batch ago
        answer = 0 if self._asked is None else int(self._asked)
        self._ask(trainer)
        return answer

    def _ask(self, trainer: Trainer) -> None:
        device = trainer.strategy.root_device
        noted = torch.full((1,), self._noted, device=device)  # filled there: a copy to it would wait
        dist.all_reduce(noted, dist.ReduceOp.MAX)  # not the strategy's `reduce`, which waits at a barrier
        if device.type != "cuda":
            self._asked = noted
            return
        self._asked = torch.empty_like(noted, device="cpu", pin_memory=True).copy_(noted, non_blocking=True)
        self._arrived = torch.cuda.Event()
        self._arrived.record()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self._noted and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self._noted = self._noted or signum
        hint = "; Ctrl+C again quits without saving" if signum == signal.SIGINT else ""
        # Not print: its buffer may be in use where the signal came.
        os.write(2, f"\n{signal.Signals(signum).name}: saving after this batch{hint}\n".encode())


def requeue_signal(trainer: Trainer) -> int:
    """The signal by which SLURM announces the end of a job's time."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    chosen: int | None = getattr(environment, "requeue_signal", None)
    return chosen or int(getattr(signal, "SIGUSR1", signal.SIGTERM))


def requeue(trainer: Trainer) -> str:
    """Put a SLURM job back into its queue, as Lightning would; returns what was done, empty outside SLURM."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    job = os.environ.get("SLURM_JOB_ID", "")
    if not (SLURMEnvironment.detect() and job and getattr(environment, "auto_requeue", True)):
        return ""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    if trainer.is_global_zero:
        try:
            status = subprocess.run(["scontrol", "requeue", job], check=False).returncode
        except FileNotFoundError:
            status = 127
        if status:
            return f"; scontrol could not requeue job {job} (status {status})"
    return f"; job {job} is requeued"
