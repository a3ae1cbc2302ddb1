"""Fixtures shared by every test."""

import os
from pathlib import Path

import pytest


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
def stable_video_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Video Diffusion of diffusers' classes and the released schedule, tiny, with random weights."""
    import torch
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
