import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from insvie_callbacks import Pixels
from insvie_lightning.batch import EditBatch, EditedVideos


def grey(level: int) -> torch.Tensor:
    return torch.full((1, 2, 3, 16, 16), level, dtype=torch.uint8)


class Editor(LightningModule):
    """It makes everything 10 levels too bright."""

    def test_step(self, batch: EditBatch, batch_idx: int) -> EditedVideos:
        return EditedVideos((grey(110).float() / 127.5) - 1)


@pytest.mark.parametrize(("threshold", "outside"), [(16, -20 * math.log10(10 / 255)), (4, math.nan)])
def test_a_test_logs_every_value(
    tmp_path: Path, make_trainer: Callable[..., Trainer], threshold: int, outside: float
) -> None:
    batch = EditBatch(("a",), ("brighten it",), source=grey(100), edited=grey(105))
    loader: DataLoader = DataLoader([batch], batch_size=None)  # type: ignore[arg-type]
    (logged,) = make_trainer(tmp_path, Pixels(threshold=threshold)).test(Editor(), loader, verbose=False)
    assert logged["psnr_source_db"] == pytest.approx(-20 * math.log10(10 / 255), abs=1e-4)
    assert logged["psnr_target_db"] == pytest.approx(-20 * math.log10(5 / 255), abs=1e-4)
    assert logged["source_psnr_target_db"] == pytest.approx(-20 * math.log10(5 / 255), abs=1e-4)
    assert logged["psnr_outside_db"] == pytest.approx(outside, abs=1e-4, nan_ok=True)
    assert logged.get("psnr_outside_db_missing", 0) == math.isnan(outside)
    assert 0.9 < logged["ssim_source"] < 1
