"""The rank that stands still is named with its samples, while the others wait and after they gave up."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader

from insvie_callbacks import Heartbeat
from insvie_callbacks.heartbeat import PAGE_BYTES, _behind, _keys, _new_page, _Seen
from insvie_lightning.errors import InputError, Stopped


class Freezing(LightningModule):
    """Validates numbers; the rank that has `frozen` stops for some seconds as a machine does, by a signal, or dozes."""

    def __init__(self, frozen: int, seconds: float, dozing: bool = False) -> None:
        super().__init__()
        self.frozen, self.seconds, self.dozing = frozen, seconds, dozing
        self.net = nn.Linear(1, 1)

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.frozen in batch.numbers:
            if self.dozing:
                time.sleep(self.seconds)
            else:
                time.sleep(0.4)  # until it has told a line of code
                subprocess.Popen(["sh", "-c", f"sleep {self.seconds}; kill -CONT {os.getpid()}"])
                os.kill(os.getpid(), signal.SIGSTOP)
        value = self.net(torch.ones(1, 1)).sum()
        self.log("value", value, sync_dist=True, on_step=True, batch_size=1)  # where the others wait
        return value


def numbered(numbers: list[int]) -> Any:
    return SimpleNamespace(numbers=numbers, keys=tuple(f"k{n}" for n in numbers))


def validate(model: LightningModule, folder: Path, rank: int, *callbacks: Any, workers: int = 0) -> None:
    log = os.open(folder / f"stderr{rank}", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 2)
    sys.stderr = os.fdopen(os.dup(log), "w")
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", devices=2, strategy=DDPStrategy(process_group_backend="gloo"),
        logger=False, enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks),
    )  # fmt: skip
    loader: Any = DataLoader(range(6), collate_fn=numbered, num_workers=workers)  # type: ignore[arg-type]
    trainer.validate(model, loader, verbose=False)


def said(folder: Path, rank: int) -> list[str]:
    return [line for line in (folder / f"stderr{rank}").read_text().splitlines() if line.startswith("rank ")]


def freeze(on_ranks: Callable[..., list[Any]], folder: Path, seconds: float, stall_seconds: float) -> str:
    def work(rank: int) -> float:
        start = time.monotonic()
        validate(Freezing(3, seconds), folder, rank, Heartbeat(stall_seconds))
        return time.monotonic() - start

    assert min(on_ranks(work, seconds=seconds + 60)) >= seconds  # they went on, and ended
    return said(folder, 0)[0]


def test_a_frozen_rank_is_named_by_the_other_which_goes_on(on_ranks: Callable[..., list[Any]], tmp_path: Path) -> None:
    sentence = freeze(on_ranks, tmp_path, seconds=2, stall_seconds=0.5)
    assert re.match(
        r"rank 1 on \S+ \(pid \d+\) has stood still for \d s at validation batch 1 of 'k3'(, \S+\.py:\d+ in \w+)?$",
        sentence,
    )


@pytest.mark.proof
def test_a_rank_frozen_for_a_minute_is_named_within_the_time_box(
    on_ranks: Callable[..., list[Any]], tmp_path: Path
) -> None:
    sentence = freeze(on_ranks, tmp_path, seconds=60, stall_seconds=10)
    found = re.search(r"rank 1 .* stood still for (\d+) s at validation batch 1 of 'k3'", sentence)
    assert found and int(found[1]) <= 15


def test_who_waits_too_long_stops_with_the_name(on_ranks: Callable[..., list[Any]], tmp_path: Path) -> None:
    def work(rank: int) -> int:
        if (child := os.fork()) == 0:  # a process of its own, since it is ended
            try:
                validate(Freezing(3, 2.5, dozing=True), tmp_path, rank, Heartbeat(0.4, stop_seconds=1))
            except BaseException:
                os._exit(2)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    waiting, frozen = on_ranks(work)
    assert waiting == 1 and frozen in (1, 2)  # it finds the other one gone: by the heartbeat, or by its connection
    *_, first, last = said(tmp_path, 0)
    assert re.match(r"rank 1 .* at validation batch 1 of 'k3', .*test_heartbeat\.py:\d+ in validation_step$", first)
    assert last == "rank 0 stops, for it waits for rank 1"


class Dying:
    """Numbers, of which reading the last kills the process that reads it."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> int:
        if index == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return index


def test_a_worker_that_dies_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trainer = Trainer(
        default_root_dir=tmp_path, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[Heartbeat()],
    )  # fmt: skip
    loader: Any = DataLoader(Dying(), collate_fn=numbered, num_workers=1, prefetch_factor=1)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        trainer.validate(Freezing(-1, 0), loader, verbose=False)
    assert re.search(r"rank 0 on \S+ stops after validation batch \d of 'k\d': RuntimeError: DataLoader worker \(pid", (
        capfd.readouterr().err
    ))  # fmt: skip


def seen(beats: int, moved_at: float, alive_at: float, waits: bool = False) -> _Seen:
    return _Seen({"beats": beats, "waits": waits}, moved_at, alive_at)


