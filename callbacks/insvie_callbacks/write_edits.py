"""The edited videos of `insvie predict`, as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info

from insvie_lightning.batch import Clip, EditBatch, EditedVideos
from insvie_lightning.video import write_clip


class WriteEdits(BasePredictionWriter):
    """Write every edited video of `insvie predict` as `KEY.mp4`, whole or not at all; each process writes its own.

    Args:
        folder: Where to. Give it to `EditFolder` as `done`, too, and a rerun goes on where the last one stopped;
            a folder of its own, since a `KEY.mp4` that is there already is replaced.
        fps: Frame rate; None is the editor's own (`edit_options.fps`), else each source's.
    """

    def __init__(self, folder: Path, fps: float | None = None) -> None:
        super().__init__(write_interval="batch")
        self.folder = folder
        self.fps = fps

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: EditedVideos,
        batch_indices: Sequence[int] | None,
        batch: EditBatch,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the videos of one batch."""
        from insvie_lightning.nets.latents import to_uint8

        asked = self.fps or getattr(getattr(pl_module, "edit_options", None), "fps", None)
        for key, edited, fps in zip(batch.keys, to_uint8(prediction.edited).cpu().numpy(), batch.fps, strict=True):
            write_clip(self.folder / f"{key}.mp4", Clip(edited, asked or fps))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say where they are."""
        rank_zero_info(f"the edited videos are in {self.folder}")
