"""Write what a run delivers."""

from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

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

    def _save(self, trainer: Trainer, pl_module: LightningModule) -> None:
        made = pl_module.deliverable()  # type: ignore[operator]  # by all processes, which may share the weights
        if trainer.is_global_zero:
            save_deliverable(made, self.folder or Path(trainer.default_root_dir) / "weights")
