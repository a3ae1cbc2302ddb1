"""CLIPs of two libraries behind one interface, against the libraries' own results."""

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPModel, CLIPProcessor, CLIPTokenizer, CLIPVisionModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from insvie_lightning.errors import InputError
from insvie_lightning.nets.clip_encoder import ClipEncoder, OpenClip, load_open_clip, load_transformers_clip

CLIP = torch.randint(0, 256, (5, 3, 40, 60), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
CPU = torch.device("cpu")
LONG = "a small red fish that swims " * 20
SENTENCES = [  # open_clip also straightens curly quotes, which transformers leaves as they are
    "a red fish swims in a tank",
    'Café — naïve façade, 東京の夜 & "quotes"!',
    "it's   the dog's\tball: 3,141 don't",
    "ЛЁД и огонь 🐟🔥",
]


@pytest.fixture
def encoder(clip_folder: Path) -> ClipEncoder:
    return ClipEncoder(lambda: load_transformers_clip(clip_folder, clip_folder))


@pytest.fixture(scope="module")
def sentences(shared: Path) -> list[str]:
    edits = json.loads((shared / "real/tgve/instructions.json").read_text(encoding="utf-8"))
    return SENTENCES + [sentence for edit in edits.values() for sentence in edit.values()]


def test_the_tokenizer_gives_open_clips_ids(clip_folder: Path, sentences: list[str]) -> None:
    ours, theirs = CLIPTokenizer.from_pretrained(clip_folder), open_clip.SimpleTokenizer()
    assert len(sentences) > len(SENTENCES)
    for sentence in sentences:
        assert ours(sentence).input_ids == [49406, *theirs.encode(sentence), 49407]


@torch.no_grad()
def test_embeddings_are_those_of_transformers(clip_folder: Path, encoder: ClipEncoder) -> None:
    model = CLIPModel.from_pretrained(clip_folder)
    processor = CLIPProcessor(
        CLIPImageProcessorPil.from_pretrained(clip_folder), CLIPTokenizer.from_pretrained(clip_folder)
    )
    inputs = processor(text=SENTENCES, images=list(CLIP.numpy()), padding=True, return_tensors="pt")
    expected, frames = model(**inputs), encoder.frames(CLIP)
    torch.testing.assert_close(F.normalize(frames.projected), expected.image_embeds, atol=1e-5, rtol=0)
    pooled = CLIPVisionModel.from_pretrained(clip_folder)(inputs.pixel_values).pooler_output
    torch.testing.assert_close(frames.pooled, pooled, atol=1e-5, rtol=0)
    texts = F.normalize(torch.stack([encoder.sentence(sentence, CPU) for sentence in SENTENCES]))
    torch.testing.assert_close(texts, expected.text_embeds, atol=1e-5, rtol=0)
    logits = encoder.logit_scale(CPU) * F.normalize(frames.projected) @ texts.T
    torch.testing.assert_close(logits, expected.logits_per_image, atol=1e-4, rtol=0)
    assert frames.projected.shape == (5, 24) and frames.pooled.shape == (5, 32)


@torch.no_grad()
def test_a_long_sentence_is_cut_and_keeps_its_end(encoder: ClipEncoder) -> None:
    tokens: list[Tensor] = []
    net: Any = encoder.net.on("cpu")
    net.model.text_model.register_forward_pre_hook(
        lambda module, args, kwargs: tokens.append(kwargs["input_ids"]), with_kwargs=True
    )
    encoder.sentence(LONG, CPU)
    assert tokens[0].shape == (1, 77) and tokens[0][0, -1] == 49407


def count_passes(encoder: ClipEncoder) -> list[int]:
    """The number of frames of every pass through the vision tower from now on."""
    passes: list[int] = []
    net: Any = encoder.net.on("cpu")
    net.model.vision_model.register_forward_hook(lambda module, args, out: passes.append(len(out.pooler_output)))
    return passes


@torch.no_grad()
def test_a_clip_is_encoded_once_for_all_who_see_it_alike(encoder: ClipEncoder) -> None:
    passes = count_passes(encoder)
    square = torch.zeros(2, 3, 480, 480, dtype=torch.uint8)
    for clip in (CLIP, CLIP.clone(), square):
        encoder.frames(clip)
    encoder.frames(square, tgve_square=True)
    assert passes == [5, 2]
    encoder.frames(CLIP, "squash")
    encoder.frames(CLIP, tgve_square=True)
    assert passes == [5, 2, 5, 5]


@torch.no_grad()
def test_long_clips_go_in_parts(encoder: ClipEncoder) -> None:
    passes = count_passes(encoder)
    many = CLIP.repeat(14, 1, 1, 1)
    whole = encoder.frames(many)
    assert passes == [32, 32, 6]
    torch.testing.assert_close(whole.projected[65:], encoder.frames(CLIP).projected, atol=1e-6, rtol=0)


def test_folders_of_something_else_are_refused(clip_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no config\.json"):
        load_transformers_clip(tmp_path, tmp_path)
    config = json.loads((clip_folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "t5"}))
    with pytest.raises(InputError, match=r"config\.json is of a model of type 't5'; legal is 'clip'"):
        load_transformers_clip(tmp_path, clip_folder)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="cannot be read"):
        load_transformers_clip(tmp_path, clip_folder)
    weights = CLIPModel.from_pretrained(clip_folder).state_dict()
    del weights["visual_projection.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 weights, such as visual_projection\.weight"):
        load_transformers_clip(tmp_path, clip_folder)
    with pytest.raises(InputError, match=r"no open_clip_config\.json"):
        load_open_clip(tmp_path)


VISION = {"image_size": 28, "patch_size": 14, "width": 32, "head_width": 16, "layers": 1}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}


@torch.no_grad()
def test_a_clip_of_open_clip_gives_open_clips_embeddings(tmp_path: Path) -> None:
    config = {"model_cfg": {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}, "preprocess_cfg": {"size": 28}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = open_clip.CLIP(24, VISION, TEXT).eval()
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    with pytest.raises(InputError, match="name it 'open_clip:"):
        load_transformers_clip(tmp_path, tmp_path)
    encoder = ClipEncoder(lambda: load_open_clip(tmp_path))
    transform = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}")[1]
    from torchvision.transforms.functional import to_pil_image

    expected = model.encode_image(torch.stack([transform(to_pil_image(frame)) for frame in CLIP]))
    frames = encoder.frames(CLIP)
    torch.testing.assert_close(frames.projected, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(frames.pooled @ model.visual.proj, expected, atol=1e-5, rtol=0)
    text = model.encode_text(open_clip.SimpleTokenizer()([LONG]))[0]
    torch.testing.assert_close(encoder.sentence(LONG, CPU), text, atol=1e-5, rtol=0)
    assert encoder.logit_scale(CPU) == pytest.approx(float(model.logit_scale.exp()))


def test_a_residual_network_is_refused() -> None:
    resnet = {**VISION, "layers": [1, 1, 1, 1], "image_size": 32, "width": 8}
    with pytest.raises(InputError, match="ModifiedResNet has no visual projection"):
        OpenClip(open_clip.CLIP(24, resnet, TEXT), None, lambda sentences: torch.zeros(1))
