"""CLIP scores: definitions against their plain form, one encoding for all, and sense in the toy world."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel

from insvie_lightning.batch import EditBatch, EditedVideos
from insvie_lightning.errors import InputError
from insvie_lightning.metrics.clip import (
    ClipFrame,
    ClipTemporal,
    ClipText,
    PickScore,
    all_pairs_cosine,
    clip_encoder,
    consecutive_cosine,
)
from insvie_lightning.metrics.per_sample import EditedSample
from insvie_lightning.toy.edits import Example, example, indices, to_triplet, wrong_instruction
from insvie_lightning.toy.scene import Scene, caption, render

CPU = torch.device("cpu")


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def sample(seed: int = 0, frames: int = 6) -> EditedSample:
    return EditedSample(
        key=f"s{seed}",
        source=noise(seed, frames, 3, 40, 60),
        edited=noise(seed + 1, frames, 3, 40, 60),
        instruction="make it rain",
        source_caption="a horse in the sun",
        edited_caption="a horse in the rain",
    )


def embeddings(seed: int, frames: int = 7) -> Tensor:
    return torch.randn(frames, 16, generator=torch.Generator().manual_seed(seed)) + 0.5


def test_all_pairs_in_closed_form_is_the_double_loop() -> None:
    rows = embeddings(0)
    pairs = [F.cosine_similarity(rows[i], rows[j], dim=0) for i in range(7) for j in range(7) if i != j]
    assert all_pairs_cosine(rows) == pytest.approx(float(torch.stack(pairs).mean()), abs=1e-6)
    assert all_pairs_cosine(rows[:1].repeat(4, 1)) == pytest.approx(1, abs=1e-6)


def test_consecutive_pairs_count_opposites_as_zero() -> None:
    east, north = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0])
    # Cosines 1, 0, -1 (counted as 0), 0.
    rows = torch.stack([east, 3 * east, north, -north, east])
    assert consecutive_cosine(rows) == pytest.approx(1 / 4)


def test_one_frame_has_no_consistency(clip_folder: Path) -> None:
    one = sample(frames=1)
    assert math.isnan(ClipFrame(str(clip_folder)).score(one)[0])
    assert math.isnan(ClipTemporal(str(clip_folder)).score(one)[0])


def test_the_three_ways_to_measure_consistency_differ(clip_folder: Path) -> None:
    edit = sample()
    edit = replace(edit, edited=(edit.edited.float() * torch.linspace(0.1, 1, 6)[:, None, None, None]).byte())
    frames = clip_encoder(str(clip_folder)).frames(edit.edited)
    values = [
        ClipFrame(str(clip_folder)).score(edit)[0],
        consecutive_cosine(frames.projected),
        ClipTemporal(str(clip_folder)).score(edit)[0],
    ]
    assert min(abs(a - b) for i, a in enumerate(values) for b in values[:i]) > 1e-3
    assert values[0] == pytest.approx(all_pairs_cosine(frames.projected))
    assert values[2] == pytest.approx(consecutive_cosine(frames.pooled))


@torch.no_grad()
def test_caption_scores_are_the_logits_of_transformers(clip_folder: Path) -> None:
    from transformers import CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    edit, model = sample(), CLIPModel.from_pretrained(clip_folder)
    tokens = CLIPTokenizer.from_pretrained(clip_folder)([edit.edited_caption], return_tensors="pt")
    pixels = CLIPImageProcessorPil.from_pretrained(clip_folder)(list(edit.edited.numpy()), return_tensors="pt")
    expected = float(model(**tokens, pixel_values=pixels.pixel_values).logits_per_image.mean())
    for metric in (ClipText(str(clip_folder)), PickScore(str(clip_folder))):
        assert metric.score(edit)[0] == pytest.approx(expected, abs=1e-4)


@torch.no_grad()
def test_the_scale_is_read_from_the_weights(clip_folder: Path, tmp_path: Path) -> None:
    model = CLIPModel.from_pretrained(clip_folder)
    model.logit_scale.fill_(math.log(50))
    model.save_pretrained(tmp_path)
    # Tokenizer and pixels come from where the weights have none.
    picked = PickScore(str(tmp_path), processor=str(clip_folder)).score(sample())[0]
    theirs = ClipText(str(clip_folder)).score(sample())[0]
    assert clip_encoder(str(clip_folder)).logit_scale(CPU) == pytest.approx(1 / 0.07, rel=1e-4)
    assert picked == pytest.approx(theirs * 50 * 0.07, rel=1e-4)


def test_values_of_the_source_stand_beside(clip_folder: Path) -> None:
    edit = sample()
    batch = EditBatch(
        keys=(edit.key,),
        instructions=(edit.instruction,),
        source=edit.source[None],
        source_captions=(edit.source_caption,),
        edited_captions=(edit.edited_caption,),
    )
    for metric in (ClipFrame, ClipTemporal, ClipText, PickScore):
        scored: Any = metric(str(clip_folder))
        scored.update(batch, EditedVideos(edit.edited[None]))
        name = scored.names[0]
        of_source = scored.score(replace(edit, edited=edit.source))[0]
        assert scored.compute()[f"source_{name}"] == pytest.approx(of_source, abs=1e-5)
        assert abs(scored.compute()[name] - of_source) > 1e-5
        assert not scored.state_dict() and not list(scored.parameters())


def test_one_encoding_serves_all_metrics(clip_folder: Path) -> None:
    passes: list[int] = []
    net: Any = clip_encoder(str(clip_folder)).net.on("cpu")
    hook = net.model.vision_model.register_forward_hook(lambda *args: passes.append(1))
    texts = net.model.text_model.register_forward_hook(lambda *args: passes.append(100))
    edit = replace(sample(70), edited_caption="a horse on the moon")
    for metric in (ClipFrame, ClipTemporal, ClipText):
        scored: Any = metric(str(clip_folder))
        # Batches are cut anew for every metric: another tensor of the same content.
        scored.add(replace(edit, source=edit.source.clone(), edited=edit.edited.clone()))
    hook.remove()
    texts.remove()
    assert sum(passes) == 102  # the edit, the source, and one sentence


def test_without_a_caption_the_sample_is_named() -> None:
    with pytest.raises(InputError, match=r"sample 's0' has no caption of the edited clip; .* edited_caption"):
        ClipText("toy").score(replace(sample(), edited_caption=" "))


def test_absent_weights_are_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="neither a folder here nor to be had"):
        ClipFrame(str(tmp_path / "absent")).prepare()
    with pytest.raises(InputError, match="give the folder as `model`"):
        ClipFrame(f"open_clip:{tmp_path}/absent").prepare()


def asked_by(instruction: str, toy: Example) -> Scene:
    """What "make the red circle blue" makes of a toy scene."""
    assert toy.target is not None
    shapes = list(toy.source.shapes)
    shapes[toy.target] = replace(shapes[toy.target], colour=instruction.split()[-1])
    return replace(toy.source, shapes=tuple(shapes))


@pytest.mark.parametrize("edit_type", ["recolour", "remove", "replace"])
def test_toy_edits_by_the_right_instruction_beat_those_by_a_wrong_one(edit_type: str) -> None:
    """Of 128 held-out scenes each, 128, 126 and 128 right clips beat the wrong one for the right caption, and 128, 120
    and 128 right captions beat the wrong one for the right clip."""
    metric, count, clips, captions = ClipText("toy", with_source=False), 24, 0, 0
    for toy in (example("test", index) for index in indices("test", count, (edit_type,))):
        wrong, right = asked_by(wrong_instruction(toy), toy), to_triplet(toy)
        edit = EditedSample(
            key=toy.key,
            source=torch.from_numpy(right.source.frames),
            edited=torch.from_numpy(right.edited.frames),
            edited_caption=right.edited_caption,
        )
        value = metric.score(edit)
        clips += value > metric.score(replace(edit, edited=torch.from_numpy(render(wrong))))
        captions += value > metric.score(replace(edit, edited_caption=caption(wrong)))
    assert clips / count >= 0.9 and captions / count >= 0.8
