"""Edits that another tool made."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader

from insvie_lightning.batch import Clip, EditBatch, EditedVideos
from insvie_lightning.editors import GivenEdits
from insvie_lightning.errors import InputError
from insvie_lightning.quarantine import read_quarantine
from insvie_lightning.video import sample_frames, write_clip


class Keep(Callback):
    """Keeps what a test step returns."""

    def __init__(self) -> None:
        self.found: list[EditedVideos] = []

    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.found.append(outputs)


def source(frames: int = 5, size: tuple[int, int] = (32, 32)) -> np.ndarray:
    """Noise that is smooth enough to survive a resize."""
    coarse = np.random.default_rng(0).integers(0, 256, (frames, 3, 4, 4), np.uint8)
    return coarse.repeat(size[0] // 4, 2).repeat(size[1] // 4, 3)


def write(path: Path, frames: np.ndarray) -> None:
    write_clip(path, Clip(frames, 8.0), lossless=True)


def score(given: GivenEdits, folder: Path, *batches: EditBatch) -> list[EditedVideos]:
    keep = Keep()
    trainer = Trainer(
        accelerator="cpu", devices=1, default_root_dir=folder, logger=False, callbacks=[keep],
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.test(given, DataLoader(list(batches), batch_size=None), verbose=False)  # type: ignore[arg-type]
    return keep.found


def batch(*keys: str, **parts: Any) -> EditBatch:
    whole = torch.from_numpy(np.stack([source()] * len(keys)))
    return EditBatch(keys, ("invert",) * len(keys), source=whole, **parts)


@pytest.fixture
def edited(tmp_path: Path) -> Path:
    folder = tmp_path / "edited"
    write(folder / "a.mp4", 255 - source())
    write(folder / "new/short.mp4", 255 - source()[:3])
    write(folder / "long.mp4", 255 - source(9))
    return folder


def test_edits_are_those_of_the_folder(edited: Path, tmp_path: Path) -> None:
    (result,) = score(GivenEdits(edited), tmp_path, batch("a"))
    assert np.array_equal(result.edited[0], 255 - source()) and not result.missing
    assert result.source is not None and np.array_equal(result.source[0], source())


def test_a_source_is_cut_to_the_frames_of_its_edit(edited: Path, tmp_path: Path) -> None:
    target = torch.from_numpy(source()[None] // 2)
    short, long = score(GivenEdits(edited), tmp_path, batch("new/short", edited=target), batch("long"))
    assert short.edited.shape == short.source.shape == short.target.shape == (1, 3, 3, 32, 32)  # type: ignore[union-attr]
    assert np.array_equal(short.source[0], source()[:3])  # type: ignore[index]
    assert np.array_equal(short.target[0], source()[:3] // 2)  # type: ignore[index]
    assert long.edited.shape == (1, 5, 3, 32, 32)  # what is beyond the source is left out


def test_an_edit_of_another_size_is_brought_back(edited: Path, tmp_path: Path) -> None:
    write(edited / "wide.mp4", source(5, (32, 48)))
    (result,) = score(GivenEdits(edited), tmp_path, batch("wide"))
    assert result.edited.shape == (1, 5, 3, 32, 32)
    assert np.abs(result.edited[0].numpy().astype(int) - source()).mean() < 12


def test_a_source_is_cut_as_the_release_cuts(edited: Path, tmp_path: Path) -> None:
    write(edited / "cut.mp4", source()[:3, :, 8:24])
    (result,) = score(GivenEdits(edited, resize="cover"), tmp_path, batch("cut"))
    assert result.source is not None
    assert np.array_equal(result.source[0], source()[:3, :, 8:24])
    assert np.array_equal(result.edited, result.source)


def test_what_is_missing_is_set_aside_and_the_rest_goes_on(edited: Path, tmp_path: Path) -> None:
    (edited / "broken.mp4").write_bytes(b"no video")
    results = score(GivenEdits(edited), tmp_path, batch("absent", "a"), batch("broken"), batch("a"))
    assert [result.missing for result in results] == [{"absent"}, {"broken"}, frozenset()]
    assert np.array_equal(results[0].edited[1], 255 - source())
    reasons = read_quarantine(tmp_path / "quarantine-rank0.jsonl")
    assert list(reasons) == ["absent", "broken"]
    assert "there is no" in reasons["absent"] and "no readable video" in reasons["broken"]
    score(GivenEdits(edited), tmp_path, batch("a"))  # another run begins a new list
    assert not read_quarantine(tmp_path / "quarantine-rank0.jsonl")


def test_edits_of_two_lengths_cannot_share_a_batch(edited: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'a' and 'new/short' cannot share a batch: .*--data\.batch_size 1"):
        score(GivenEdits(edited), tmp_path, batch("a", "new/short"))


def test_a_folder_that_is_none_is_said_before_the_work_begins(edited: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no folder '.*editd' of edits; did you mean 'edited'"):
        score(GivenEdits(tmp_path / "editd"), tmp_path, batch("a"))


def test_other_endings_are_found(edited: Path, tmp_path: Path) -> None:
    (edited / "a.mp4").rename(edited / "b.mkv")
    (result,) = score(GivenEdits(edited), tmp_path, batch("b"))
    assert not result.missing


def test_an_edit_of_all_frames_is_sampled_as_its_source_was(edited: Path, tmp_path: Path) -> None:
    whole = source(9)
    sampled = torch.from_numpy(sample_frames(Clip(whole, 8.0), 5).frames)[None]
    every = EditBatch(("long",), ("invert",), source=sampled)
    first, same = (score(GivenEdits(edited, longer=longer), tmp_path, every)[0] for longer in ("first", "sample"))
    assert np.array_equal(first.edited[0], 255 - whole[:5])
    assert np.array_equal(same.edited[0], 255 - sampled[0])
    (short,) = score(GivenEdits(edited, longer="sample"), tmp_path, batch("new/short"))
    assert short.edited.shape[1] == 3


def test_cached_latents_have_nothing_to_compare_with(edited: Path, tmp_path: Path) -> None:
    latents = EditBatch(("a",), ("invert",), source_latents=torch.zeros(1, 2, 4, 4, 4))
    with pytest.raises(InputError, match="sample 'a' comes from cached latents; scores need shards of videos"):
        score(GivenEdits(edited), tmp_path, latents)
