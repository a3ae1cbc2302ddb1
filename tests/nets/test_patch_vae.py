"""The toy autoencoder: its frame rule, its linear part, and what the shipped weights reach."""

import math
from pathlib import Path

import pytest
import torch

from insvie_lightning.nets.latents import decode_latents, encode_pixels, to_device_pixels
from insvie_lightning.nets.patch_vae import PatchVAE
from insvie_lightning.toy.edits import example, to_triplet
from insvie_lightning.weights.components import load_vae


@pytest.fixture(scope="module")
def shipped() -> PatchVAE:
    return load_vae("toy").eval().requires_grad_(False)


@pytest.mark.parametrize("frames", [1, 5, 9, 13])
def test_one_latent_frame_for_the_first_frame_and_for_every_four_after_it(shipped: PatchVAE, frames: int) -> None:
    pixels = torch.rand(2, 3, frames, 32, 48) * 2 - 1
    latents = shipped.encode(pixels).latent_dist.mode()
    assert latents.shape == (2, 16, 1 + (frames - 1) // 4, 4, 6)
    assert shipped.decode(latents).sample.shape == pixels.shape


def test_the_first_frame_stands_on_its_own(shipped: PatchVAE) -> None:
    pixels = torch.rand(1, 3, 9, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    both = [shipped.encode(clip).latent_dist.mode() for clip in (pixels, pixels[:, :, :1])]
    torch.testing.assert_close(both[0][:, :, :1], both[1])


def test_fitted_to_as_many_components_as_pixels_nothing_is_lost() -> None:
    vae = PatchVAE(latent_channels=768, width=8, blocks=1).eval().requires_grad_(False)
    clips = torch.rand(4, 3, 17, 64, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    vae.fit_principal_components(clips, whitening=1.0)
    latents = vae.encode(clips).latent_dist.mode()
    torch.testing.assert_close(vae.decode(latents).sample, clips, atol=1e-3, rtol=0)
    torch.testing.assert_close(latents.var((0, 2, 3, 4)), torch.ones(768), atol=1e-3, rtol=0)
    changed = clips[:1].clone()
    changed[:, :, 3, 9, 17] += 0.5
    moved = (vae.encode(changed).latent_dist.mode() - latents[:1]).abs().sum(1)[0] > 1e-3
    assert moved.nonzero().tolist() == [[1, 1, 2]]


@torch.no_grad()
def test_half_whitened_components_keep_the_root_of_their_loudness_and_a_mean_variance_of_one() -> None:
    clips = torch.randn(4, 3, 17, 64, 96, generator=torch.Generator().manual_seed(0))
    clips[:, 0] *= 3
    deviations = []
    for whitening in (0.0, 0.5):
        vae = PatchVAE(latent_channels=16, width=8, blocks=1).eval()
        vae.fit_principal_components(clips, whitening)
        deviations.append(vae.encode(clips).latent_dist.mode().std((0, 2, 3, 4)))
        torch.testing.assert_close(deviations[-1].square().mean(), torch.tensor(1.0), atol=1e-2, rtol=0)
    ratio = deviations[1] / deviations[0].sqrt()
    torch.testing.assert_close(ratio / ratio.mean(), torch.ones(16), atol=1e-2, rtol=0)


@torch.no_grad()
def test_the_shipped_weights_rebuild_unseen_clips(shipped: PatchVAE) -> None:
    errors = []
    for first in range(0, 64, 16):
        triplets = [to_triplet(example("val", index)) for index in range(first, first + 16)]
        frames = [clip.frames for triplet in triplets for clip in (triplet.source, triplet.edited)]
        pixels = to_device_pixels(torch.stack([torch.from_numpy(clip) for clip in frames]))
        rebuilt = decode_latents(shipped, encode_pixels(shipped, pixels)).clamp(-1, 1)
        errors += ((rebuilt - pixels) / 2).square().mean((1, 2, 3, 4)).tolist()
    assert len(errors) == 128
    assert -10 * math.log10(sum(errors) / len(errors)) >= 30


def test_saved_and_read_back(shipped: PatchVAE, tmp_path: Path) -> None:
    shipped.save_pretrained(tmp_path / "vae")
    again = load_vae(str(tmp_path))
    assert isinstance(again, PatchVAE) and dict(again.config)["width"] == shipped.config["width"]
    state = shipped.state_dict()
    assert state.keys() == again.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
