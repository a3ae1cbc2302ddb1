"""Who stands still, and at which sample, when ranks wait for one another."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
import traceback
import uuid
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer

from insvie_lightning.errors import InputError

TICKS = 4
"""So many times in `stall_seconds` each process tells where it is and looks at the others."""


class _Seen(NamedTuple):
    """What a process told, and when it last was another batch."""

    told: dict[str, Any]
    moved_at: float
    alive_at: float


class Heartbeat(Callback):
    """Name the process that stands still, and the samples it is at, while the others wait for it.

    Every process tells in a file of its own, `heartbeat/rank0.json` of the run folder, which batch it is at; a thread
    writes it and reads those of the others, so nothing is added to a step and nothing is asked of a process that hangs.
    The folder is on storage that all processes see. When a process has not moved for `stall_seconds`, all that still
    run say so once on stderr: rank, host, batch, keys, and the line of code it is at. Of several that stand still those
    are named that do not even tell any more, or else those that are behind the others, for which the others wait.

    When an exception ends a process, as when a worker that reads data dies, it is said at which rank and batch.

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
        self._doing, self._keys, self._beats = "starting", ("",)[:0], 0
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to tell and to look."""
        run = trainer.strategy.broadcast(uuid.uuid4().hex)  # files of an earlier run are nobody's
        folder = Path(trainer.default_root_dir) / "heartbeat"
        folder.mkdir(parents=True, exist_ok=True)
        self._doing, self._keys, self._beats = "starting", (), 0
        self._done = threading.Event()
        watched = (folder, trainer.global_rank, run, threading.get_ident(), self._done)
        self._thread = threading.Thread(target=self._watch, args=watched, name="heartbeat", daemon=True)
        self._thread.start()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop both."""
        self._done.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

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
        self._beats += 1

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        """Note that it is done."""
        self._beats += 1

    def on_test_batch_end(self, *_: Any, **__: Any) -> None:
        """Note that it is done."""
        self._beats += 1

    def on_predict_batch_end(self, *_: Any, **__: Any) -> None:
        """Note that it is done."""
        self._beats += 1

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say where this process was."""
        self._done.set()
        cause = f"{type(exception).__name__}: {exception}".splitlines()[0]
        _say(f"rank {trainer.global_rank} on {socket.gethostname()} stops {_place(self._told())}: {cause}")

    def _note(self, stage: str, batch: Any, batch_idx: int) -> None:
        self._beats += 1
        self._doing = f"{stage} batch {batch_idx}"
        self._keys = _keys(batch)

    def _told(self) -> dict[str, Any]:
        return {"doing": self._doing, "keys": list(self._keys), "beats": self._beats}

    def _watch(self, folder: Path, rank: int, run: str, main: int, done: threading.Event) -> None:
        seen: dict[int, _Seen] = {}
        named: tuple[int, ...] = ()
        tick = 0
        while not done.wait(self.stall_seconds / TICKS):
            tick += 1
            about = {"rank": rank, "run": run, "host": socket.gethostname(), "pid": os.getpid(), "tick": tick}
            _write(folder / f"rank{rank}.json", {**about, **self._told(), "at": _line(main)})
            now = time.monotonic()
            for told in _read(folder, run):
                before = seen.get(told["rank"])
                moved = before is None or told["beats"] != before.told["beats"]
                alive = before is None or told["tick"] != before.told["tick"]
                seen[told["rank"]] = _Seen(
                    told,
                    now if moved or before is None else before.moved_at,
                    now if alive or before is None else before.alive_at,
                )
            still = tuple(sorted(_behind(seen, now, self.stall_seconds)))
            if still and still != named:
                _say("; ".join(_sentence(seen[other], now) for other in still))
            named = still
            longest = max((now - seen[other].moved_at for other in still), default=0.0)
            if self.stop_seconds is not None and longest >= self.stop_seconds and rank not in still:
                _say(f"rank {rank} stops, for it waits for {' and '.join(f'rank {other}' for other in still)}")
                os._exit(1)  # the main thread is inside a collective, where no exception reaches it


def _behind(seen: dict[int, _Seen], now: float, seconds: float) -> list[int]:
    """The ranks to name: of those that stand still the silent ones, else those that are behind."""
    still = [rank for rank, each in seen.items() if now - each.moved_at >= seconds]
    silent = [rank for rank in still if now - seen[rank].alive_at >= seconds]
    if silent or not still:
        return silent
    least = min(each.told["beats"] for each in seen.values())
    return [rank for rank in still if seen[rank].told["beats"] == least]


def _sentence(seen: _Seen, now: float) -> str:
    told = seen.told
    return (
        f"rank {told['rank']} on {told['host']} (pid {told['pid']}) has stood still for {now - seen.moved_at:.0f} s "
        f"{_place(told)}, {told['at']}"
    )


def _place(told: dict[str, Any]) -> str:
    of = f" of {', '.join(map(repr, told['keys']))}" if told["keys"] else ""
    return f"at {told['doing']}{of}"


def _keys(batch: Any) -> tuple[str, ...]:
    """Keys of an `EditBatch`, or of a builder's batch."""
    if hasattr(batch, "inputs"):
        return tuple(input.sample.key for input in batch.inputs)
    keys = getattr(batch, "keys", ())
    return tuple(keys) if isinstance(keys, tuple | list) else ()


def _line(thread: int) -> str:
    """The line of code that a thread is at."""
    frame = sys._current_frames().get(thread)
    if frame is None:
        return "nowhere"
    last = traceback.extract_stack(frame, limit=1)[-1]
    return f"{'/'.join(Path(last.filename).parts[-2:])}:{last.lineno} in {last.name}"


def _write(path: Path, told: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    try:
        part.write_text(json.dumps(told), encoding="utf-8")
        os.replace(part, path)
    except OSError:  # a full disk or slow storage is others' to tell; the run goes on
        return


def _read(folder: Path, run: str) -> list[dict[str, Any]]:
    found = []
    for path in folder.glob("rank*.json"):
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(told, dict) and told.get("run") == run:
            found.append(told)
    return found


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
