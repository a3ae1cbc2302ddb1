"""Who stands still, and at which sample, when ranks wait for one another."""

from __future__ import annotations

import json
import mmap
import os
import socket
import sys
import threading
import time
import traceback
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer

from insvie_lightning.errors import InputError, Stopped, first_line

TICKS = 4
"""So many times in `stall_seconds` each process looks at the others."""
PAGE_BYTES = 4096
MOST_KEYS = 16
"""Keys of a batch that a page has room for."""


class _Seen(NamedTuple):
    """What a process told, and when it last was another batch."""

    told: dict[str, Any]
    moved_at: float
    alive_at: float


class Heartbeat(Callback):
    """Name the process that stands still, and the samples it is at, while the others wait for it.

    Every process tells in a page of its own, `heartbeat/rank0.json` of the run folder, which batch it is at; a thread
    looks at those of the others. Nothing is asked of a process that hangs, and a step only writes to memory: the page
    is mapped, on storage that all processes see. When a process has not moved for `stall_seconds`, all that still run
    say so once on stderr: rank, host, batch, keys, and the line of code it is at. Of several that stand still those are
    named that do not even tell any more, or else those that are behind and do not wait for others themselves. A process
    that stands still *after* a batch has ended it, and mostly waits for data: `slow_reads` then names the sample.

    When an exception ends a process, as when a worker that reads data dies, it is said at which rank and batch. Where
    the run folder cannot be written, or files in it not be mapped, that is said, and the run goes on without.

    Args:
        stall_seconds: From when on a process is said to stand still; more than the slowest batch takes.
        stop_seconds: From when on the processes that wait for it end, with its name; None lets them wait for as long as
            their strategy's timeout allows.
    """

    def __init__(self, stall_seconds: float = 300.0, stop_seconds: float | None = None) -> None:
        if stall_seconds <= 0 or (stop_seconds is not None and stop_seconds < stall_seconds):
            raise InputError(
                f"stall_seconds is {stall_seconds:g}, stop_seconds {stop_seconds}; legal are numbers above 0, the "
                "second not below the first, or null"
            )
        self.stall_seconds, self.stop_seconds = stall_seconds, stop_seconds
        self._told: dict[str, Any] = {}
        self._page: mmap.mmap | None = None
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to tell and to look."""
        run = trainer.strategy.broadcast(uuid.uuid4().hex)  # files of an earlier run are nobody's
        about = {"rank": trainer.global_rank, "run": run, "host": socket.gethostname(), "pid": os.getpid()}
        self._told = {**about, "tick": 0, "beats": 0, "doing": "starting", "keys": [], "done": False}
        self._told |= {"at": "", "waits": False}
        folder = Path(trainer.default_root_dir) / "heartbeat"
        try:
            self._page = _new_page(folder / f"rank{trainer.global_rank}.json")
        except OSError as error:
            _say(f"rank {trainer.global_rank} has no heartbeat in {folder}: {first_line(error)}")
            return
        self._done = threading.Event()
        watched = (folder, trainer.global_rank, threading.get_ident(), self._done)
        self._thread = threading.Thread(target=self._watch, args=watched, name="heartbeat", daemon=True)
        self._thread.start()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop both."""
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = self._page = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note the batch."""
        self._note("training", batch, batch_idx)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Note the batch."""
        self._note("validation", batch, batch_idx)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Note the batch."""
        self._note("test", batch, batch_idx)

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Note the batch."""
        self._note("predict", batch, batch_idx)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note that it is done."""
        self._tell(beats=self._told["beats"] + 1, done=True)

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        """Note that it is done."""
        self._tell(beats=self._told["beats"] + 1, done=True)

    def on_test_batch_end(self, *_: Any, **__: Any) -> None:
        """Note that it is done."""
        self._tell(beats=self._told["beats"] + 1, done=True)

    def on_predict_batch_end(self, *_: Any, **__: Any) -> None:
        """Note that it is done."""
        self._tell(beats=self._told["beats"] + 1, done=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say where this process was, unless it was told to stop, or is the only one and was given bad input."""
        self._done.set()
        alone = trainer.world_size == 1  # then what is said of bad input says it all
        if isinstance(exception, Stopped) or (alone and isinstance(exception, InputError)):
            return
        cause = f"{type(exception).__name__}: {exception}".splitlines()[0]
        _say(f"rank {trainer.global_rank} on {socket.gethostname()} stops {_place(self._told)}: {cause}")

    def _note(self, stage: str, batch: Any, batch_idx: int) -> None:
        self._tell(beats=self._told["beats"] + 1, doing=f"{stage} batch {batch_idx}", keys=_keys(batch), done=False)

    def _tell(self, **news: Any) -> None:
        self._told |= news
        if self._page is not None:
            self._page[:] = _fitting(self._told).ljust(PAGE_BYTES)

    def _watch(self, folder: Path, rank: int, main: int, done: threading.Event) -> None:
        seen: dict[int, _Seen] = {}
        named: list[int] = []
        while not done.wait(self.stall_seconds / TICKS):
            at, waits = _line(main)
            self._tell(tick=self._told["tick"] + 1, at=at, waits=waits)
            assert self._page is not None
            with suppress(OSError):  # a disk that fails is not what a run should end of
                self._page.flush()
            now = time.monotonic()
            for told in _read(folder, self._told["run"]):
                before = seen.get(told["rank"], _Seen({"beats": None, "tick": None}, now, now))
                moved_at = before.moved_at if told["beats"] == before.told["beats"] else now
                alive_at = before.alive_at if told["tick"] == before.told["tick"] else now
                seen[told["rank"]] = _Seen(told, moved_at, alive_at)
            still = _behind(seen, now, self.stall_seconds)
            if still and still != named:
                _say("; ".join(_sentence(seen[other], now) for other in still))
            named = still
            longest = max((now - seen[other].moved_at for other in still), default=0.0)
            if self.stop_seconds is not None and longest >= self.stop_seconds and rank not in still:
                _say(f"rank {rank} stops, for it waits for {' and '.join(f'rank {other}' for other in still)}")
                os._exit(1)  # the main thread is inside a collective, where no exception reaches it


