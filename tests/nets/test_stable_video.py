"""Stable Video Diffusion in parts, against diffusers' pipeline as a whole."""

import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image

from insvie_lightning.errors import InputError
from insvie_lightning.nets.stable_video import StableVideo, check_sampling


@pytest.fixture(scope="module")
def model(stable_video_folder: Path) -> StableVideo:
    return StableVideo.load(str(stable_video_folder), "float32")


def picture(height: int, width: int) -> torch.Tensor:
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return torch.tensor(np.asarray(image)).permute(2, 0, 1)


@pytest.mark.parametrize("guidance", [(1.0, 1.0), (1.0, 3.0)])
def test_condition_and_network_are_those_of_diffusers_pipeline(
    model: StableVideo, guidance: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, seen = picture(224, 224), []
    forward = model.pipeline.unet.forward

    def spy(latents, timestep, **kwargs):  # type: ignore[no-untyped-def]
        output = forward(latents, timestep, **kwargs)
        seen.append((latents, timestep, kwargs["encoder_hidden_states"], kwargs["added_time_ids"], output[0]))
        return output

    start = torch.randn(1, 3, 4, 28, 28, generator=torch.Generator().manual_seed(2))
    image = Image.fromarray(first.permute(1, 2, 0).numpy())
    monkeypatch.setattr(model.pipeline.unet, "forward", spy)
    model.pipeline.set_progress_bar_config(disable=True)
    final = model.pipeline(
        image, height=224, width=224, num_frames=3, num_inference_steps=2, fps=9, motion_bucket_id=40,
        min_guidance_scale=guidance[0], max_guidance_scale=guidance[1], noise_aug_strength=0.1,
        generator=torch.Generator().manual_seed(1), latents=start.clone(), output_type="latent",
    ).frames  # fmt: skip
    theirs, seen = seen, []

    monkeypatch.setattr(model.pipeline.unet, "forward", forward)
    noise = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))[0]
    condition = model.condition(first, noise, fps=9, motion_bucket_id=40, noise_aug_strength=0.1)
    latents, timestep, embedding, time_ids, _ = theirs[0]
    torch.testing.assert_close(condition.embedding[0], embedding[-1], atol=2e-4, rtol=2e-3)  # another resizing
    torch.testing.assert_close(condition.time_ids[0], time_ids[-1])
    torch.testing.assert_close(condition.latents[0], latents[-1, 0, 4:], atol=1e-4, rtol=1e-4)
    sigmas, told = model.schedule(2)
    assert told[0] == timestep and len(sigmas) == 3 and sigmas[2] == 0
    network = model.network(condition, 2, *guidance)
    noisy = start * (sigmas[0] ** 2 + 1) ** 0.5
    for step in (0, 1):
        output = network(noisy, step)
        estimate = noisy / (sigmas[step] ** 2 + 1) - sigmas[step] / (sigmas[step] ** 2 + 1) ** 0.5 * output
        noisy = noisy + (noisy - estimate) * (sigmas[step + 1] - sigmas[step]) / sigmas[step]
    torch.testing.assert_close(noisy, final, atol=2e-3, rtol=2e-3)


def test_frames_are_coded_one_by_one_and_in_chunks(model: StableVideo) -> None:
    clip = torch.stack([picture(32, 48).roll(shift, -1) for shift in range(5)])
    latents = model.encode(clip, 8)
    assert latents.shape == (1, 5, 4, 4, 6) and latents.dtype == torch.float32
    torch.testing.assert_close(model.encode(clip, 2), latents, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model.encode(clip[2:3], 1)[:, 0], latents[:, 2], atol=1e-5, rtol=1e-4)
    decoded = model.decode(latents, 8)
    assert decoded.shape == (5, 3, 32, 48) and decoded.dtype == torch.uint8
    vae = model.pipeline.vae
    with torch.no_grad():
        pixels = vae.decode(latents[0] / vae.config.scaling_factor, num_frames=5).sample
    assert (decoded - ((pixels.clamp(-1, 1) + 1) * 127.5)).abs().max() <= 0.5001
    assert model.decode(latents, 2).shape == decoded.shape and not torch.equal(model.decode(latents, 1), decoded)


def test_half_precision_files_are_taken_where_there_are_some(stable_video_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    model = StableVideo.load(str(stable_video_folder), "float16")
    model.pipeline.save_pretrained(folder, variant="fp16")
    loaded = StableVideo.load(str(folder), "float32")
    theirs = loaded.pipeline.unet.conv_in.weight
    assert theirs.dtype == torch.float32
    assert torch.equal(theirs, model.pipeline.unet.conv_in.weight.float())


def test_what_is_no_model_is_one_sentence(
    stable_video_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"'nowhere/svd' are neither a folder here nor to be had"):
        StableVideo.load("nowhere/svd", "float32")
    broken = tmp_path / "broken"
    shutil.copytree(stable_video_folder, broken)
    shutil.rmtree(broken / "unet")
    with pytest.raises(InputError, match="broken"):
        StableVideo.load(str(broken), "float32")
    with pytest.raises(InputError, match=r"dtype is 'float61'; legal are .*; did you mean 'float16'\?"):
        StableVideo.load(str(stable_video_folder), "float61")  # type: ignore[arg-type]
    other = tmp_path / "other"
    shutil.copytree(stable_video_folder, other)
    config = other / "scheduler/scheduler_config.json"
    config.write_text(config.read_text().replace("v_prediction", "epsilon"))
    with pytest.raises(InputError, match="prediction_type is 'epsilon'"):
        StableVideo.load(str(other), "float32")


def test_illegal_numbers_are_one_sentence() -> None:
    check_sampling(1, 0, 0, 1, 0)
    for numbers in ((0, 1, 1, 7, 127), (25, 1, 1, 0, 127), (25, 1, 1, 7, 256), (25, 3, 1, 7, 127)):
        with pytest.raises(InputError, match="legal are"):
            check_sampling(*numbers)
