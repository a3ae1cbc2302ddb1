"""Toy scenes drawn on the fly: disjoint splits, what the filters keep, what a batch is."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch

from insvie_data_modules.toy_scenes import ToyScenes
from insvie_lightning.batch import EditBatch, Triplet
from insvie_lightning.cli import main
from insvie_lightning.errors import InputError
from insvie_lightning.toy.edits import example_of_key
from insvie_lightning.toy.scene import render

SMALL: dict[str, Any] = {"size": (16, 24), "frames": 5, "batch_size": 4}


def keys(loader: Iterable[EditBatch]) -> list[str]:
    return [key for batch in loader for key in batch.keys]


def test_splits_share_no_scene() -> None:
    data = ToyScenes(samples=40, val_samples=20, test_samples=30, **SMALL)
    loaders = {"train": data.train_dataloader(), "val": data.val_dataloader(), "test": data.test_dataloader()}
    scenes: list[Any] = []
    for (split, loader), count in zip(loaders.items(), (40, 20, 30), strict=True):
        found = keys(loader)
        assert found == [f"toy-{split}-{index:07d}" for index in range(count)]
        scenes += [example_of_key(key).source for key in found]
    assert len(set(scenes)) == 90


def test_filters_hold_where_they_are_meant_to() -> None:
    data = ToyScenes(
        samples=12, val_samples=8, test_samples=10, edit_types=("add", "style"),
        test_edit_types=("recolour", "remove"), test_origins=("real",), **SMALL,
    )  # fmt: skip
    for loader, count in ((data.train_dataloader(), 12), (data.val_dataloader(), 8)):
        drawn = [example_of_key(key) for key in keys(loader)]
        assert len(drawn) == count and {sample.edit_type for sample in drawn} == {"add", "style"}
        assert {sample.origin for sample in drawn} > {"real"}
    tested = [example_of_key(key) for key in keys(data.test_dataloader())]
    assert len(set(tested)) == 10 and {sample.edit_type for sample in tested} == {"recolour", "remove"}
    assert {sample.origin for sample in tested} == {"real"}


def test_without_filters_every_edit_type_and_origin_comes() -> None:
    drawn = [example_of_key(key) for key in keys(ToyScenes(test_samples=120, **SMALL).test_dataloader())]
    assert len({sample.edit_type for sample in drawn}) == 7 and len({sample.origin for sample in drawn}) == 3


def test_a_batch_holds_the_drawn_pixels_and_all_that_is_known() -> None:
    batches = list(ToyScenes(samples=6, size=(32, 48), frames=5, batch_size=4).train_dataloader())
    assert [len(batch) for batch in batches] == [4, 2]
    for batch in batches:
        assert isinstance(batch, EditBatch) and batch.position is None and batch.source_latents is None
        assert batch.source.shape == batch.edited.shape == (len(batch), 5, 3, 32, 48)
        assert batch.source.dtype == batch.edited.dtype == torch.uint8
        for place, key in enumerate(batch.keys):
            sample = example_of_key(key)
            np.testing.assert_array_equal(batch.source[place].numpy(), render(sample.source, 5, 32, 48))
            np.testing.assert_array_equal(batch.edited[place].numpy(), render(sample.edited, 5, 32, 48))
            assert (batch.instructions[place], batch.origins[place]) == (sample.instruction, sample.origin)
            assert batch.source_captions[place] and batch.edited_captions[place] and batch.fps[place] == 8.0


def test_the_size_is_that_of_the_toy_world_unless_told_otherwise() -> None:
    batch = next(iter(ToyScenes(samples=2).train_dataloader()))
    assert batch.source.shape == (2, 9, 3, 64, 96)


def test_workers_change_nothing() -> None:
    alone, shared = (list(ToyScenes(samples=10, num_workers=n, **SMALL).train_dataloader()) for n in (0, 2))
    assert len(alone) == len(shared) == 3
    for first, second in zip(alone, shared, strict=True):
        assert (first.keys, first.instructions, first.origins) == (second.keys, second.instructions, second.origins)
        assert torch.equal(first.source, second.source) and torch.equal(first.edited, second.edited)


def test_a_builder_is_given_the_training_triplets() -> None:
    inputs = ToyScenes(samples=3, **SMALL).inputs()
    triplets = [inputs[index].sample for index in range(3)]
    assert all(isinstance(triplet, Triplet) for triplet in triplets)
    assert [triplet.key for triplet in triplets] == [f"toy-train-{index:07d}" for index in range(3)]
    assert inputs.keys.to_pylist() == [triplet.key for triplet in triplets]
    assert all(triplet.scores == {"judge": 5.0, "epe_px": 0.0} for triplet in triplets)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"test_edit_types": ("recolor",)}, "edit type 'recolor' is not of the toy world: legal are recolour, remove"),
        ({"test_origins": ("still",)}, "origin 'still' is not of the toy world: legal are real, pair, static"),
    ],
)
def test_an_unknown_filter_is_bad_input(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        ToyScenes(**options).test_dataloader()


def test_an_unknown_filter_is_bad_input_on_the_command_line(
    capfd: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "-c", "build_toy", f"--model.output={tmp_path}", "--data.edit_types=[recolor]"]) == 2
    assert "edit type 'recolor' is not of the toy world" in capfd.readouterr().err.splitlines()[-1]