def _behind(seen: dict[int, _Seen], now: float, seconds: float) -> list[int]:
    """The ranks to name: of those that stand still the silent ones, else those that the others wait for."""
    still = sorted(rank for rank, each in seen.items() if now - each.moved_at >= seconds)
    silent = [rank for rank in still if now - seen[rank].alive_at >= seconds]
    working = [rank for rank, each in seen.items() if not each.told["waits"]] or list(seen)
    least = min((seen[rank].told["beats"] for rank in working), default=0)
    return silent or [rank for rank in still if rank in working and seen[rank].told["beats"] == least]


def _sentence(seen: _Seen, now: float) -> str:
    told = seen.told
    return (
        f"rank {told['rank']} on {told['host']} (pid {told['pid']}) has stood still for {now - seen.moved_at:.0f} s "
        + ", ".join(filter(None, (_place(told), told["at"])))
    )


def _place(told: dict[str, Any]) -> str:
    of = f" of {', '.join(map(repr, told['keys']))}" if told["keys"] else ""
    return f"{'after' if told['done'] else 'at'} {told['doing']}{of}"


def _keys(batch: Any) -> list[str]:
    """Keys of an `EditBatch`, or of a builder's batch; as many as there is room for."""
    if hasattr(batch, "inputs"):
        return [input.sample.key for input in batch.inputs][:MOST_KEYS]
    keys = getattr(batch, "keys", ())
    return [key[:100] for key in keys[:MOST_KEYS]] if isinstance(keys, tuple | list) else []


def _fitting(told: dict[str, Any]) -> bytes:
    """What is told as JSON that fits in a page: with as many keys as there is room for."""
    keys = told["keys"]
    for kept in range(len(keys), -1, -1):
        data = json.dumps(told | {"keys": keys[:kept]}).encode()
        if len(data) <= PAGE_BYTES:
            return data
    return b"{}"


def _new_page(path: Path) -> mmap.mmap:
    """An empty file in memory; its room on the disk is taken first, since a full disk ends who writes to memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w+b", buffering=0) as file:
        file.write(b" " * PAGE_BYTES)
        os.fsync(file.fileno())
        return mmap.mmap(file.fileno(), PAGE_BYTES)


def _line(thread: int) -> tuple[str, bool]:
    """The line of code that a thread is at, and whether it waits for other processes there."""
    frame = sys._current_frames().get(thread)
    if frame is None:
        return "nowhere", False
    last = traceback.extract_stack(frame, limit=1)[-1]
    parts = Path(last.filename).parts
    return f"{'/'.join(parts[-2:])}:{last.lineno} in {last.name}", "distributed" in parts


def _read(folder: Path, run: str) -> list[dict[str, Any]]:
    found = []
    for path in folder.glob("rank*.json"):
        try:
            told = json.loads(path.read_bytes())
        except (OSError, ValueError):  # it is being written just now
            continue
        if isinstance(told, dict) and told.get("run") == run:
            found.append(told)
    return found


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