def test_of_several_that_stand_still_the_silent_or_the_last_is_named() -> None:
    assert _behind({0: seen(5, 0, 9), 1: seen(5, 0, 9)}, now=9, seconds=10) == []
    assert _behind({0: seen(5, 0, 20), 1: seen(5, 0, 3)}, now=20, seconds=10) == [1]
    assert _behind({0: seen(5, 0, 20), 1: seen(4, 0, 20), 2: seen(4, 0, 20)}, now=20, seconds=10) == [1, 2]
    assert _behind({0: seen(5, 0, 20, waits=True), 1: seen(5, 15, 20)}, now=20, seconds=10) == []
    assert _behind({0: seen(5, 0, 20, waits=True), 1: seen(5, 5, 20)}, now=20, seconds=10) == [1]
    assert _behind({0: seen(5, 0, 20, waits=True), 1: seen(5, 5, 20, waits=True)}, now=20, seconds=10) == [0, 1]
    assert _behind({0: seen(5, 19, 20), 1: seen(4, 0, 20)}, now=20, seconds=10) == [1]


def test_files_of_another_run_are_nobodys(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "heartbeat").mkdir()
    other = {"rank": 7, "run": "old", "beats": 0, "tick": 0}
    (tmp_path / "heartbeat/rank7.json").write_text(json.dumps(other))
    (tmp_path / "heartbeat/rank8.json").write_text("{")
    trainer = Trainer(
        default_root_dir=tmp_path, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[Heartbeat(0.05)],
    )  # fmt: skip
    trainer.validate(Freezing(3, 0.3, dozing=True), DataLoader(range(4), collate_fn=numbered), verbose=False)  # type: ignore[arg-type]
    assert "rank 7" not in capfd.readouterr().err
    assert json.loads((tmp_path / "heartbeat/rank0.json").read_text())["rank"] == 0


def test_keys_of_a_builders_batch_and_of_none() -> None:
    inputs = [SimpleNamespace(sample=SimpleNamespace(key=key)) for key in "ab"]
    assert _keys(SimpleNamespace(inputs=inputs)) == ["a", "b"] and _keys({"x": 1}) == [] == _keys(3)


def validate_alone(folder: Path, collate: Any, *callbacks: Any) -> None:
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=list(callbacks),
    )  # fmt: skip
    trainer.validate(Freezing(-1, 0), DataLoader(range(4), collate_fn=collate), verbose=False)  # type: ignore[arg-type]


def test_of_long_keys_a_page_has_as_many_as_fit(tmp_path: Path) -> None:
    keys = tuple(f"{number}{'剪' * 200}" for number in range(20))
    validate_alone(tmp_path, lambda numbers: SimpleNamespace(numbers=numbers, keys=keys), Heartbeat())
    page = (tmp_path / "heartbeat/rank0.json").read_bytes()
    told = json.loads(page)
    assert len(page) == PAGE_BYTES and told["doing"] == "validation batch 3"
    assert 3 <= len(told["keys"]) < 16 and told["keys"][0] == f"0{'剪' * 99}"


def test_a_run_goes_on_where_it_can_tell_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "heartbeat").touch()
    validate_alone(tmp_path, numbered, Heartbeat())
    assert re.search(r"rank 0 has no heartbeat in \S+: .*File exists", capfd.readouterr().err)


def test_a_page_has_its_room_on_the_disk_before_it_is_written(tmp_path: Path) -> None:
    page = _new_page(tmp_path / "new/rank0.json")
    assert (tmp_path / "new/rank0.json").stat().st_blocks * 512 >= PAGE_BYTES == len(page)


def test_a_run_that_was_told_to_stop_did_not_fail(capfd: pytest.CaptureFixture[str]) -> None:
    trainer: Any = SimpleNamespace(global_rank=0, world_size=1)
    heartbeat = Heartbeat()
    heartbeat._told = {"doing": "training batch 3", "keys": [], "done": True}
    heartbeat.on_exception(trainer, Freezing(-1, 0), Stopped("SIGTERM", 143))
    assert not capfd.readouterr().err
    heartbeat.on_exception(trainer, Freezing(-1, 0), InputError("no such folder"))  # which the command says
    assert capfd.readouterr().err == ""
    heartbeat.on_exception(trainer, Freezing(-1, 0), RuntimeError("power cut"))
    assert "stops after training batch 3: RuntimeError: power cut" in capfd.readouterr().err
    trainer.world_size = 2  # then it matters which rank it was
    heartbeat.on_exception(trainer, Freezing(-1, 0), InputError("no such folder"))
    assert "stops after training batch 3: InputError: no such folder" in capfd.readouterr().err


@pytest.mark.parametrize(("stall", "stop"), [(0, None), (5, 4)])
def test_illegal_seconds_are_refused(stall: float, stop: float | None) -> None:
    with pytest.raises(InputError, match=f"stall_seconds is {stall}"):
        Heartbeat(stall, stop)
