"""Pixels to latents and back, alike for the toy autoencoder and CogVideoX's; sentences to embeddings."""

import copy
from typing import Any

import pytest
import torch

from insvie_lightning.nets.latents import (
    decode_latents,
    encode_pixels,
    encode_posterior,
    encode_prompts,
    measure_noise_shift,
    sample_posterior,
    to_device_pixels,
    to_uint8,
)
from insvie_lightning.toy.text import build_text_encoder, build_tokenizer
from insvie_lightning.weights.components import load_vae


@pytest.fixture(scope="module", params=["toy", "cogvideox"])
def vae(request: pytest.FixtureRequest) -> Any:
    """Both autoencoders, with a scaling factor that is not 1."""
    vae = load_vae("toy").requires_grad_(False) if request.param == "toy" else request.getfixturevalue("cogvideox_vae")
    vae.register_to_config(scaling_factor=1.5)
    return vae


def clips(frames: int) -> torch.Tensor:
    """Two different clips, 16 x 32."""
    return torch.rand(2, frames, 3, 16, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    """Two clips of 9 frames."""
    return clips(9)


def test_bytes_become_floats_and_come_back() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    floats = to_device_pixels(every)
    assert (floats.dtype, float(floats[0]), float(floats[255])) == (torch.float32, -1, 1)
    assert torch.equal(to_uint8(floats), every)
    assert to_uint8(torch.tensor([-3.0, 3.0, 0.004])).tolist() == [0, 255, 128]


@pytest.mark.parametrize("frames", [1, 5, 9, 13, 17])
def test_one_latent_for_the_first_frame_and_for_every_four_after_it(vae: Any, frames: int) -> None:
    latents = encode_pixels(vae, clips(frames))
    assert latents.shape == (2, 1 + (frames - 1) // 4, 16, 2, 4)
    assert decode_latents(vae, latents).shape == (2, frames, 3, 16, 32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_precision_weights_run_without_autocast(cogvideox_vae: Any, dtype: torch.dtype) -> None:
    vae, cast = copy.deepcopy(cogvideox_vae).to(dtype), []
    for network in (vae.encoder, vae.decoder):
        network.register_forward_pre_hook(lambda *_: cast.append(torch.is_autocast_enabled("cpu")))
    with torch.autocast("cpu", torch.bfloat16):
        decode_latents(vae, encode_pixels(vae, clips(1)))
        assert torch.is_autocast_enabled("cpu")
    assert cast == [dtype == torch.float32] * 2


def test_the_latent_added_to_an_even_number_is_the_last_one_again(cogvideox_vae: Any, pixels: torch.Tensor) -> None:
    latents = encode_pixels(cogvideox_vae, pixels)
    latents[:, 2] = latents[:, 1]
    whole = decode_latents(cogvideox_vae, latents)
    torch.testing.assert_close(decode_latents(cogvideox_vae, latents[:, :2]), whole[:, :5])


def test_latents_are_multiplied_by_the_scaling_factor(vae: Any, pixels: torch.Tensor) -> None:
    mode = vae.encode(pixels.transpose(1, 2)).latent_dist.mode()
    latents = encode_pixels(vae, pixels)
    torch.testing.assert_close(latents, 1.5 * mode.transpose(1, 2))
    torch.testing.assert_close(decode_latents(vae, latents), vae.decode(mode).sample.transpose(1, 2))


def test_a_generator_samples_the_posterior(vae: Any, pixels: torch.Tensor) -> None:
    def draw(seed: int) -> torch.Tensor:
        return encode_pixels(vae, pixels, torch.Generator().manual_seed(seed))

    mode, spread = encode_pixels(vae, pixels), vae.encode(pixels.transpose(1, 2)).latent_dist.std
    assert torch.equal(draw(0), draw(0))
    distance = (draw(0) - mode).abs().mean()
    # E |N(0, s)| = 0.798 s; the toy autoencoder's s is next to nothing.
    torch.testing.assert_close(distance, 0.798 * 1.5 * spread.mean(), rtol=0.1, atol=1e-4)


def test_the_moments_are_those_of_scaled_latents(vae: Any, pixels: torch.Tensor) -> None:
    mean, log_variance = encode_posterior(vae, pixels)
    posterior = vae.encode(pixels.transpose(1, 2)).latent_dist
    torch.testing.assert_close(mean, encode_pixels(vae, pixels))
    torch.testing.assert_close((0.5 * log_variance).exp(), 1.5 * posterior.std.transpose(1, 2))
    drawn = 1.5 * posterior.sample(torch.Generator().manual_seed(0)).transpose(1, 2)
    torch.testing.assert_close(sample_posterior(mean, log_variance, torch.Generator().manual_seed(0)), drawn)


@pytest.mark.parametrize("frames", [1, 13])
def test_the_effect_of_noise_is_measured_in_the_middle_of_the_start(vae: Any, frames: int) -> None:
    clip = torch.rand(frames, 3, 16, 160, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def measure(clip: torch.Tensor) -> torch.Tensor:
        return measure_noise_shift(vae, clip, torch.Generator().manual_seed(1))

    shift = measure(clip)
    assert shift.shape == (4, 2, 2, 16) and (shift[:, 1, 0] > 0).all()
    assert torch.equal(shift, measure(clip[:9, :, :, 16:144]))
    assert (shift[:, :, 1] == 0).all() if frames == 1 else (shift[:, 1, 1] > 0).all()
    assert (shift[1:, 1, 0] > shift[:-1, 1, 0]).all()


def test_samples_of_a_batch_do_not_mix(vae: Any, pixels: torch.Tensor) -> None:
    torch.testing.assert_close(
        encode_pixels(vae, pixels.flip(0)), encode_pixels(vae, pixels).flip(0), atol=1e-4, rtol=0
    )


def test_decoding_has_a_gradient(vae: Any, pixels: torch.Tensor) -> None:
    latents = encode_pixels(vae, pixels).requires_grad_()
    (gradient,) = torch.autograd.grad(decode_latents(vae, latents).square().sum(), latents)
    assert gradient.isfinite().all() and (gradient.abs().sum((2, 3, 4)) > 0).all()


def test_sentences_are_padded_without_a_mask_and_cut() -> None:
    tokenizer = build_tokenizer()
    encoder = build_text_encoder(len(tokenizer))
    long = " ".join(["red"] * 40)
    embeddings = encode_prompts(tokenizer, encoder, ("remove the red circle", long), 16)
    assert embeddings.shape == (2, 16, 64) and not embeddings.requires_grad
    ids = tokenizer("remove the red circle").input_ids
    padded = torch.tensor([ids + [tokenizer.pad_token_id] * (16 - len(ids))])
    with torch.no_grad():
        torch.testing.assert_close(embeddings[:1], encoder(padded)[0])


def test_words_travel_while_the_host_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = build_tokenizer()
    encoder, asked = build_text_encoder(len(tokenizer)), []
    move = torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, "to", lambda tensor, *to, **how: asked.append(how.get("non_blocking")) or move(tensor, *to, **how)
    )
    encode_prompts(tokenizer, encoder, ("remove the red circle",), 16)
    assert asked[0] is True
