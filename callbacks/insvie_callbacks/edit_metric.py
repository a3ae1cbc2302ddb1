"""What the callbacks of all metrics have in common: when to score, what to log, and when to stop."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from insvie_lightning.batch import EditBatch, EditedVideos
from insvie_lightning.errors import InputError
from insvie_lightning.metrics.per_sample import PerSample, samples_of
from insvie_lightning.quarantine import Quarantine


class EditMetric(Callback):
    """Score the edits of validation and test by one metric.

    Validation logs `val_NAME`, so that `ModelCheckpoint` can follow an editing score, and test `NAME`: the mean over
    all samples of all processes. The values of single samples stay in `metric.rows` until the next epoch starts.

    A metric that refuses the first sample of a process, as one of captions where there are none, stops the run before
    hours are spent. A later sample that it refuses is set aside in `quarantine-scores-rank0.jsonl` of the run folder,
    and counts as `NAME_skipped`.

    Args:
        metric: What to score by.
        max_seconds: Of each validation, on each process; samples beyond are left out and counted as `NAME_skipped`, so
            that a slow metric cannot hold up training. A test is always whole.
    """

    def __init__(self, metric: PerSample, max_seconds: float | None = None) -> None:
        self.metric = metric
        self.max_seconds = max_seconds
        self._spent = 0.0
        self._skipped = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the networks now, so that absent weights are said before the work begins.

        Raises:
            InputError: Two metrics give one score, which would be logged as their mean.
        """
        names = [column for callback in edit_metrics(trainer) for column in callback.metric.columns]
        for name in names:
            if (count := names.count(name)) > 1:
                raise InputError(f"{count} metrics give the score {name!r}; one name has room for one")
        if stage in ("validate", "test"):
            self.metric.prepare()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Likewise, if training validates at all."""
        if any(trainer.num_val_batches):
            self.metric.prepare()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self._begin(pl_module)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self._begin(pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: EditedVideos,  # type: ignore[override]
        batch: EditBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Score the edits while there is time."""
        if not trainer.sanity_checking:
            self._score(trainer, batch, outputs, self.max_seconds)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: EditedVideos,  # type: ignore[override]
        batch: EditBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Score the edits."""
        self._score(trainer, batch, outputs, None)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the means."""
        if not trainer.sanity_checking:
            self._log(trainer, pl_module, "val_")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the means."""
        self._log(trainer, pl_module, "")

    def _begin(self, pl_module: LightningModule) -> None:
        self.metric.to(pl_module.device)
        self.metric.reset()
        self._spent, self._skipped = 0.0, 0

    def _score(self, trainer: Trainer, batch: EditBatch, edits: EditedVideos, max_seconds: float | None) -> None:
        path = Path(trainer.default_root_dir) / f"quarantine-scores-rank{trainer.global_rank}.jsonl"
        quarantine = Quarantine(path, max_rate=1.0)
        for sample in samples_of(batch, edits):
            if max_seconds is not None and self._spent >= max_seconds:
                self._skipped += 1
                continue
            start = time.perf_counter()
            try:
                self.metric.add(sample)
            except InputError as error:
                if not self.metric.rows:
                    raise
                quarantine.add(sample.key, f"{type(self.metric).__name__}: {error}")
                self._skipped += 1
            self._spent += time.perf_counter() - start

    def _log(self, trainer: Trainer, pl_module: LightningModule, prefix: str) -> None:
        logged: dict[str, Any] = dict(self.metric.compute())
        skipped = trainer.strategy.reduce(torch.tensor(float(self._skipped), device=pl_module.device), reduce_op="sum")
        if skipped:
            logged |= {f"{name}_skipped": skipped for name in self.metric.names}
        for name, value in logged.items():
            pl_module.log(f"{prefix}{name}", value)


def edit_metrics(trainer: Trainer) -> list[EditMetric]:
    """The metrics among a trainer's callbacks, in their order."""
    return [callback for callback in trainer.callbacks if isinstance(callback, EditMetric)]  # type: ignore[attr-defined]


def scores_of(trainer: Trainer) -> dict[str, dict[str, float]]:
    """Key -> column -> value of all edits that this process has scored since its epoch began."""
    scores: dict[str, dict[str, float]] = {}
    for callback in edit_metrics(trainer):
        for key, values in callback.metric.rows.items():
            scores.setdefault(key, {}).update(zip(callback.metric.columns, values, strict=True))
    return scores
