"""One network at a time on the device: who sends whom off, and that the result stays the same."""

from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from insvie_lightning.batch import Clip
from insvie_lightning.editors import InsViE
from insvie_lightning.editors.editor import Editor
from insvie_lightning.editors.low_memory import PARTS

Make = Callable[..., InsViE]
CLIP = Clip(np.random.default_rng(0).integers(0, 256, (5, 3, 64, 96), np.uint8), 8)


def test_the_result_stays_the_same(make_editor: Make) -> None:
    edited = [
        Editor.place(make_editor(random_weights=True), "cpu", low_memory=low_memory).edit(CLIP, "remove it").frames
        for low_memory in (False, True)
    ]
    assert np.array_equal(*edited)


def test_the_networks_take_turns(make_editor: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a device that only looks like another one, each network comes when it works and leaves for the next."""
    model = make_editor()
    editor = Editor.place(model, "cpu", low_memory=True)
    moves: list[tuple[str, str]] = []
    for name in PARTS:
        part = getattr(model, name)
        part.parameters = lambda name=name: iter([SimpleNamespace(device=where[name])])
        part.to = lambda place, name=name: (moves.append((name, str(place))), where.update({name: place}))
        part._hf_hook.execution_device = torch.device("meta")
    where = {name: torch.device("cpu") for name in PARTS}
    monkeypatch.setattr("accelerate.hooks.send_to_device", lambda tensors, device: tensors)
    monkeypatch.setattr(
        "insvie_lightning.nets.latents.next", lambda parameters: SimpleNamespace(device="cpu"), raising=False
    )
    editor.edit(CLIP, "remove it")
    assert [move for move in moves if move[1] == "meta"] == [
        ("vae", "meta"), ("text_encoder", "meta"), ("transformer", "meta"), ("vae", "meta")
    ]  # fmt: skip
    for earlier, later in pairwise(moves):
        assert earlier[1] == "cpu" or later[1] == "cpu"  # never two in a row that come


def test_the_autoencoder_works_in_tiles_where_it_can(make_editor: Make) -> None:
    model, switched = make_editor(), []
    model.vae.enable_tiling = lambda: switched.append("tiling")
    model.vae.enable_slicing = lambda: switched.append("slicing")
    Editor.place(model, "cpu")
    assert switched == []
    Editor.place(model, "cpu", low_memory=True)
    assert switched == ["tiling", "slicing"]
