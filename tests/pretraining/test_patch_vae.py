"""The autoencoder's training: what the components alone reach, that training adds to it, and what is delivered."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from insvie_lightning.nets.latents import decode_latents, encode_pixels, to_device_pixels
from insvie_lightning.nets.patch_vae import PatchVAE
from insvie_lightning.toy.edits import example, to_triplet
from insvie_lightning.weights.components import load_vae

SMALL = ["--model.vae.width=32", "--model.vae.blocks=1", "--model.warmup_steps=2", "--data.frames=5"]


@torch.no_grad()
def psnr_db(vae: Any, split: str, count: int, frames: int = 5) -> float:
    """PSNR of the mean error over both clips of the first samples of a split."""
    triplets = [to_triplet(example(split, index), frames) for index in range(count)]
    clips = [torch.from_numpy(clip.frames) for triplet in triplets for clip in (triplet.source, triplet.edited)]
    pixels = to_device_pixels(torch.stack(clips))
    rebuilt = decode_latents(vae, encode_pixels(vae, pixels)).clamp(-1, 1)
    return -10 * math.log10(((rebuilt - pixels) / 2).square().mean())


def without_convolutions(vae: Any) -> Any:
    linear = copy.deepcopy(vae).requires_grad_(False)
    for layer in (linear.encode_out, linear.decode_out):
        layer.weight.zero_()
        layer.bias.zero_()
    return linear


@pytest.fixture(scope="module")
def run(pretrain: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, dict[str, list[float]]]:
    """The module, what it delivers and what it logs."""
    folder = tmp_path_factory.mktemp("vae")
    model, metrics = pretrain("toy_vae", folder, 24, "--model.component_batches=24", *SMALL)
    return model, load_vae(str(folder / "model")), metrics


def test_components_alone_rebuild_held_out_clips(run: Any) -> None:
    assert psnr_db(without_convolutions(run[1]), "test", 16, frames=9) >= 24


def test_training_improves_on_the_components(run: Any) -> None:
    model, delivered, metrics = run
    assert len(metrics["train_loss"]) == 24 and all(map(math.isfinite, metrics["train_loss"]))
    assert psnr_db(delivered, "val", 8) > psnr_db(without_convolutions(delivered), "val", 8) + 0.1
    assert psnr_db(model.vae, "val", 8) == pytest.approx(metrics["val_psnr_db"][-1], abs=0.1)


def test_what_is_delivered_is_what_was_trained(run: Any) -> None:
    model, delivered, _ = run
    assert isinstance(delivered, PatchVAE) and delivered.config["width"] == 32
    trained = model.vae.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in delivered.state_dict().items())
    assert {value.dtype for value in trained.values()} == {torch.float32}


def test_a_resumed_run_keeps_its_components(pretrain: Any, tmp_path: Path) -> None:
    saving = ["--trainer.enable_checkpointing=true", "--data.size=[16, 24]", "--data.val_samples=2", *SMALL]
    first, _ = pretrain("toy_vae", tmp_path, 1, *saving)
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    resumed, _ = pretrain("toy_vae", tmp_path / "more", 2, *saving, f"--ckpt_path={checkpoint}", "--data.val_samples=1")
    assert torch.equal(first.vae.project, resumed.vae.project) and first.vae.project.any()
