"""The formulas against torch's own counter, and against the published sizes of CogVideoX-2B."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5Config, T5EncoderModel

from insvie_lightning.nets.flops import decode_flops, encode_flops, text_flops, transformer_flops
from insvie_lightning.nets.latents import decode_latents
from insvie_lightning.nets.patch_vae import PatchVAE
from insvie_lightning.nets.source_concat import add_lora, concat_source, widen_patch_embedding

SIZE = (3, 8, 12)


def counted(run: Callable[[], Any]) -> int:
    """What torch counts; attention as plain products, since fast kernels compute some of them again."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops()


@pytest.fixture(scope="module")
def full_size() -> dict[str, nn.Module]:
    """CogVideoX-2B without its weights."""
    with torch.device("meta"):
        transformer = CogVideoXTransformer3DModel()
        widen_patch_embedding(transformer)
        vae = AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4
        )
        t5 = T5Config(d_model=4096, d_kv=64, d_ff=10240, num_heads=64, num_layers=24, feed_forward_proj="gated-gelu")
        return {"transformer": transformer, "vae": vae, "text": T5EncoderModel(t5)}


@pytest.fixture(params=["lora", "all"])
def tiny(request: pytest.FixtureRequest) -> tuple[CogVideoXTransformer3DModel, int | None]:
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, num_layers=2, time_embed_dim=32, text_embed_dim=24,
        sample_width=12, sample_height=8, sample_frames=9, max_text_seq_length=7,
    )  # fmt: skip
    widen_patch_embedding(transformer)
    if request.param == "lora":
        add_lora(transformer, 4, 1.0)
    return transformer, 4 if request.param == "lora" else None


def predict(transformer: CogVideoXTransformer3DModel) -> torch.Tensor:
    latents = torch.zeros(2, SIZE[0], 16, *SIZE[1:])
    return concat_source(transformer, latents, latents, torch.zeros(2, 7, 24), torch.tensor([1, 2]))


def test_a_transformer_forward_is_torch_s_count(tiny: tuple[CogVideoXTransformer3DModel, int | None]) -> None:
    transformer, rank = tiny
    assert 2 * transformer_flops(transformer, SIZE, rank) == counted(lambda: predict(transformer))


def test_a_training_step_is_torch_s_count(tiny: tuple[CogVideoXTransformer3DModel, int | None]) -> None:
    transformer, rank = tiny
    step = counted(lambda: predict(transformer).sum().backward())
    assert 2 * transformer_flops(transformer, SIZE, rank, training=True) == step


@pytest.mark.parametrize("frames", [1, 5, 9, 25])
@pytest.mark.parametrize("kind", ["cogvideox", "patch"])
@torch.no_grad()
def test_an_autoencoder_is_torch_s_count(kind: str, frames: int) -> None:
    with torch.device("meta"):
        vae: Any = PatchVAE(width=8, blocks=2)
        if kind == "cogvideox":
            vae = AutoencoderKLCogVideoX(
                block_out_channels=(8, 16, 16, 32), layers_per_block=2, norm_num_groups=4, latent_channels=4,
                down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
            )  # fmt: skip
        latents = torch.zeros(1, (frames + 3) // 4, vae.config.latent_channels, 4, 6)
        pixels = torch.zeros(1, frames, 3, 32, 48)
    assert encode_flops(vae, frames, 32, 48) == counted(lambda: vae.encode(pixels.transpose(1, 2)))
    assert decode_flops(vae, frames, 32, 48) == counted(lambda: decode_latents(vae, latents))


@pytest.mark.parametrize("kind", ["gated-gelu", "relu"])
@torch.no_grad()
def test_a_text_encoder_is_torch_s_count(kind: str) -> None:
    config = T5Config(d_model=24, d_kv=8, d_ff=40, num_heads=2, num_layers=3, vocab_size=9, feed_forward_proj=kind)
    encoder = T5EncoderModel(config).eval()
    assert text_flops(encoder, 7) == counted(lambda: encoder(torch.zeros(1, 7, dtype=torch.long)))


@pytest.mark.parametrize(
    ("frames", "forward", "lora", "step", "encode", "decode"),
    [(25, 47.26, 1.14, 119.5, 76.9, 161.3), (49, 120.00, 2.10, 319.1, 149.0, 315.0)],
)
def test_cogvideox_2b_has_its_known_size(
    full_size: dict[str, Any], frames: int, forward: float, lora: float, step: float, encode: float, decode: float
) -> None:
    """TFLOP at 480 x 720, counted apart from these formulas with torch's counter and the real configurations."""
    latents = ((frames + 3) // 4, 60, 90)
    transformer, vae = full_size["transformer"], full_size["vae"]
    found = transformer_flops(transformer, latents)
    assert found / 1e12 == pytest.approx(forward, rel=1e-3)
    assert (transformer_flops(transformer, latents, 128) - found) / 1e12 == pytest.approx(lora, abs=0.01)
    assert transformer_flops(transformer, latents, 128, training=True) / 1e12 == pytest.approx(step, rel=2e-3)
    assert encode_flops(vae, frames, 480, 720) / 1e12 == pytest.approx(encode, rel=1e-3)
    assert decode_flops(vae, frames, 480, 720) / 1e12 == pytest.approx(decode, rel=1e-3)
    assert text_flops(full_size["text"], 226) / 1e12 == pytest.approx(2.11, rel=5e-3)


def test_the_full_frame_and_a_single_frame_have_their_known_size(full_size: dict[str, Any]) -> None:
    vae = full_size["vae"]
    assert encode_flops(vae, 25, 576, 1024) / 1e12 == pytest.approx(131.2, rel=1e-3)
    assert encode_flops(vae, 1, 480, 720) / 1e12 == pytest.approx(4.8, rel=0.02)
    assert decode_flops(vae, 1, 480, 720) / 1e12 == pytest.approx(7.5, rel=0.02)
