"""What made an edit: different where the edit would be, and only there."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from insvie_lightning import EditOptions, Editor
from insvie_lightning.editors import InsViE
from insvie_lightning.editors.lineage import describe_edit, hash_weights
from insvie_lightning.errors import InputError
from insvie_lightning.weights.deliverable import trainable_weights

Make = Callable[..., InsViE]


class Frozen(torch.nn.Linear):
    """An editor of which nothing is trained."""

    working_shape = (9, 64, 96)

    def __init__(self) -> None:
        super().__init__(1, 1)
        self.requires_grad_(False)


def test_lineage_tells_models_and_videos_of_one_name_apart(make_editor: Make, tmp_path: Path) -> None:
    video = tmp_path / "in.mp4"
    video.write_bytes(b"some")
    os.utime(video, ns=(5, 5))

    def lineage(model: Any) -> str:
        return Editor(model).lineage(video, "invert", EditOptions())

    plain, trained, half = make_editor(), make_editor(random_weights=True), make_editor().to(torch.bfloat16)
    others = [make_editor(sampler="dpm"), make_editor(use_ema=False), make_editor(base="toy")]
    told = [lineage(model) for model in (plain, trained, half, *others)]
    os.utime(video, ns=(6, 6))
    told.append(lineage(plain))
    video.write_bytes(b"other")
    os.utime(video, ns=(5, 5))
    told.append(lineage(plain))
    assert len({*told}) == len(told) == 8
    video.write_bytes(b"some")
    os.utime(video, ns=(5, 5))
    assert lineage(make_editor()) == told[0]
    assert [json.loads(told[0])[name] for name in ("base", "sampler", "use_ema", "dtype")] == [
        plain.base, "ddim", True, "torch.float32",
    ]  # fmt: skip


def test_the_hash_is_of_what_was_trained(make_editor: Make) -> None:
    model = make_editor()
    before = hash_weights(model)
    with torch.no_grad():
        model.transformer.proj_out.bias.add_(1)  # frozen
        assert hash_weights(model) == before
        next(iter(trainable_weights(model.transformer).values()))[0, 0] += 1
    assert hash_weights(model) != before
    frozen = Frozen()
    before = hash_weights(frozen)
    frozen.weight.add_(1)
    assert hash_weights(frozen) != before


def test_the_lineage_of_an_absent_video_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.mp4: no such file or directory, but a video file is needed"):
        describe_edit(Frozen(), "", tmp_path / "absent.mp4", "invert", {})


def test_a_network_that_is_built_late_is_hashed(make_editor: Make) -> None:
    late = InsViE(base=make_editor().base, lora_rank=4, lora_alpha=4.0)
    assert late.transformer is None
    assert hash_weights(late) == hash_weights(make_editor())


def test_an_editor_reads_its_weights_once(make_editor: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = Editor(make_editor())
    first = editor.weights_hash
    monkeypatch.setattr("insvie_lightning.editors.editor.hash_weights", lambda model: 1 / 0)
    assert editor.weights_hash == first == hash_weights(editor.model)
