"""A stand-in for an editor: one trained number, one frozen, so that every value can be worked out by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from insvie_lightning.weights.deliverable import Deliverable, trainable_weights


class Network(torch.nn.Module):
    def __init__(self, start: float) -> None:
        super().__init__()
        self.trained = torch.nn.Parameter(torch.tensor([start]))
        self.frozen = torch.nn.Parameter(torch.tensor([7.0]), requires_grad=False)


class Editor(LightningModule):
    """Its trained weight falls by `rate` at every optimizer step; validation notes the weight it is run with."""

    def __init__(self, start: float = 0.0, rate: float = 1.0, fail_at: int = -1) -> None:
        super().__init__()
        self.transformer = Network(start)
        self.ema: dict[str, torch.Tensor] | None = None
        self.ema_updates = 0
        self.rate, self.fail_at = rate, fail_at
        self.validated: list[float] = []
        self.trained: list[float] = []

    @property
    def weight(self) -> float:
        return self.transformer.trained.item()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if batch_idx == self.fail_at:
            raise RuntimeError("power cut")
        self.trained.append(self.weight)
        loss = self.transformer.trained.sum()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validated.append(self.weight)
        self.log("val_loss", self.transformer.trained.sum())

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.validated.append(self.weight)
        self.log("score", 3.5)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.transformer.trained], self.rate)

    def deliverable(self) -> Deliverable:
        return Deliverable({"base": "none"}, trainable_weights(self.transformer), self.ema, self.ema_updates)


@pytest.fixture(scope="session")
def make_editor() -> Callable[..., Editor]:
    """Build an editor from its first weight, learning rate and the batch at which it fails."""
    return Editor


@pytest.fixture(scope="session")
def make_trainer() -> Callable[..., Trainer]:
    """Build a silent trainer on the CPU from its run folder and callbacks."""

    def make(folder: Path, *callbacks: Callback, **options: Any) -> Trainer:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        checkpoints = {"enable_checkpointing": any("Checkpoint" in type(callback).__name__ for callback in callbacks)}
        defaults = {"default_root_dir": folder, "accelerator": "cpu", "log_every_n_steps": 1, "max_epochs": 1}
        return Trainer(callbacks=list(callbacks), **{**quiet, **checkpoints, **defaults, **options})

    return make


@pytest.fixture(scope="session")
def numbers() -> Callable[[int], DataLoader]:
    """Build a loader of so many batches."""
    return lambda count: DataLoader(torch.zeros(count, 1), batch_size=1)  # type: ignore[arg-type]
