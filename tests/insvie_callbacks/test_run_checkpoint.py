"""What a run saves, when, and that it goes on from there as if nothing had been."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback
from lightning.pytorch.strategies import DDPStrategy

from insvie_callbacks.lora_ema import LoraEMA
from insvie_callbacks.run_checkpoint import RunCheckpoint
from insvie_callbacks.run_log import RunLog
from insvie_lightning.errors import InputError, Stopped


class Send(Callback):
    """Sends this process a signal, so many times, at the start of a batch."""

    def __init__(self, batch: int, signum: int, times: int = 1) -> None:
        self.batch, self.signum, self.times = batch, signum, times

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.batch:
            for _ in range(self.times):
                os.kill(os.getpid(), self.signum)


@pytest.fixture(autouse=True)
def same_handlers_after() -> Iterator[None]:
    """Whatever happens, the process's own handlers are back."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


def files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "checkpoints").iterdir()}


def checkpoint(folder: Path, step: int) -> Path:
    return folder / f"checkpoints/step={step}.ckpt"


@pytest.mark.parametrize(("keep", "kept"), [(1, {5}), (2, {4, 5}), (9, {2, 4, 5})])
def test_every_so_many_steps_and_the_last_one_are_saved_and_the_newest_kept(
    make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path, keep: int, kept: set[int]
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/step=7.ckpt.part").touch()
    make_trainer(tmp_path, RunCheckpoint(2, keep)).fit(make_editor(), numbers(5))
    assert files(tmp_path) == {f"step={step}.ckpt" for step in kept} | {"last.ckpt"}
    assert os.readlink(tmp_path / "checkpoints/last.ckpt") == "step=5.ckpt"


def test_the_step_at_which_training_is_told_to_end_is_saved(
    make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path
) -> None:
    make_trainer(tmp_path, RunCheckpoint(), max_steps=3).fit(make_editor(), numbers(5))
    assert files(tmp_path) == {"step=3.ckpt", "last.ckpt"}
    longer = make_editor()
    make_trainer(tmp_path, RunCheckpoint(), max_steps=5).fit(longer, numbers(5), ckpt_path=checkpoint(tmp_path, 3))
    assert longer.trained == [-3, -4] and files(tmp_path) == {"step=5.ckpt", "last.ckpt"}


def test_what_a_kill_left_behind_is_cleared_by_the_next_save(
    make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path
) -> None:
    make_trainer(tmp_path, RunCheckpoint(1, keep=9), max_steps=3).fit(make_editor(), numbers(5))
    resume = checkpoint(tmp_path, 3)
    make_trainer(tmp_path, RunCheckpoint(1)).fit(make_editor(), numbers(5), ckpt_path=resume)
    assert files(tmp_path) == {"step=5.ckpt", "last.ckpt"}


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
@pytest.mark.parametrize("batch", [2, 3, 4], ids=["first half", "second half", "after"])
def test_a_signal_saves_and_stops_and_the_run_goes_on_from_the_last_step(
    make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path, signum: int, batch: int
) -> None:
    straight, cut, resumed = (make_editor(0.1, rate=0.3) for _ in range(3))
    options = {"accumulate_grad_batches": 2}
    make_trainer(tmp_path / "straight", LoraEMA(), RunCheckpoint(), **options).fit(straight, numbers(8))
    trainer = make_trainer(tmp_path, LoraEMA(), RunCheckpoint(), Send(batch, signum), **options)
    with pytest.raises(Stopped, match=f"{signal.Signals(signum).name}; step .*; the same command goes on") as stopped:
        trainer.fit(cut, numbers(8))
    assert stopped.value.code == 128 + signum and len(cut.trained) == batch + 1
    step = (batch + 1) // 2
    assert files(tmp_path) == {f"step={step}.ckpt", "last.ckpt"}
    again = make_trainer(tmp_path, LoraEMA(), RunCheckpoint(), **options)
    again.fit(resumed, numbers(8), ckpt_path=checkpoint(tmp_path, step))
    assert resumed.trained == straight.trained[2 * step :]  # what was accumulated is accumulated again
    assert resumed.weight == straight.weight and resumed.ema_updates == straight.ema_updates == 4
    assert torch.equal(resumed.ema["trained"], straight.ema["trained"])
    ends = [torch.load(checkpoint(folder, 4), weights_only=True) for folder in (tmp_path, tmp_path / "straight")]
    progress = [end["loops"]["fit_loop"]["epoch_loop.batch_progress"] for end in ends]
    assert progress[0] == progress[1]


def test_ranks_stop_together_where_one_of_them_is_told(
    make_editor: Any, make_trainer: Any, numbers: Any, on_ranks: Any, tmp_path: Path
) -> None:
    def work(rank: int) -> tuple[int, Any]:
        told = [Send(2, signal.SIGTERM)] if rank == 1 else []
        strategy = DDPStrategy(process_group_backend="gloo", find_unused_parameters=False)
        trainer = make_trainer(tmp_path, RunCheckpoint(), *told, devices=2, strategy=strategy)
        editor = make_editor()
        with pytest.raises(Stopped, match=r"step 4 is in .*step=4\.ckpt") as stopped:
            trainer.fit(editor, numbers(20))
        return len(editor.trained), stopped.value.code

    assert on_ranks(work) == [(4, 143), (4, 0)]  # told in the third batch, agreed in the fourth


def test_a_signal_before_the_first_step_loses_nothing(
    make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, RunCheckpoint(), Send(0, signal.SIGTERM), accumulate_grad_batches=2)
    with pytest.raises(Stopped, match="no step was done"):
        trainer.fit(make_editor(), numbers(4))
    assert not (tmp_path / "checkpoints").exists()


def test_ctrl_c_twice_quits_without_saving(make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path) -> None:
    editor = make_editor()
    with pytest.raises(SystemExit) as ended:
        make_trainer(tmp_path, RunCheckpoint(), Send(2, signal.SIGINT, times=2)).fit(editor, numbers(5))
    assert isinstance(ended.value.__context__, KeyboardInterrupt) and len(editor.trained) == 2
    assert not (tmp_path / "checkpoints").exists()


def test_a_validation_stops_too(make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path) -> None:
    class InValidation(Callback):
        def on_validation_batch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 2 and not trainer.sanity_checking:
                os.kill(os.getpid(), signal.SIGTERM)

    straight, cut, resumed = (make_editor(0.1, rate=0.3) for _ in range(3))
    options = {"val_check_interval": 2}
    make_trainer(tmp_path / "straight", LoraEMA(), RunCheckpoint(), **options).fit(straight, numbers(5), numbers(3))
    with pytest.raises(Stopped):
        trainer = make_trainer(tmp_path, LoraEMA(0.5), RunCheckpoint(), InValidation(), **options)
        trainer.fit(cut, numbers(5), numbers(3))
    saved = torch.load(checkpoint(tmp_path, 2), weights_only=True)
    assert saved["state_dict"]["transformer.trained"].item() == straight.trained[2]  # not the average
    trainer = make_trainer(tmp_path, LoraEMA(), RunCheckpoint(), **options)
    trainer.fit(resumed, numbers(5), numbers(3), ckpt_path=checkpoint(tmp_path, 2))
    assert resumed.trained == straight.trained[2:] and resumed.weight == straight.weight


def test_global_random_numbers_go_on(make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path) -> None:
    class Draws(Callback):
        def __init__(self) -> None:
            self.drawn: list[float] = []

        def on_train_batch_start(self, *_: Any) -> None:
            self.drawn.append(torch.rand(()).item())

    straight, resumed = Draws(), Draws()
    options = {"accumulate_grad_batches": 2}
    torch.manual_seed(0)
    make_trainer(tmp_path, straight, RunCheckpoint(), **options).fit(make_editor(), numbers(8))
    torch.manual_seed(0)
    with pytest.raises(Stopped):  # between two steps
        stopping = make_trainer(tmp_path / "cut", Draws(), RunCheckpoint(), Send(4, signal.SIGTERM), **options)
        stopping.fit(make_editor(), numbers(8))
    torch.manual_seed(7)
    trainer = make_trainer(tmp_path / "cut", resumed, RunCheckpoint(), **options)
    trainer.fit(make_editor(), numbers(8), ckpt_path=checkpoint(tmp_path / "cut", 2))
    assert resumed.drawn == straight.drawn[4:]


def test_a_resumed_run_does_not_save_the_same_step_again(
    make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path
) -> None:
    options = {"accumulate_grad_batches": 2}
    make_trainer(tmp_path, RunCheckpoint(2), max_steps=2, **options).fit(make_editor(), numbers(8))
    before = checkpoint(tmp_path, 2).stat().st_mtime_ns
    trainer = make_trainer(tmp_path, RunCheckpoint(2, keep=2), max_steps=3, **options)
    trainer.fit(make_editor(), numbers(8), ckpt_path=checkpoint(tmp_path, 2))
    assert checkpoint(tmp_path, 2).stat().st_mtime_ns == before


def test_steps_of_fewer_batches_are_counted_anew(
    make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path
) -> None:
    make_trainer(tmp_path, RunCheckpoint(), max_steps=2, accumulate_grad_batches=2).fit(make_editor(), numbers(8))
    editor = make_editor()
    trainer = make_trainer(tmp_path, RunCheckpoint())
    trainer.fit(editor, numbers(4), ckpt_path=checkpoint(tmp_path, 2))
    assert editor.trained == [-2, -3] and trainer.global_step == 4


def test_the_metrics_of_a_resumed_run_are_in_one_file(
    make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path
) -> None:
    for resume in (None, checkpoint(tmp_path, 3)):
        trainer = make_trainer(tmp_path, RunCheckpoint(), logger=RunLog(str(tmp_path)), max_steps=6 if resume else 3)
        trainer.fit(make_editor(), numbers(6), ckpt_path=resume)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines[0] == "epoch,step,train_loss" and [line.split(",")[1] for line in lines[1:]] == list("012345")
    assert not list(tmp_path.glob("metrics.*.csv"))


def test_ranks_that_found_different_checkpoints_do_not_go_on(
    make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_trainer(tmp_path, RunCheckpoint(), max_steps=2).fit(make_editor(), numbers(3))
    trainer = make_trainer(tmp_path, RunCheckpoint())
    monkeypatch.setattr(
        trainer.strategy, "broadcast", lambda value: value if "ckpt" not in str(value) else "older.ckpt"
    )
    with pytest.raises(InputError, match=r"rank 0 would resume from .*step=2.ckpt, but rank 0 from older.ckpt"):
        trainer.fit(make_editor(), numbers(3), ckpt_path=checkpoint(tmp_path, 2))


@pytest.mark.parametrize("installed", [True, False])
def test_slurm_is_asked_to_requeue_the_job(
    make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    if installed:
        asked = tmp_path / "scontrol"
        asked.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
        asked.chmod(0o755)
    trainer = make_trainer(tmp_path, RunCheckpoint(), Send(1, signal.SIGUSR1))
    for name, value in {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "fit", "SLURM_JOB_ID": "17"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    said = "job 17 is requeued" if installed else r"scontrol could not requeue job 17 \(status 127\)"
    with pytest.raises(Stopped, match=said):
        trainer.fit(make_editor(), numbers(3))
    assert not installed or (tmp_path / "asked").read_text() == "requeue 17\n"
    assert "step=2.ckpt" in files(tmp_path)


def test_nothing_kept_is_not_legal() -> None:
    with pytest.raises(InputError, match="keep is 0; legal is 1 or more"):
        RunCheckpoint(keep=0)
