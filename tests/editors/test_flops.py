"""What an editor needs, against torch's own count of what it does."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from insvie_lightning.batch import EditBatch
from insvie_lightning.diffusion.guidance import Guidance
from insvie_lightning.editors import InsViE
from insvie_lightning.editors.flops import edit_flops, forwards
from insvie_lightning.nets.latents import encode_pixels, to_device_pixels

Make = Callable[..., InsViE]


def counted(run: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops()


@pytest.fixture
def cached(make_editor: Make, batch: EditBatch) -> EditBatch:
    vae = make_editor().vae
    with torch.no_grad():
        source, edited = (encode_pixels(vae, to_device_pixels(clip)) for clip in (batch.source, batch.edited))  # type: ignore[arg-type]
    return replace(batch, source=None, edited=None, source_latents=source, edited_latents=edited)


@pytest.mark.parametrize("trainable", ["lora", "all"])
@pytest.mark.parametrize("form", ["online", "cached"])
def test_a_training_step_is_torch_s_count(
    make_editor: Make, batch: EditBatch, cached: EditBatch, form: str, trainable: str
) -> None:
    editor, fed = make_editor(trainable=trainable), batch if form == "online" else cached
    step = counted(lambda: editor.training_step(fed, 0).backward())
    assert len(batch) * editor.flops_per_sample(fed) == pytest.approx(step, rel=0.01)


def test_cached_latents_call_no_encoder(
    make_editor: Make, batch: EditBatch, cached: EditBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor, calls = make_editor(), []
    encode = editor.vae.encode
    monkeypatch.setattr(editor.vae, "encode", lambda pixels: (calls.append(len(pixels)), encode(pixels))[1])
    editor.training_step(cached, 0)
    assert calls == []
    editor.training_step(batch, 0)
    assert calls == [4, 4]


@pytest.mark.parametrize("schedule", ["constant", "cosine_ramp"])
def test_an_edit_is_torch_s_count(make_editor: Make, batch: EditBatch, schedule: Any) -> None:
    guidance = Guidance(3.0, 1.5, schedule=schedule)
    editor = make_editor(random_weights=True, guidance=guidance, num_inference_steps=3)
    run = counted(lambda: editor.edit_batch(batch))
    assert len(batch) * edit_flops(editor, 5, 32, 48, merged=False) == pytest.approx(run, rel=0.01)


def test_branches_without_weight_are_not_counted(make_editor: Make) -> None:
    editor = make_editor(num_inference_steps=10, guidance=Guidance(2.0, 1.0))
    assert forwards(editor) == 20
    editor.guidance = Guidance(1.0, 1.0)
    assert forwards(editor) == 10
    editor.guidance = Guidance(4.5, 1.6)
    assert forwards(editor) == 30
