"""Say which sample a process has been reading for so long that its disk must have stalled."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities import rank_zero_only
from torch.utils.data import get_worker_info

SECONDS = 60.0
"""From when on a read is named; again whenever it has lasted twice as long."""
_Read = tuple[str, float]
"""What is read, and since when."""
_reads: dict[int, _Read] = {}
"""By thread."""
_watcher: threading.Thread | None = None


@contextmanager
def reading(sample: str) -> Iterator[None]:
    """Name a sample on stderr if reading it takes longer than `SECONDS`: rank, worker, sample, seconds.

    The read itself goes on: a disk that stalls, such as a network mount whose server starts anew, mostly comes back,
    and a sample that was passed over for its slowness would make the order of the others a matter of chance. One thread
    of a process looks at all its reads, so a read costs a few microseconds.

    Args:
        sample: Its key, and where it lies.
    """
    global _watcher
    if _watcher is None or not _watcher.is_alive():  # the first time in a process: threads do not outlast a fork
        _reads.clear()
        _watcher = threading.Thread(target=_watch, args=(_who(),), name="slow reads", daemon=True)
        _watcher.start()
    thread = threading.get_ident()
    _reads[thread] = sample, time.monotonic()
    try:
        yield
    finally:
        _reads.pop(thread, None)


def _watch(who: str) -> None:
    told: dict[_Read, float] = {}
    while True:
        time.sleep(SECONDS / 4)
        reads = list(_reads.values())
        told = {read: seconds for read, seconds in told.items() if read in reads}
        for read in reads:
            sample, since = read
            if (seconds := time.monotonic() - since) >= 2 * told.get(read, SECONDS / 2):
                told[read] = seconds
                print(f"{who} has been reading {sample} for {seconds:.3g} s", file=sys.stderr, flush=True)


def _who() -> str:
    rank = getattr(rank_zero_only, "rank", None) or 0
    worker = get_worker_info()
    return f"rank {rank}" if worker is None else f"worker {worker.id} of rank {rank}"
