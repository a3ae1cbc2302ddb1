"""Exact editing scores in the toy world, beside those of the baselines that a real edit must beat."""

from dataclasses import replace
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from insvie_lightning.batch import EditBatch, EditedVideos
from insvie_lightning.metrics.toy import ToyEditScore
from insvie_lightning.nets.latents import to_device_pixels
from insvie_lightning.toy.edits import example_of_key, wrong_instruction

BASELINES = ("copy", "wrong_text", "no_source")


class ToyScores(Callback):
    """Recolour and removal accuracy and PSNR of toy edits, at validation and test.

    At test, three baselines are scored on the same samples: `copy_` returns the source, `wrong_text_` is asked for
    another edit (it must not do the right one by habit), `no_source_` does not see the source.

    Args:
        baselines: Score the baselines, too.
    """

    def __init__(self, baselines: bool = True) -> None:
        self.names = ("", *(f"{name}_" for name in BASELINES)) if baselines else ("",)
        self.scores: dict[str, ToyEditScore] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """One metric for the editor and for each baseline."""
        self.scores = {name: ToyEditScore() for name in self.names}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go where the editor is, which it is not yet in `setup`: processes exchange what lies on their GPUs."""
        self._move(pl_module)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Likewise."""
        self._move(pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: EditedVideos,  # type: ignore[override]
        batch: EditBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Score the edits."""
        self._score(outputs, batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: EditedVideos,  # type: ignore[override]
        batch: EditBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Score the edits and the baselines."""
        edit: Any = pl_module.edit_batch
        assert batch.source is not None
        self._score(outputs, batch)
        if "copy_" in self.scores:
            wrong = tuple(wrong_instruction(example_of_key(key)) for key in batch.keys)
            self.scores["copy_"].update(to_device_pixels(batch.source), batch.keys)
            self.scores["wrong_text_"].update(edit(replace(batch, instructions=wrong)), batch.keys)
            self.scores["no_source_"].update(edit(batch, keep_source=False), batch.keys)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the editor's scores."""
        self._log(pl_module, "val_", ("",))

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log all scores."""
        self._log(pl_module, "", self.names)

    def _move(self, pl_module: LightningModule) -> None:
        for score in self.scores.values():
            score.to(pl_module.device)

    def _score(self, outputs: EditedVideos, batch: EditBatch) -> None:
        edited = outputs.edited
        self.scores[""].update(to_device_pixels(edited) if edited.dtype == torch.uint8 else edited, batch.keys)

    def _log(self, pl_module: LightningModule, prefix: str, names: tuple[str, ...]) -> None:
        for name in names:
            for score, value in self.scores[name].compute().items():
                pl_module.log(f"{prefix}{name}{score}", value)
            self.scores[name].reset()
