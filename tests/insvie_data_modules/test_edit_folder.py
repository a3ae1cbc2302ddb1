"""Videos and instructions to edit."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from lightning import LightningModule, Trainer

from insvie_data_modules.edit_folder import EditFolder
from insvie_lightning.batch import Clip, EditBatch
from insvie_lightning.quarantine import read_quarantine
from insvie_lightning.video import write_clip


@pytest.fixture
def videos(tmp_path: Path, make_clip: Callable[..., Clip], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # where the list of bad ones is, without a trainer
    folder = tmp_path / "videos"
    for name in ("b.mp4", "a cat.mp4"):
        write_clip(folder / name, make_clip(), lossless=True)
    (folder / "notes.txt").write_text("no video")
    return folder


def test_a_folder_is_edited_with_one_instruction(videos: Path) -> None:
    data = EditFolder(videos, "make it blue", batch_size=2, frames=6, size=(16, 24))
    (batch,) = data.predict_dataloader()
    assert isinstance(batch, EditBatch)
    assert batch.keys == ("a_cat", "b") and batch.instructions == ("make it blue", "make it blue")
    assert batch.source is not None and batch.source.shape == (2, 6, 3, 16, 24)
    assert batch.edited is None and batch.position is None and batch.fps == (8.0, 8.0)


def test_a_csv_gives_each_video_its_instruction(videos: Path) -> None:
    csv = videos / "edits.csv"
    csv.write_text('video,instruction\nb.mp4,"red, please"\nb.mp4,\na cat.mp4,a dog\n', encoding="utf-8-sig")
    batches = list(EditFolder(csv, "blue").predict_dataloader())
    assert [(batch.keys[0], batch.instructions[0]) for batch in batches] == [
        ("b", "red, please"),
        ("b-2", "blue"),
        ("a_cat", "a dog"),
    ]


def test_a_table_for_a_test_brings_captions_and_edit_types(videos: Path) -> None:
    csv = videos / "edits.csv"
    csv.write_text("video,instruct,caption,wish,task\nb.mp4,red,a b,a red b,colour\n")
    (batch,) = EditFolder(csv, max_frames=2, columns={"edited_caption": "wish"}).test_dataloader()
    assert (batch.source_captions, batch.edited_captions, batch.edit_types) == (("a b",), ("a red b",), ("colour",))
    assert batch.source[0, :, 2, 0, 0].tolist() == [0, 3]


def test_what_is_done_is_left_out(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "b.mp4").touch()
    batches = list(EditFolder(videos, "blue", done=tmp_path).predict_dataloader())
    assert [batch.keys for batch in batches] == [("a_cat",)]


def left_and_bad(data: EditFolder) -> tuple[list[str], dict[str, str]]:
    """The keys that come through, and key -> reason of what is set aside."""
    keys = [key for batch in data.predict_dataloader() for key in batch.keys]
    return keys, read_quarantine(Path("quarantine-data-rank0.jsonl"))


def test_one_output_of_two_videos_is_set_aside(videos: Path) -> None:
    csv = videos / "edits.csv"
    csv.write_text("video,instruction,output\nb.mp4,red,x.mp4\na cat.mp4,red,./x.mp4\n")
    keys, bad = left_and_bad(EditFolder(csv))
    assert keys == ["x"]
    assert re.search(r"the output './x.mp4' is that of .*b\.mp4 and of .*a cat\.mp4; name another", bad["a_cat"])


def test_one_video_is_enough(videos: Path) -> None:
    (batch,) = EditFolder(videos / "b.mp4", "make it blue").test_dataloader()
    assert batch.keys == ("b",) and batch.source.shape == (1, 4, 3, 32, 48)


def test_a_video_without_an_instruction_is_set_aside(videos: Path) -> None:
    csv = videos / "edits.csv"
    csv.write_text("video,instruction\nb.mp4,red\na cat.mp4,\n")
    keys, bad = left_and_bad(EditFolder(csv))
    assert keys == ["b"] and "a cat.mp4 has no instruction: give one for all, or a CSV" in bad["a_cat"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_broken_video_is_set_aside(videos: Path, batch_size: int, workers: int) -> None:
    shutil.copy(videos / "b.mp4", videos / "c.mp4")
    (videos / "b.mp4").write_bytes(b"no video")
    keys, bad = left_and_bad(EditFolder(videos, "blue", batch_size=batch_size, num_workers=workers))
    assert keys == ["a_cat", "c"] and list(bad) == ["b"] and "b.mp4: no readable video" in bad["b"]
    keys, bad = left_and_bad(EditFolder(videos, "blue"))
    assert list(bad) == ["b"], "a rerun begins a new list"


def test_predict_goes_on_behind_broken_videos(videos: Path) -> None:
    """Lightning counts on more batches than come."""
    shutil.copy(videos / "b.mp4", videos / "c.mp4")
    for name in ("a cat.mp4", "c.mp4"):
        (videos / name).write_bytes(b"no video")
    model = Seeing()
    trainer = Trainer(logger=False, enable_progress_bar=False, accelerator="cpu", default_root_dir=videos / "run")
    with pytest.warns(UserWarning, match="2 edits are bad and left out"):
        trainer.predict(model, datamodule=EditFolder(videos, "blue"), return_predictions=False)
    assert model.seen == ["b"]
    assert set(read_quarantine(videos / "run" / "quarantine-data-rank0.jsonl")) == {"a_cat", "c"}


class Seeing(LightningModule):
    """Remembers the keys that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def predict_step(self, batch: EditBatch, batch_idx: int) -> None:
        self.seen += batch.keys
