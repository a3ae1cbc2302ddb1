"""What a trained editor delivers: a round trip, and one sentence for whatever is wrong with a folder."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from torch import nn

from insvie_lightning.errors import InputError
from insvie_lightning.nets.source_concat import add_lora, widen_patch_embedding
from insvie_lightning.weights.deliverable import (
    Deliverable,
    load_deliverable,
    load_trainable,
    save_deliverable,
    trainable_weights,
)


def network(rank: int = 4) -> CogVideoXTransformer3DModel:
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=1, attention_head_dim=16, num_layers=1, time_embed_dim=16, text_embed_dim=16,
        sample_width=4, sample_height=4, sample_frames=5, max_text_seq_length=4,
    )  # fmt: skip
    widen_patch_embedding(transformer)
    add_lora(transformer, rank, alpha=1.0)
    return transformer


def shuffled(weights: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(value.shape, generator=generator) for name, value in weights.items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A deliverable of raw weights (seed 0) and an average (seed 1)."""
    own = trainable_weights(network())
    save_deliverable(
        Deliverable({"base": "toy", "lora_rank": 4}, shuffled(own, 0), shuffled(own, 1), 17), tmp_path / "w"
    )
    return tmp_path / "w"


def sentence(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_deliverable(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    return str(caught.value)


def test_weights_and_settings_come_back(folder: Path) -> None:
    target, own = network(), trainable_weights(network())
    again = load_deliverable(folder)
    assert (again.settings, again.ema_updates) == ({"base": "toy", "lora_rank": 4}, 17)
    assert again.ema is not None and equal(again.ema, shuffled(own, 1))
    load_trainable(target, again.raw, "w")
    assert equal(trainable_weights(target), shuffled(own, 0))
    assert sorted(path.name for path in folder.iterdir()) == ["editor.json", "ema.safetensors", "raw.safetensors"]


def test_names_are_those_of_the_released_adapters() -> None:
    names = {
        f"transformer_blocks.0.attn1.{target}.lora_{half}.weight"
        for target in ("to_q", "to_k", "to_v", "to_out.0")
        for half in "AB"
    }
    assert trainable_weights(network()).keys() == names | {"patch_embed.proj.weight", "patch_embed.proj.bias"}


def test_without_an_average_there_is_no_file_of_it(tmp_path: Path) -> None:
    save_deliverable(Deliverable({}, {"a": torch.ones(2)}), tmp_path)
    assert not (tmp_path / "ema.safetensors").exists()
    assert load_deliverable(tmp_path).ema is None


def test_weights_that_share_memory_or_are_views_are_saved(tmp_path: Path) -> None:
    wide = torch.arange(6.0).reshape(2, 3)
    save_deliverable(Deliverable({}, {"turned": wide.T}), tmp_path)
    assert torch.equal(load_deliverable(tmp_path).raw["turned"], wide.T)


def test_another_rank_is_one_sentence(folder: Path) -> None:
    with pytest.raises(
        InputError, match=r"w are of another editor: .*lora_A.* has shape \(4, 16\), .* needs \(8, 16\)$"
    ):
        load_trainable(network(rank=8), load_deliverable(folder).raw, "w")


def test_other_names_are_one_sentence() -> None:
    module = nn.ModuleDict({"here": nn.Linear(1, 1)})
    with pytest.raises(InputError, match=r"w are of another editor: 1 missing, e\.g\. here\.bias; 1 unknown, e\.g\. x"):
        load_trainable(module, {"x": torch.ones(1), "here.weight": torch.ones(1, 1)}, "w")


@pytest.mark.parametrize("name", ["raw.safetensors", "ema.safetensors", "editor.json"])
@pytest.mark.parametrize("left", [0, 7, 200])
def test_a_cut_file_is_one_sentence(folder: Path, name: str, left: int) -> None:
    path = folder / name
    left = min(left, path.stat().st_size - 4)
    path.write_bytes(path.read_bytes()[:left])
    assert "is damaged" in sentence(folder)


@pytest.mark.parametrize("name", ["raw.safetensors", "editor.json"])
def test_an_absent_file_is_one_sentence(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert f"{name} is missing" in sentence(folder)


def test_an_absent_folder_is_one_sentence(tmp_path: Path) -> None:
    assert "is not a trained editor" in sentence(tmp_path / "nowhere")


def test_the_settings_appear_last(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder whose writing was interrupted keeps the old settings and whole weights."""
    before = (folder / "editor.json").read_text()
    monkeypatch.setattr(json, "dumps", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_deliverable(Deliverable({"lora_rank": 9}, {"a": torch.ones(2)}), folder)
    assert (folder / "editor.json").read_text() == before
    assert load_deliverable(folder).raw["a"].tolist() == [1, 1]
