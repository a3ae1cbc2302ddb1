"""ViCLIP's towers against the golden files, and against transformers' CLIP where the two are the same network."""

import gzip
import json
from collections.abc import Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModelWithProjection

from insvie_lightning.nets.viclip import ViClipNet, ViClipSize

SMALL = ViClipSize(28, 14, 4, 128, 2, 24, 100, 12, 64, 2)


@pytest.fixture(scope="module")
def small() -> ViClipNet:
    torch.manual_seed(0)
    net = ViClipNet(SMALL).eval()
    for value in net.parameters():  # also those that start at zero or one
        value.data += 0.1 * torch.randn_like(value)
    return net.requires_grad_(False)


def to_transformers(state: Mapping[str, Tensor], tower: str) -> dict[str, Tensor]:
    """The same weights by the names of transformers' towers."""
    names = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    renamed = {}
    for key, value in state.items():
        if not key.startswith("transformer.resblocks."):
            continue
        _, _, layer, *rest = key.split(".")
        name, kind = ".".join(rest).rpartition(".")[::2]
        target = f"{tower}.encoder.layers.{layer}."
        if name == "attn" and kind.startswith("in_proj_"):
            for part, third in zip("qkv", value.chunk(3), strict=True):
                renamed[f"{target}self_attn.{part}_proj.{kind.removeprefix('in_proj_')}"] = third
        else:
            renamed[f"{target}{names.get(name, 'self_attn.out_proj')}.{kind}"] = value
    return renamed


@torch.no_grad()
def test_the_text_tower_is_that_of_clip(small: ViClipNet) -> None:
    config = CLIPTextConfig(
        vocab_size=100, hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=1,
        max_position_embeddings=12, hidden_act="quick_gelu", projection_dim=24, eos_token_id=99, bos_token_id=98,
    )  # fmt: skip
    theirs, state = CLIPTextModelWithProjection(config).eval(), small.text_encoder.state_dict()
    theirs.load_state_dict(
        to_transformers(state, "text_model")
        | {
            "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
            "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
            "text_model.final_layer_norm.weight": state["ln_final.weight"],
            "text_model.final_layer_norm.bias": state["ln_final.bias"],
            "text_projection.weight": state["text_projection"].T,
        }
    )
    tokens = torch.tensor([[98, 5, 17, 99, *[0] * 8], [98, *range(10, 20), 99]])
    torch.testing.assert_close(small.embed_tokens(tokens), theirs(tokens).text_embeds, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_video_tower_sees_a_single_frame_as_clip_does(small: ViClipNet) -> None:
    config = CLIPVisionConfig(
        hidden_size=128, intermediate_size=512, num_hidden_layers=2, num_attention_heads=2, image_size=28,
        patch_size=14, hidden_act="quick_gelu", projection_dim=24,
    )  # fmt: skip
    theirs, state = CLIPVisionModelWithProjection(config).eval(), small.vision_encoder.state_dict()
    places = state["positional_embedding"].clone()
    places[1:] += state["temporal_positional_embedding"].mean(1)  # a patch of a lone frame is at the mean time
    theirs.load_state_dict(
        to_transformers(state, "vision_model")
        | {
            "vision_model.embeddings.class_embedding": state["class_embedding"],
            "vision_model.embeddings.patch_embedding.weight": state["conv1.weight"][:, :, 0],
            "vision_model.embeddings.position_embedding.weight": places,
            "vision_model.pre_layrnorm.weight": state["ln_pre.weight"],
            "vision_model.pre_layrnorm.bias": state["ln_pre.bias"],
            "vision_model.post_layernorm.weight": state["ln_post.weight"],
            "vision_model.post_layernorm.bias": state["ln_post.bias"],
            "visual_projection.weight": state["proj"].T,
        }
    )
    frames = torch.randn(3, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(small.embed_video(frames[:, None]), theirs(frames).image_embeds, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_order_of_frames_matters(small: ViClipNet) -> None:
    video = torch.randn(1, 4, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    assert (small.embed_video(video) - small.embed_video(video.flip(1))).abs().max() > 1e-3


def test_sizes_are_read_off_the_weights(small: ViClipNet) -> None:
    assert ViClipSize.of(small.state_dict()) == SMALL
    with torch.device("meta"):
        full = ViClipNet()
    assert ViClipSize.of(full.state_dict()) == ViClipSize()
    with pytest.raises(KeyError, match="conv1"):
        ViClipSize.of({"temp": torch.ones([])})


def test_golden_keys_are_exactly_those_of_the_checkpoint(shared: Path) -> None:
    expected = json.loads(gzip.decompress((shared / "oracles/viclip.keys.json.gz").read_bytes()))
    with torch.device("meta"):
        state = ViClipNet().state_dict()
    ours = [[key, list(value.shape), str(value.dtype).removeprefix("torch.")] for key, value in state.items()]
    assert sorted(ours) == sorted(expected)


@pytest.fixture(scope="module")
def fill(shared: Path) -> Any:
    """The rule by which golden weights and inputs are made again."""
    spec = spec_from_file_location("golden_fill", shared / "oracles/fill.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.timeout(600)
@torch.inference_mode()
def test_golden_embeddings_of_a_video_and_a_sentence(shared: Path, fill: Any) -> None:
    """428 M weights: half a minute on one core, 3 GB."""
    golden = np.load(shared / "oracles/viclip.npz")
    seeds = json.loads((shared / "oracles/inputs.json").read_text())
    expected = {
        key: shape
        for key, shape, _ in json.loads(gzip.decompress((shared / "oracles/viclip.keys.json.gz").read_bytes()))
    }
    with torch.device("meta"):
        sized = ViClipSize.of({key: torch.empty(shape) for key, shape in expected.items()})
    net = ViClipNet(sized).eval()
    fill.fill_state(net, seeds["weights_seed"])
    shape = (1, sized.frames, 3, sized.side, sized.side)
    video = torch.from_numpy(fill.array("video", shape, seeds["viclip"]["input_seed"]))
    tokens = torch.from_numpy(golden["token_ids"]).long()
    for result, name in ((net.embed_tokens(tokens), "text"), (net.embed_video(video), "video")):
        assert (result - torch.from_numpy(golden[name])).abs().max() <= 1e-4, name
