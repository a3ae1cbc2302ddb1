"""Write what a run delivers."""

from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from insvie_lightning.weights.deliverable import save_deliverable


class SaveEditor(Callback):
    """Write the trained editor (raw and averaged weights) with every checkpoint and at the end of training.

    Args:
        folder: Where to; None is `weights` in the run's folder. `InsViE.from_pretrained` and `start_from` read it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Deliver what the checkpoint holds; a validation in progress has the average in place of the weights."""
        if not trainer.validating:
            self._save(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Deliver the last weights."""
        self._save(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Say where it is, below the bar."""
        folder = self._folder(trainer)
        if stage == "fit" and (folder / "editor.json").exists():
            rank_zero_info(f"the editor after step {trainer.global_step}: insvie edit --weights {folder}")

    def _folder(self, trainer: Trainer) -> Path:
        return self.folder or Path(trainer.default_root_dir) / "weights"

    def _save(self, trainer: Trainer, pl_module: LightningModule) -> None:
        made = pl_module.deliverable()  # type: ignore[operator]  # by all processes, which may share the weights
        if trainer.is_global_zero:
            save_deliverable(made, self._folder(trainer))
