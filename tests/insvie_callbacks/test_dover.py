from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from insvie_callbacks import Dover
from insvie_data_modules.toy_scenes import ToyScenes
from insvie_lightning.batch import EditBatch, EditedVideos
from insvie_lightning.errors import InputError
from insvie_lightning.metrics import dover
from insvie_lightning.nets.latents import to_device_pixels


class Mean(nn.Module):
    """In place of the network."""

    def technical(self, clips: Tensor) -> Tensor:
        return clips.mean() / 10

    aesthetic = technical


class Copy(LightningModule):
    """Edits by doing nothing."""

    def test_step(self, batch: EditBatch, batch_idx: int) -> EditedVideos:
        assert batch.source is not None
        return EditedVideos(to_device_pixels(batch.source))

    validation_step = test_step


def test_edits_and_their_sources_are_scored(make_trainer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []
    monkeypatch.setattr(dover, "load_dover", lambda weights: asked.append(weights) or Mean())
    trainer = make_trainer(tmp_path, Dover("here", samples=2))
    (scores,) = trainer.test(Copy(), ToyScenes(2, test_samples=2), verbose=False)
    names = {"dover_technical", "dover_aesthetic", "dover_overall"}
    assert scores.keys() == names | {f"source_{name}" for name in names}
    assert scores["dover_aesthetic"] == pytest.approx(scores["source_dover_aesthetic"]) and asked == ["here"]


def test_options_reach_the_metric() -> None:
    callback = Dover("here", antialias=True, samples=3, with_source=False, max_seconds=5)
    metric = callback.metric
    assert isinstance(metric, dover.Dover) and callback.max_seconds == 5
    assert (metric.antialias, metric.samples, metric.with_source) == (True, 3, False)


def test_absent_weights_are_said_before_the_work_begins(make_trainer: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no file DOVER\.pth"):
        make_trainer(tmp_path, Dover(str(tmp_path))).test(Copy(), ToyScenes(2, test_samples=2), verbose=False)
