"""Fixtures shared by every test."""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden files and real videos: skipped when absent, unless `INSVIE_SHARED` says it must be there."""
    named = os.environ.get("INSVIE_SHARED")
    folder = Path(named or "../shared").resolve()
    if not folder.is_dir():
        if named:
            pytest.fail(f"INSVIE_SHARED={named} is not a folder")
        pytest.skip("no shared folder of golden files; set INSVIE_SHARED to run this test")
    return folder


@pytest.fixture(scope="session")
def fill(shared: Path) -> Any:
    """The golden files' maker of weights (`fill_state`) and inputs (`array`)."""
    spec = importlib.util.spec_from_file_location("fill", shared / "oracles/fill.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def seeds(shared: Path) -> Any:
    """The seeds of the golden files' weights and inputs."""
    return json.loads((shared / "oracles/inputs.json").read_text())


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP of transformers with random weights, the real tokenizer and images of 28 x 28, as users save one."""
    from open_clip import SimpleTokenizer
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder = tmp_path_factory.mktemp("clip")
    theirs = SimpleTokenizer()
    merges = list(theirs.bpe_ranks)
    renamed = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {renamed.get(token, token): number for token, number in theirs.encoder.items()}
    CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77).save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": len(vocabulary), "bos_token_id": 49406, "eos_token_id": 49407}
    vision = {**sizes, "image_size": 28, "patch_size": 14}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder
