"""A training's bar is as long as the run."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.utils.data import DataLoader

from insvie_lightning.commands.step_bar import StepBar


class Noting(Callback):
    """Notes the length that the bar is drawn with."""

    def __init__(self) -> None:
        self.whole: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        assert isinstance(trainer.progress_bar_callback, StepBar)
        self.whole.append(trainer.progress_bar_callback.total_train_batches)


@pytest.mark.parametrize(("steps", "epochs", "whole"), [(3, 1, [6]), (8, 2, [10, 6]), (99, 1, [10]), (-1, 1, [10])])
def test_the_bar_ends_where_the_run_ends(steps: int, epochs: int, whole: list[int], tmp_path: Path) -> None:
    noting = Noting()
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, max_epochs=epochs, accumulate_grad_batches=2, logger=False,
        callbacks=[StepBar(), noting], 
        enable_checkpointing=False, enable_model_summary=False, default_root_dir=tmp_path, limit_val_batches=0,
    )  # fmt: skip
    data: Any = DataLoader(torch.zeros(20, 32), batch_size=2)
    trainer.fit(BoringModel(), data)
    assert noting.whole == whole
