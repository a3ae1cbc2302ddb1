"""What a loader's worker processes do about signals."""

import os
import signal
from types import FrameType


def outlast_signals(worker_id: int) -> None:
    """Let a worker go on reading while its run is told to stop: `worker_init_fn` of a loader.

    Ctrl+C reaches every process of a terminal, and SLURM signals every process of a job; the run still needs the batch
    that it is at, and ends its workers itself. A second SIGTERM is obeyed, because that is how Python ends a worker.
    """
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _obey_the_next)


def _obey_the_next(signum: int, frame: FrameType | None) -> None:
    signal.signal(signum, lambda *_: os._exit(0))
