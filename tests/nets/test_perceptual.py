"""LPIPS through the decoder: which pixels it compares, that it has a gradient, and how it fails."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import lpips
import pytest
import torch
from torch import Tensor

from insvie_lightning.errors import InputError
from insvie_lightning.nets.perceptual import PerceptualLoss, build_lpips, chunk_lpips
from insvie_lightning.nets.source_concat import add_lora, concat_source, widen_patch_embedding
from insvie_lightning.weights.components import load_vae

FRAMES, HEIGHT, WIDTH = 4, 3, 4
PERCEPTUAL = PerceptualLoss(net="squeeze", random_trunk=True, latent_frames=2, crop=None)


@pytest.fixture(scope="module")
def network() -> lpips.LPIPS:
    return build_lpips(PERCEPTUAL)


class RepeatingVae:
    """Every latent decodes to the pixels it stands for, all of one value, under the causal rule."""

    dtype = torch.float32
    config = SimpleNamespace(scaling_factor=1.0)

    def __init__(self) -> None:
        self.decoded: list[Tensor] = []

    def decode(self, z: Tensor) -> SimpleNamespace:
        self.decoded.append(z.transpose(1, 2))
        return SimpleNamespace(sample=to_pixels(z.transpose(1, 2)).transpose(1, 2))


def to_pixels(latents: Tensor) -> Tensor:
    """B T C h w -> B F 3 8h 8w: the first latent is one frame, every later one four."""
    frames = [0] + [t for t in range(1, latents.shape[1]) for _ in range(4)]
    return latents[:, frames, :3].repeat_interleave(8, 3).repeat_interleave(8, 4)


def frame_distance(decoded: Tensor, pixels: Tensor) -> Tensor:
    """In the place of LPIPS: the largest difference in a frame."""
    assert decoded.shape == pixels.shape
    return (decoded - pixels).abs().amax((1, 2, 3), keepdim=True)


def everywhere_different(batch: int = 2) -> Tensor:
    """Latents of which no two are alike."""
    shape = (batch, FRAMES, 3, HEIGHT, WIDTH)
    return torch.arange(batch * FRAMES * 3 * HEIGHT * WIDTH, dtype=torch.float32).reshape(shape)


@pytest.mark.parametrize("latent_frames", [1, 2, 3, 9])
@pytest.mark.parametrize("crop", [None, 2, 3])
@pytest.mark.parametrize("first_only", [True, False])
def test_the_target_is_the_window_that_is_decoded(latent_frames: int, crop: int | None, first_only: bool) -> None:
    clean = everywhere_different()
    config = PerceptualLoss(latent_frames=latent_frames, crop=crop, first_only=first_only)
    target, corners = to_pixels(clean), set()
    for seed in range(30):
        vae, generator = RepeatingVae(), torch.Generator().manual_seed(seed)
        distance = chunk_lpips(frame_distance, vae, clean, target, config, generator)  # type: ignore[arg-type]
        # A later window begins with one frame, too: the last of the four that its first latent stands for.
        assert distance.tolist() == [0, 0]
        (decoded,) = vae.decoded
        side = (min(crop or HEIGHT, HEIGHT), min(crop or WIDTH, WIDTH))
        assert decoded.shape == (2, min(latent_frames, FRAMES), 3, *side)
        corners.add(int(decoded[0, 0, 0, 0, 0]))
    frame, row, column = 3 * HEIGHT * WIDTH, WIDTH, 1
    starts = [0] if first_only else range(FRAMES - min(latent_frames, FRAMES) + 1)
    tops = range(HEIGHT - min(crop or HEIGHT, HEIGHT) + 1)
    lefts = range(WIDTH - min(crop or WIDTH, WIDTH) + 1)
    possible = {frame * t + row * y + column * x for t in starts for y in tops for x in lefts}
    assert corners <= possible
    assert len(corners) > 0.4 * len(possible)


def test_a_target_shifted_by_one_frame_or_eight_pixels_is_noticed() -> None:
    clean, config = everywhere_different(), PerceptualLoss(latent_frames=2, crop=2)
    for shift, axis in ((1, 1), (8, 3), (8, 4)):
        target = to_pixels(clean).roll(shift, axis)
        generator = torch.Generator().manual_seed(0)
        assert (chunk_lpips(frame_distance, RepeatingVae(), clean, target, config, generator) > 0).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("latent_frames", [1, 2, 3, 4])
def test_cogvideox_decodes_as_many_frames_as_are_compared(cogvideox_vae: Any, latent_frames: int) -> None:
    clean = torch.randn(2, 4, 16, 2, 3, generator=torch.Generator().manual_seed(0))
    config, target = PerceptualLoss(latent_frames=latent_frames, first_only=False), torch.zeros(2, 13, 3, 16, 24)
    values = chunk_lpips(frame_distance, cogvideox_vae, clean, target, config, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    assert values.shape == (2,) and values.isfinite().all()


def test_every_sample_has_a_value_of_its_own() -> None:
    clean = everywhere_different()
    target = to_pixels(clean)
    target[1] += 7
    config = PerceptualLoss(latent_frames=2, crop=None)
    values = chunk_lpips(frame_distance, RepeatingVae(), clean, target, config, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    assert values.tolist() == [0, 7]


def test_the_gradient_reaches_lora_through_the_decoder(
    make_transformer: Callable[[], Any], network: lpips.LPIPS
) -> None:
    transformer = make_transformer()
    widen_patch_embedding(transformer)
    add_lora(transformer, rank=4, alpha=4.0)
    generator = torch.Generator().manual_seed(0)
    trained = {name: parameter for name, parameter in transformer.named_parameters() if parameter.requires_grad}
    with torch.no_grad():
        for name, parameter in trained.items():
            if "lora_B" in name:  # zero at the start, where lora_A has no gradient yet
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    noisy, source = (torch.randn(2, 2, 16, 4, 6, generator=generator) for _ in range(2))
    prompts, timesteps = torch.randn(2, 16, 64, generator=generator), torch.tensor([300, 600])
    target = torch.rand(2, 5, 3, 32, 48, generator=generator) * 2 - 1
    clean = concat_source(transformer, noisy, source, prompts, timesteps)
    vae = load_vae("toy").requires_grad_(False)
    values = chunk_lpips(network, vae, clean, target, PERCEPTUAL, generator)
    assert values.shape == (2,) and (values > 0).all()
    gradients = torch.autograd.grad(values.mean(), list(trained.values()))
    for name, gradient in zip(trained, gradients, strict=True):
        assert gradient.isfinite().all() and gradient.abs().max() > 0, name


def test_lpips_is_frozen_in_evaluation_mode_and_always_the_same(network: lpips.LPIPS) -> None:
    state = torch.random.get_rng_state()
    again = build_lpips(PERCEPTUAL)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in network.state_dict().items())
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    assert network(image, image).abs().max() < 1e-6 < network(image, -image).min()


def test_absent_weights_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise URLError("no route")

    monkeypatch.setattr(lpips, "LPIPS", refuse)
    with pytest.raises(
        InputError, match=r"torchvision's alex weights.*--model\.perceptual\.random_trunk=true"
    ) as caught:
        build_lpips(PerceptualLoss(net="alex"))
    assert "\n" not in str(caught.value)
