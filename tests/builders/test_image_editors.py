"""The pipelines of diffusers with tiny random weights; random weights let scales, frame and sentence count."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EDMEulerScheduler

from insvie_lightning.builders import CosXLEdit, InstructPix2Pix
from insvie_lightning.errors import InputError

CPU = torch.device("cpu")
SCALES = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0)


@dataclass
class Calls:
    """Batch sizes that networks were called on."""

    unet: list[int]
    text: list[int]


def watch(editor: Any) -> Calls:
    calls = Calls([], [])
    pipeline = editor._pipeline
    pipeline.unet.register_forward_hook(lambda module, inputs, output: calls.unet.append(len(inputs[0])))
    pipeline.text_encoder.register_forward_hook(lambda module, inputs, output: calls.text.append(len(inputs[0])))
    return calls


@pytest.fixture(scope="module", params=["cosxl", "pix2pix"])
def editor(request: pytest.FixtureRequest, tiny_cosxl: Path, tiny_pix2pix: Path) -> Any:
    made: Any = CosXLEdit(str(tiny_cosxl), num_inference_steps=2)
    if request.param == "pix2pix":
        made = InstructPix2Pix(str(tiny_pix2pix), num_inference_steps=2)
    made.load(CPU)
    return made


@pytest.fixture
def frame() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 32, 64), np.uint8)


def test_one_batch_gives_what_each_scale_gives_alone(editor, frame):
    """Six candidates take as many calls of the U-Net as steps; one by one they are what diffusers itself makes."""
    calls = watch(editor)
    edited = editor.edit(frame, "make it night", SCALES, seed=1)
    assert edited.shape == (6, 3, 32, 64) and edited.dtype == np.uint8
    assert calls.unet == [18] * 2
    alone = np.concatenate([editor.edit(frame, "make it night", (scale,), seed=1) for scale in SCALES])
    assert calls.unet[2:] == [3] * 12
    assert np.abs(edited.astype(int) - alone).max() <= 1
    differences = [np.abs(edited[i].astype(int) - edited[j]).max() for i in range(6) for j in range(i)]
    assert min(differences) > 1


def test_a_single_scale_is_that_of_the_pipeline_itself(editor, frame):
    from PIL import Image

    image = Image.fromarray(frame.transpose(1, 2, 0))
    size = {"height": 32, "width": 64} if isinstance(editor, CosXLEdit) else {}
    plain = editor._pipeline(
        "make it night",
        image=image,
        guidance_scale=5.0,
        image_guidance_scale=1.5,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(1),
        output_type="np",
        **size,
    ).images[0]
    edited = editor.edit(frame, "make it night", SCALES, seed=1)[2]
    assert np.abs(edited.transpose(1, 2, 0) / 255 - plain).max() <= 1.5 / 255


def test_sentence_frame_and_seed_count_and_nothing_else(editor, frame):
    once = editor.edit(frame, "make it night", (3.0, 8.0), seed=1)
    torch.manual_seed(5)
    assert (editor.edit(frame, "make it night", (3.0, 8.0), seed=1) == once).all()
    for other in (
        editor.edit(frame, "make it day", (3.0, 8.0), seed=1),
        editor.edit(255 - frame, "make it night", (3.0, 8.0), seed=1),
        editor.edit(frame, "make it night", (3.0, 8.0), seed=2),
    ):
        assert (other != once).any()


def test_a_scale_of_one_among_others_is_guided_too(editor, frame):
    calls = watch(editor)
    edited = editor.edit(frame, "make it night", (1.0, 3.0), seed=1)
    assert calls.unet == [6] * 2
    assert (edited[0] != edited[1]).any()


def test_cosxl_is_sampled_as_its_authors_do(tiny_cosxl):
    editor = CosXLEdit(str(tiny_cosxl))
    editor.load(CPU)
    pipeline = editor._pipeline
    assert pipeline.is_cosxl_edit and pipeline.watermark is None
    assert isinstance(pipeline.scheduler, EDMEulerScheduler)
    pipeline.scheduler.set_timesteps(20)
    sigmas = pipeline.scheduler.sigmas
    assert sigmas[[0, 19, 20]].tolist() == pytest.approx([120, 0.002, 0])
    assert torch.diff(sigmas[:20].log()).numpy() == pytest.approx(np.log(0.002 / 120) / 19, rel=1e-3)
    assert pipeline.scheduler.config.prediction_type == "v_prediction" and pipeline.scheduler.config.sigma_data == 1


def test_the_identity_is_json_and_says_what_changes_edits(tiny_cosxl, tiny_pix2pix):
    kinds = [CosXLEdit("a"), CosXLEdit("b"), CosXLEdit("a", image_guidance_scale=2), InstructPix2Pix("a")]
    kinds += [CosXLEdit("a", num_inference_steps=30)]
    assert len({json.dumps(kind.identity) for kind in kinds}) == len(kinds)
    assert kinds[0].identity["image_guidance_scale"] == 1.5 and kinds[0].identity["model"] == "a"


@pytest.mark.parametrize("kind", [CosXLEdit, InstructPix2Pix])
def test_what_is_no_such_model_is_said_in_one_sentence(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="cannot be loaded as StableDiffusion"):
        kind(str(tmp_path)).load(CPU)
    (tmp_path / "model_index.json").write_text('{"_class_name": "Other", "unet": ["os", "system"]}')
    with pytest.raises(InputError, match="cannot be loaded as StableDiffusion"):
        kind(str(tmp_path)).load(CPU)
    with pytest.raises(InputError, match="both are at least 1"):
        kind("a", image_guidance_scale=0.5)


def test_a_released_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match=r"cosxl_edit\.safetensors: no such file"):
        CosXLEdit(str(tmp_path / "cosxl_edit.safetensors")).load(CPU)
