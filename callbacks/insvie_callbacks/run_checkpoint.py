"""Saving a run so that it can be killed at any moment and goes on bit for bit."""

import signal
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from insvie_callbacks.run_log import RunLog
from insvie_callbacks.stop_signals import StopSignals, requeue, requeue_signal
from insvie_lightning.errors import InputError, Stopped
from insvie_lightning.resume.checkpoints import PART
from insvie_lightning.resume.random_state import random_state, restore_random_state


class RunCheckpoint(ModelCheckpoint):
    """Save everything a run needs to go on: every so many optimizer steps, at the last one, and when told to stop.

    SIGTERM, SIGUSR1 and Ctrl+C save after the batch in progress and stop with status 128 + signal; a second Ctrl+C
    quits at once; under SLURM the job is requeued at SIGUSR1. A checkpoint saved between two optimizer steps holds the
    run as it was after the earlier one, from where the gradients are accumulated again.

    Args:
        every_n_train_steps: Optimizer steps between two checkpoints.
        keep: The newest so many are kept; `last.ckpt` is a link to the newest. For checkpoints that stay, or that
            follow a score, add a `ModelCheckpoint` with a `filename` of its own.
        dirpath: Folder; None is `checkpoints` in the run folder, where a rerun looks.
    """

    def __init__(self, every_n_train_steps: int = 1000, keep: int = 1, dirpath: str | None = None) -> None:
        super().__init__(
            dirpath,
            "{step}",
            save_last="link",
            save_top_k=-1,
            every_n_train_steps=every_n_train_steps,
            enable_version_counter=False,
        )
        if keep < 1:
            raise InputError(f"RunCheckpoint: keep is {keep}; legal is 1 or more")
        self.keep = keep
        self._signals = StopSignals()
        self._states: list[dict[str, Any]] = []
        self._state_after_step: dict[str, Any] = {}

    # ---------------------------------------------------------------- when to save

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder, and clear it of saves that were interrupted."""
        if self.dirpath is None:
            self.dirpath = str(Path(trainer.default_root_dir).resolve() / "checkpoints")
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and trainer.is_global_zero and "://" not in str(self.dirpath):
            for part in Path(self.dirpath).glob(f"*{PART}"):
                part.unlink()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the random numbers of this rank back, and listen for signals."""
        super().on_train_start(trainer, pl_module)
        if trainer.ckpt_path:
            own = str(trainer.ckpt_path)
            if (first := trainer.strategy.broadcast(own)) != own:
                raise InputError(f"rank {trainer.global_rank} would resume from {own}, but rank 0 from {first}")
            self._last_global_step_saved, self._last_checkpoint_saved = trainer.global_step, own
        if len(self._states) == trainer.world_size:
            restore_random_state(self._states[trainer.global_rank])
        elif self._states:
            rank_zero_warn(
                f"the checkpoint is of {len(self._states)} processes, this run has {trainer.world_size}: global random "
                "numbers are drawn anew"
            )
        self._states = []
        self._state_after_step = random_state()
        self._signals.install(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time, at the last batch, and when a signal has come."""
        if trainer.accumulate_grad_batches > 1 and not _batches_since_step(trainer):
            self._state_after_step = random_state()
        signum = self._signals.agreed(trainer)
        if not (signum or trainer.is_last_batch or trainer.global_step == trainer.max_steps):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            return
        if not self._should_skip_saving_checkpoint(trainer):
            candidates = self._monitor_candidates(trainer)
            self._save_topk_checkpoint(trainer, candidates)
            self._save_last_checkpoint(trainer, candidates)
        if signum:
            self._stop(trainer, signum)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Stop a validation too, unless other ranks would wait: theirs may have fewer batches."""
        if trainer.world_size == 1 and not trainer.sanity_checking and (signum := self._signals.agreed(trainer)):
            if trainer.global_step != self._last_global_step_saved:
                candidates = self._monitor_candidates(trainer)
                self._save_topk_checkpoint(trainer, candidates)
                self._save_last_checkpoint(trainer, candidates)
            self._stop(trainer, signum)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the signals back. Nothing is saved: the state may be halfway through a step, and other ranks be gone."""
        self._signals.remove()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals back, before Lightning does."""
        self._signals.remove()
        super().on_train_end(trainer, pl_module)

    def _stop(self, trainer: Trainer, signum: int) -> None:
        queued = requeue(trainer) if signum == requeue_signal(trainer) else ""
        step = trainer.global_step
        saved = f"step {step} is in {self._last_checkpoint_saved}" if step else "no step was done"
        message = f"{signal.Signals(signum).name}; {saved}{queued}; the same command goes on from there"
        # The launcher of rank 0 kills everything, rank 0 too, if another rank ends with an error.
        raise Stopped(message, 128 + signum if trainer.is_global_zero else 0)

    def _save_last_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        super()._save_last_checkpoint(trainer, monitor_candidates)
        if trainer.is_global_zero and self.dirpath and "://" not in str(self.dirpath):
            # By what lies on disk, because a run that is killed between a save and this line forgets what it kept.
            saved = sorted(Path(self.dirpath).glob("step=*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
            for path in saved[: -self.keep]:
                trainer.strategy.remove_checkpoint(path)

    # ---------------------------------------------------------------- what is saved

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the random numbers of every rank, and go back to the last optimizer step."""
        since_step = _batches_since_step(trainer)
        own = self._state_after_step if since_step else random_state()
        checkpoint["random_states"] = [own]
        if trainer.world_size > 1:
            checkpoint["random_states"] = [{} for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(checkpoint["random_states"], own)
        checkpoint["accumulate_grad_batches"] = trainer.accumulate_grad_batches
        if since_step:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
            for counts in (progress["current"], progress["total"]):
                counts.update(dict.fromkeys(counts, counts["processed"] - since_step))

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the random numbers until training starts, and count batches anew if a step has more or fewer of them."""
        if trainer.state.fn != "fit":
            return
        for logger in trainer.loggers:
            if isinstance(logger, RunLog):
                logger.go_on()
        self._states = checkpoint.get("random_states", [])
        now = trainer.accumulate_grad_batches
        then = checkpoint.get("accumulate_grad_batches", now)
        if then != now:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
            for counts in (progress["current"], progress["total"]):
                more = counts["processed"] // then * now - counts["processed"]
                counts.update({name: count + more for name, count in counts.items()})


def _batches_since_step(trainer: Trainer) -> int:
    """Batches of the epoch that are processed but not yet in any optimizer step."""
    batches: int = trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
    if batches == trainer.num_training_batches:  # the last step of an epoch takes what there is
        return 0
    return batches % trainer.accumulate_grad_batches
