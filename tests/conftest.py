"""Fixtures shared by every test."""

import importlib.util
import json
import multiprocessing
import os
import socket
import time
import traceback
from collections.abc import Callable
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


@pytest.fixture
def on_ranks(tmp_path: Path) -> Callable[..., list[Any]]:
    """Call `work(rank)` in forked processes that Lightning takes for its ranks; their results, in order.

    A rank that fails fails the test with its traceback; one that hangs is ended after `seconds`.
    """

    def run(work: Callable[[int], Any], ranks: int = 2, seconds: float = 30.0) -> list[Any]:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]

        def rank_main(rank: int) -> None:
            address = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
            os.environ.update({**address, "RANK": str(rank), "LOCAL_RANK": str(rank), "NODE_RANK": "0"})
            torch.set_num_threads(1)
            try:
                made = {"made": work(rank)}
            except BaseException:
                made = {"failed": traceback.format_exc()}
            torch.save(made, tmp_path / f".rank{rank}.pt")
            os._exit(0 if "made" in made else 1)

        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=rank_main, args=(rank,)) for rank in range(ranks)]
        for process in processes:
            process.start()
        end = time.monotonic() + seconds
        for process in processes:
            process.join(max(end - time.monotonic(), 0))
        hung = [rank for rank, process in enumerate(processes) if process.is_alive()]
        for process in processes:
            process.kill()
            process.join()
        results = {
            rank: torch.load(file, weights_only=False)
            for rank in range(ranks)
            if (file := tmp_path / f".rank{rank}.pt").exists()
        }
        for result in results.values():
            assert "failed" not in result, result["failed"]
        assert not hung, f"ranks {hung} hang after {seconds:g} s"
        return [results[rank]["made"] for rank in range(ranks)]

    return run


@pytest.fixture(scope="session")
def stable_video_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Video Diffusion of diffusers' classes and the released schedule, tiny, with random weights."""
    from diffusers import (
        AutoencoderKLTemporalDecoder,
        EulerDiscreteScheduler,
        StableVideoDiffusionPipeline,
        UNetSpatioTemporalConditionModel,
    )
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    folder = tmp_path_factory.mktemp("stable_video")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = StableVideoDiffusionPipeline(
            unet=UNetSpatioTemporalConditionModel(
                in_channels=8,
                out_channels=4,
                down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
                up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
                block_out_channels=(32, 64),
                layers_per_block=1,
                addition_time_embed_dim=32,
                projection_class_embeddings_input_dim=96,
                cross_attention_dim=32,
                num_attention_heads=(2, 4),
                num_frames=5,
            ),
            vae=AutoencoderKLTemporalDecoder(
                down_block_types=("DownEncoderBlock2D",) * 4, block_out_channels=(32,) * 4, layers_per_block=1
            ),
            image_encoder=CLIPVisionModelWithProjection(
                CLIPVisionConfig(
                    hidden_size=32,
                    projection_dim=32,
                    num_hidden_layers=2,
                    num_attention_heads=4,
                    image_size=224,  # diffusers resizes to it whatever the encoder was made for
                    intermediate_size=37,
                    patch_size=56,
                )
            ),
            scheduler=EulerDiscreteScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                prediction_type="v_prediction",
                use_karras_sigmas=True,
                sigma_min=0.002,
                sigma_max=700.0,
                timestep_spacing="leading",
                timestep_type="continuous",
                steps_offset=1,
            ),
            feature_extractor=CLIPImageProcessor(),
        )
    pipeline.save_pretrained(folder)
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


@pytest.fixture(scope="session")
def make_transformer() -> Callable[[], Any]:
    """Build a CogVideoX transformer of 2 layers; always the same weights."""
    from diffusers import CogVideoXTransformer3DModel

    from insvie_lightning.toy.text import MAX_TOKENS

    def make() -> CogVideoXTransformer3DModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return CogVideoXTransformer3DModel(
                num_attention_heads=2,
                attention_head_dim=16,
                num_layers=2,
                in_channels=16,
                out_channels=16,
                time_embed_dim=32,
                text_embed_dim=64,
                sample_width=12,
                sample_height=8,
                sample_frames=9,
                max_text_seq_length=MAX_TOKENS,
                spatial_interpolation_scale=1.0,
                temporal_interpolation_scale=1.0,
            ).eval()

    return make


@pytest.fixture(scope="session")
def tiny_base(make_transformer: Callable[[], Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text-to-video model of random weights that is small enough to train in seconds."""
    from diffusers import CogVideoXDDIMScheduler

    from insvie_lightning.toy.text import build_text_encoder, build_tokenizer
    from insvie_lightning.weights.components import Components, load_vae, save_components

    folder = tmp_path_factory.mktemp("base")
    tokenizer = build_tokenizer()
    scheduler = CogVideoXDDIMScheduler(
        snr_shift_scale=3.0, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    parts = Components(make_transformer(), load_vae("toy"), build_text_encoder(len(tokenizer)), tokenizer, scheduler)
    save_components(parts, folder, torch.float32)
    return folder
