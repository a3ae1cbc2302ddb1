"""Commands as a user gives them, and a small data set of the toy world."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from insvie_lightning.cli import main

BuildToy = Callable[..., Path]


@pytest.fixture(scope="session")
def build_toy() -> BuildToy:
    """Run the recipe into `FOLDER/shards`, which is returned; the run's own folder lies beside it."""

    def build(folder: Path, *options: str) -> Path:
        shards = folder / "shards"
        paths = [f"--model.output={shards}", f"--trainer.default_root_dir={folder / 'run'}"]
        quiet = ["--trainer.enable_progress_bar=false"]
        assert main(["predict", "-c", "build_toy", *paths, *quiet, *options]) == 0
        return shards

    return build


@pytest.fixture(scope="session")
def toy_shards(build_toy: BuildToy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the recipe makes of 40 samples in five shards, with six flaws in ten samples so that every kind is there."""
    sizes = ["--data.samples=40", "--data.batch_size=5", "--model.shard_size=8", "--model.flawed=0.6"]
    return build_toy(tmp_path_factory.mktemp("toy"), *sizes)


@pytest.fixture(scope="session")
def clip_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A CLIP tokenizer in which every byte is a token."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    names = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def _clip_config(vocabulary: int, projection: int) -> Any:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=projection,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
        hidden_act="gelu",
    )


def _tiny_vae(scaling_factor: float) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
        scaling_factor=scaling_factor,
    )


@pytest.fixture(scope="session")
def tiny_cosxl(clip_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SDXL InstructPix2Pix with random weights of 3 M parameters, in diffusers' layout."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLInstructPix2PixPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = _clip_config(len(clip_tokenizer), 32)
        pipeline = StableDiffusionXLInstructPix2PixPipeline(
            vae=_tiny_vae(0.13025),
            text_encoder=CLIPTextModel(config),
            text_encoder_2=CLIPTextModelWithProjection(config),
            tokenizer=clip_tokenizer,
            tokenizer_2=clip_tokenizer,
            unet=UNet2DConditionModel(
                block_out_channels=(32, 64),
                layers_per_block=1,
                in_channels=8,
                out_channels=4,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                attention_head_dim=(2, 4),
                use_linear_projection=True,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                transformer_layers_per_block=(1, 1),
                projection_class_embeddings_input_dim=32 + 6 * 8,
                cross_attention_dim=64,
            ),
            scheduler=EulerDiscreteScheduler(),
            add_watermarker=False,
        )
    folder = tmp_path_factory.mktemp("cosxl")
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_pix2pix(clip_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """InstructPix2Pix with random weights, in diffusers' layout, without a safety checker."""
    from diffusers import (
        EulerAncestralDiscreteScheduler,
        StableDiffusionInstructPix2PixPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = StableDiffusionInstructPix2PixPipeline(
            vae=_tiny_vae(0.18215),
            text_encoder=CLIPTextModel(_clip_config(len(clip_tokenizer), 32)),
            tokenizer=clip_tokenizer,
            unet=UNet2DConditionModel(
                block_out_channels=(32, 64),
                layers_per_block=1,
                in_channels=8,
                out_channels=4,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                attention_head_dim=4,
                cross_attention_dim=32,
            ),
            scheduler=EulerAncestralDiscreteScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    folder = tmp_path_factory.mktemp("pix2pix")
    pipeline.save_pretrained(folder)
    return folder
