import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from insvie_callbacks.edit_samples import EditSamples
from insvie_lightning.batch import Clip, EditBatch, EditedVideos, Triplet, collate
from insvie_lightning.report.media import Budget
from insvie_lightning.report.run import galleries, read_run
from insvie_lightning.video import read_clip


class Inverter(LightningModule):
    """Returns the source with its colours inverted; the target is exactly that."""

    def __init__(self, as_float: bool = True) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.as_float = as_float

    def training_step(self, batch: EditBatch, batch_idx: int) -> torch.Tensor:
        return self.weight.square().sum()

    def validation_step(self, batch: EditBatch, batch_idx: int) -> EditedVideos:
        edited = 255 - batch.source
        return EditedVideos(edited / 127.5 - 1 if self.as_float else edited)

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def triplet(i: int) -> Triplet:
    grey = np.full((3, 3, 16, 24), 20 * i, np.uint8)
    return Triplet(f"scene-{i}", Clip(grey, 5.0), Clip(255 - grey, 5.0), f"invert <{i}>")


def loader(count: int = 6, **changes: Any) -> DataLoader:
    def collate_fn(triplets: list[Triplet]) -> EditBatch:
        batch = collate(triplets)
        return EditBatch(**{name: changes.get(name, getattr(batch, name)) for name in batch.__slots__})

    return DataLoader([triplet(i) for i in range(count)], batch_size=2, collate_fn=collate_fn)  # type: ignore[arg-type]


def trainer(folder: Path, callback: EditSamples, **arguments: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=CSVLogger(folder, name="", version=""),
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **arguments,
    )


@pytest.mark.parametrize("as_float", [True, False])
def test_clips_and_list_of_a_test(tmp_path: Path, as_float: bool) -> None:
    trainer(tmp_path, EditSamples(max_samples=3)).test(Inverter(as_float), loader(), verbose=False)
    folder = tmp_path / "samples/step-000000"
    clips = {f"scene-{i}.{part}.mp4" for i in range(3) for part in ("source", "edited", "target")}
    assert {path.name for path in folder.iterdir()} == clips | {"samples.json"}
    entries = json.loads((folder / "samples.json").read_text())
    assert [entry["key"] for entry in entries] == ["scene-0", "scene-1", "scene-2"]
    assert entries[2]["instruction"] == "invert <2>"
    assert entries[2]["scores"]["psnr_db"] == pytest.approx(78.13, abs=0.01)
    edited = read_clip(folder / "scene-2.edited.mp4")
    assert (len(edited), edited.size, edited.fps) == (3, (16, 24), 5.0)
    assert abs(int(edited.frames.mean()) - (255 - 40)) <= 3


def test_fit_writes_every_second_epoch_and_no_sanity_check(tmp_path: Path) -> None:
    callback = EditSamples(max_samples=1, every_n_epochs=2)
    trainer(tmp_path, callback, max_epochs=4).fit(Inverter(), loader(2), loader(4))
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["step-000002", "step-000004"]


def test_what_the_batch_lacks_is_left_out(tmp_path: Path) -> None:
    trainer(tmp_path, EditSamples()).test(Inverter(), loader(2, edited=None, fps=()), verbose=False)
    folder = tmp_path / "samples/step-000000"
    assert not list(folder.glob("*.target.mp4"))
    assert [entry["scores"] for entry in json.loads((folder / "samples.json").read_text())] == [{}, {}]
    assert read_clip(folder / "scene-1.edited.mp4").fps == 8.0


def test_report_reads_what_is_written(tmp_path: Path) -> None:
    trainer(tmp_path, EditSamples()).test(Inverter(), loader(), verbose=False)
    (gallery,) = galleries(read_run(tmp_path), Budget())
    assert [sample.instruction for sample in gallery.samples] == [f"invert <{i}>" for i in range(6)]
    assert list(gallery.samples[0].clips) == ["source", "edited", "target"]


def test_other_processes_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    callback, batch = EditSamples(), collate([triplet(0)])
    other = trainer(tmp_path, callback)
    monkeypatch.setattr(type(other.strategy), "is_global_zero", property(lambda strategy: False))
    callback.setup(other, Inverter(), "test")
    callback.on_test_batch_end(other, Inverter(), EditedVideos(batch.edited), batch, 0)
    assert not (tmp_path / "samples").exists()
