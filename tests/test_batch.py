"""The data contracts: stacking, moving, and what is optional."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device

from insvie_lightning.batch import ORIGINS, TENSORS, Clip, EditBatch, EditedVideos, Position, Triplet, collate


def triplet(key: str, value: int) -> Triplet:
    source = Clip(np.full((5, 3, 16, 24), value, np.uint8), 8.0 + value)
    edited = Clip(255 - source.frames, source.fps)
    return Triplet(key, source, edited, f"invert {key}", f"a {key}", f"no {key}", origin="static")


def test_a_clip_knows_its_size() -> None:
    clip = triplet("a", 1).source
    assert (len(clip), clip.size, repr(clip)) == (5, (16, 24), "Clip(5 x 3 x 16 x 24, 9 fps)")
    with pytest.raises(FrozenInstanceError):
        clip.fps = 3.0  # type: ignore[misc]


def test_triplets_are_stacked_in_their_order() -> None:
    batch = collate([triplet("a", 1), triplet("b", 2)])
    assert (len(batch), batch.keys, batch.instructions) == (2, ("a", "b"), ("invert a", "invert b"))
    assert (batch.source_captions, batch.edited_captions) == (("a a", "a b"), ("no a", "no b"))
    assert (batch.origins, batch.fps, batch.position) == (("static", "static"), (9.0, 10.0), None)
    assert batch.source is not None and batch.edited is not None
    assert batch.source.shape == (2, 5, 3, 16, 24) and batch.source.dtype == torch.uint8
    assert batch.source[:, 0, 0, 0, 0].tolist() == [1, 2] and batch.edited[:, 0, 0, 0, 0].tolist() == [254, 253]
    assert batch.source_latents is None


def test_every_tensor_is_moved_and_nothing_else() -> None:
    tensors = {name: torch.ones(1) for name in TENSORS}
    batch = EditBatch(("a",), ("invert",), **tensors, origins=("pair",), position=Position("s1", 0, 3))
    moved = batch.to("meta")
    for name in tensors:
        assert getattr(moved, name).is_meta and not getattr(batch, name).is_meta
    assert (moved.keys, moved.origins, moved.position) == (batch.keys, batch.origins, batch.position)
    assert EditBatch(("a",), ("invert",), source=torch.ones(1)).to("meta").edited is None


def test_edited_videos_are_moved() -> None:
    moved = EditedVideos(torch.ones(1), target=torch.ones(1), missing=frozenset("a")).to("meta")
    assert moved.edited.is_meta and moved.source is None and moved.target.is_meta and moved.missing == {"a"}


@pytest.mark.parametrize("pinned", [True, False])
def test_a_pinned_batch_moves_while_the_host_goes_on(pinned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: pinned)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device, non_blocking: asked.append(non_blocking) or tensor)
    move_data_to_device(collate([triplet("a", 1)]), torch.device("meta"))  # as Lightning does
    assert asked == [pinned, pinned]


def test_a_batch_is_pinned_by_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[Callable[[], None]] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    assert len(collate([triplet("a", 1)]).pin_memory()) == 1
    assert len(pinned) == 2


def test_origins_are_the_three_of_the_data_set() -> None:
    assert ORIGINS == ("real", "pair", "static")
