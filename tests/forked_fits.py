"""Runs fits one after another, each in a process of its own, and kills them as told.

To save time, a fit of one process is forked when its base is loaded and its classes are built.

    python forked_fits.py RUNS.json

RUNS.json is a list of `Run`s; a line of JSON is printed for each: the exit status of every rank, and the seconds.
"""

import json
import os
import random
import signal
import socket
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, seed_everything

from insvie_lightning.commands.lightning_cli import InsvieCLI
from insvie_lightning.resume import checkpoints

MOMENTS = ("half written", "written", "flushed", "named")


@dataclass(frozen=True)
class Run:
    """One fit.

    Attributes:
        args: Of `insvie fit`.
        record: File that rank r appends a line to for each batch: stage, step, keys, loss; `.r` is added to its name.
        world: Number of processes.
        signal_at: Batch of this process after whose training step the last rank gets `signum`.
        signum: That signal.
        kill_after_s: Seconds until the run is killed; from its first batch on when `in_training`.
        in_training: See there.
        kill_in_save: Which save of this process, and at which of `MOMENTS`, the run is killed in.
    """

    args: list[str]
    record: str
    world: int = 1
    signal_at: int | None = None
    signum: int = signal.SIGTERM
    kill_after_s: float | None = None
    in_training: bool = False
    kill_in_save: tuple[int, str] | None = None


class Record(Callback):
    def __init__(self, run: Run) -> None:
        self.run, self.batches = run, 0

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        line = [batch.position.stage, batch.position.step, list(batch.keys), outputs["loss"].item()]
        with open(f"{self.run.record}.{trainer.global_rank}", "a") as file:
            file.write(json.dumps(line) + "\n")
        self.batches += 1
        if self.batches == self.run.signal_at and trainer.global_rank == self.run.world - 1:
            os.kill(os.getpid(), self.run.signum)


@cache
def build(args: tuple[str, ...]) -> InsvieCLI:
    cli = InsvieCLI(args, run=False)
    cli.model.configure_model()
    return cli


def fit(run: Run) -> None:
    cli = build(tuple(run.args))
    seed_everything(0, verbose=False)  # as the command does when it starts
    cli.trainer.callbacks.insert(0, Record(run))
    if run.kill_in_save:
        _die_in_save(*run.kill_in_save)
    path = checkpoints.resume_path(cli.trainer, None)
    cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=path, weights_only=True)


def _die_in_save(number: int, moment: str) -> None:
    saves, save, flush, replace = 0, torch.save, os.fsync, os.replace

    def at(now: str) -> None:
        if saves == number and moment == now:
            os.kill(os.getpid(), signal.SIGKILL)

    def dying_save(content: Any, file: Any) -> None:
        nonlocal saves
        saves += 1
        save(content, file)
        if moment == "half written" and saves == number:
            file.truncate(random.Random(number).randrange(file.tell()))
            file.flush()
        at("half written")
        file.flush()
        at("written")

    def dying_replace(source: Any, target: Any) -> None:
        ours = str(source).endswith(checkpoints.PART)
        if ours:
            at("flushed")
        replace(source, target)
        if ours:
            at("named")

    torch.save, os.fsync, os.replace = dying_save, flush, dying_replace  # type: ignore[assignment]


def _start(run: Run, rank: int, port: int) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.setpgid(0, 0)
        if run.world > 1:
            os.environ |= {"WORLD_SIZE": str(run.world), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        log = os.open(f"{run.record}.{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        fit(run)
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def _size(run: Run) -> int:
    record = Path(f"{run.record}.0")
    return record.stat().st_size if record.exists() else 0


def _runs(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def go(run: Run) -> dict[str, Any]:
    if run.world == 1:
        build(tuple(run.args))
    start = time.monotonic()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [_start(run, rank, port) for rank in range(run.world)]
    if run.kill_after_s is not None:
        before = _size(run)
        while run.in_training and _size(run) == before and all(map(_runs, children)):
            time.sleep(0.002)
        time.sleep(run.kill_after_s)
        for child in children:
            os.killpg(child, signal.SIGKILL)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return {"statuses": statuses, "seconds": round(time.monotonic() - start, 2)}


if __name__ == "__main__":
    for settings in json.loads(Path(sys.argv[1]).read_text()):
        print(json.dumps(go(Run(**settings))), flush=True)
