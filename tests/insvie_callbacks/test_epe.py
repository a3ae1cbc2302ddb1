from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.nn import functional as F
from torch.utils.data import DataLoader

from insvie_callbacks import EPE
from insvie_lightning.batch import EditBatch, EditedVideos
from insvie_lightning.errors import InputError


def clip(pixels: int) -> torch.Tensor:
    """Smooth noise 1 3 3 40 64 that moves so many pixels to the right in each frame."""
    noise = torch.rand(1, 3, 50, 90, generator=torch.Generator().manual_seed(0))
    texture = (F.avg_pool2d(F.avg_pool2d(noise, 6, 1), 6, 1)[0] - 0.4).clamp(0, 0.2) * 5
    return torch.stack([texture[:, :40, 10 - pixels * i : 74 - pixels * i] for i in range(3)])[None]


class Editor(LightningModule):
    """Whatever it is shown, it returns a still picture."""

    def validation_step(self, batch: EditBatch, batch_idx: int) -> EditedVideos:
        return EditedVideos(clip(0) * 2 - 1)

    test_step = validation_step


def loader() -> DataLoader:
    batch = EditBatch(("a",), ("stop the car",), source=(clip(2) * 255).round().byte())
    return DataLoader([batch], batch_size=None)  # type: ignore[arg-type]


def test_validation_and_test_log_the_error(tmp_path: Path, make_trainer: Callable[..., Trainer]) -> None:
    callback = EPE()
    trainer = make_trainer(tmp_path, callback)
    (validated,) = trainer.validate(Editor(), loader(), verbose=False)
    assert validated == {"val_epe_dis_px": pytest.approx(2, abs=0.01)}
    (tested,) = trainer.test(Editor(), loader(), verbose=False)
    assert tested == {"epe_dis_px": pytest.approx(2, abs=0.01)}
    assert callback.metric.rows["a"] == (pytest.approx(2, abs=0.01),)


def test_absent_weights_are_said_before_the_first_batch(tmp_path: Path, make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(tmp_path, EPE(backend="gmflow", weights=str(tmp_path / "gmflow.pth")))
    with pytest.raises(InputError, match=r"gmflow\.pth does not exist"):
        trainer.test(Editor(), loader(), verbose=False)


def test_a_validation_takes_no_longer_than_it_may(tmp_path: Path, make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(tmp_path, EPE(max_seconds=0))
    (validated,) = trainer.validate(Editor(), loader(), verbose=False)
    assert validated["val_epe_dis_px_skipped"] == 1
