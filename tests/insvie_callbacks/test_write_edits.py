"""What an editor predicts, as files."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer

from insvie_callbacks.write_edits import WriteEdits
from insvie_data_modules.edit_folder import EditFolder
from insvie_lightning.batch import Clip, EditBatch, EditedVideos
from insvie_lightning.cli import main
from insvie_lightning.nets.latents import to_device_pixels
from insvie_lightning.video import read_clip, write_clip


class Inverting(LightningModule):
    def predict_step(self, batch: EditBatch, batch_idx: int) -> EditedVideos:
        assert batch.source is not None
        return EditedVideos(-to_device_pixels(batch.source))


def predict(data: EditFolder, *callbacks: WriteEdits) -> None:
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, callbacks=list(callbacks),
    )  # fmt: skip
    trainer.predict(Inverting(), data, return_predictions=False)


def test_every_video_is_written_at_its_rate_and_a_rerun_skips_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, fps in (("a", 12.5), ("b", 8.0), ("c d", 8.0)):
        write_clip(tmp_path / f"{name}.mp4", Clip(np.full((3, 3, 32, 48), 60, np.uint8), fps))
    out = tmp_path / "out"
    data = EditFolder(tmp_path, "invert", batch_size=2, done=out)
    with caplog.at_level("INFO"):
        predict(data, WriteEdits(out))
    assert f"the edited videos are in {out}" in caplog.messages
    assert sorted(path.name for path in out.iterdir()) == ["a.mp4", "b.mp4", "c_d.mp4"]
    edited = read_clip(out / "a.mp4")
    assert edited.fps == 12.5 and np.abs(edited.frames.astype(int) - 195).max() <= 3
    (out / "b.mp4").unlink()
    before = (out / "a.mp4").stat().st_mtime_ns
    predict(data, WriteEdits(out, fps=7))
    assert read_clip(out / "b.mp4").fps == 7 and (out / "a.mp4").stat().st_mtime_ns == before


def test_the_outputs_that_a_table_names_are_written_and_skipped(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_clip(tmp_path / f"{name}.mp4", Clip(np.full((3, 3, 32, 48), 60, np.uint8), 8.0))
    (tmp_path / "edits.csv").write_text("video,instruction,output\na.mp4,x,new/c.v2.mp4\nb.mp4,x,\n")
    out = tmp_path / "out"
    data = EditFolder(tmp_path / "edits.csv", done=out)
    predict(data, WriteEdits(out))
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.mp4")) == ["b.mp4", "new/c.v2.mp4"]
    assert len(data.predict_dataloader()) == 0


def test_the_release_s_rate_can_be_asked_for(tmp_path: Path) -> None:
    batch = EditBatch(("k",), ("x",), source=torch.zeros(1, 2, 3, 32, 48, dtype=torch.uint8), fps=(25.0,))
    prediction = EditedVideos(torch.zeros(1, 2, 3, 32, 48))
    WriteEdits(tmp_path, fps=7).write_on_batch_end(None, None, prediction, None, batch, 0, 0)  # type: ignore[arg-type]
    assert read_clip(tmp_path / "k.mp4").fps == 7


def test_the_recipe_writes_and_keeps_no_video_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write_clip(tmp_path / f"videos/{name}.mp4", Clip(np.full((6, 3, 40, 50), 60, np.uint8), 8.0))
    returned: list[object] = []
    plain = Trainer.predict  # whose arguments are the options of the verb
    spy = functools.wraps(plain)(lambda *a, **k: returned.append(plain(*a, **k)))
    monkeypatch.setattr(Trainer, "predict", spy)
    recipe = ["predict", "-c", "edit_folder", "--data.instruction=remove it", "--data.num_workers=0"]
    model = ["--model.base=toy", "--model.num_inference_steps=1", "--model.lora_rank=2"]
    trainer = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.precision=32-true"]
    assert main([*recipe, *model, *trainer]) == 0
    assert returned == [None]
    assert read_clip(tmp_path / "runs/edits/b.mp4").frames.shape == (6, 3, 40, 50)
