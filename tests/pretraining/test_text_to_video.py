"""The toy base's training: it learns, validates with the average, and delivers a model that loads and runs."""

from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch

from insvie_lightning.nets.latents import encode_prompts
from insvie_lightning.weights.components import load_components, load_vae

SMALL = ["--model.layers=1", "--model.heads=2", "--model.head_dim=16", "--model.warmup_steps=2"]
FAST = ["--model.sampler_steps=2", "--data.val_samples=4", "--data.size=[32, 48]"]


@pytest.fixture(scope="module")
def run(pretrain: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, dict[str, list[float]]]:
    folder = tmp_path_factory.mktemp("base")
    rates = ["--model.lr=1e-2", "--model.ema_decay=0.8", "--trainer.val_check_interval=10"]
    model, metrics = pretrain("toy_base", folder, 40, *SMALL, *FAST, *rates)
    return folder / "model", model, metrics


def test_the_loss_falls_and_the_scores_are_logged(run: Any) -> None:
    losses, validated = run[2]["train_loss"], run[2]["val_loss"]
    assert len(losses) == 40 and len(validated) == 4
    assert mean(losses[-10:]) < 0.97 * mean(losses[:10])
    assert validated[-1] < 0.99 * validated[0]  # at the same noises, so that nothing but the weights differs
    assert 0 <= run[2]["val_caption_recall"][-1] <= 1


@torch.no_grad()
def test_the_delivered_model_loads_and_runs(run: Any) -> None:
    parts = load_components(str(run[0]))
    config = parts.transformer.config
    assert (config.num_layers, config.num_attention_heads, config.attention_head_dim) == (1, 2, 16)
    settings = parts.scheduler.config
    assert (settings["prediction_type"], settings["snr_shift_scale"]) == ("v_prediction", 3.0)
    prompts = encode_prompts(parts.tokenizer, parts.text_encoder.eval(), ("red circle on night", "nothing"), 16)
    latents = torch.randn(2, 3, 16, 8, 12, generator=torch.Generator().manual_seed(0))
    out = parts.transformer(latents, prompts, torch.tensor([10, 900]), return_dict=False)[0]
    assert out.shape == latents.shape and out.isfinite().all()
    assert parts.vae.decode(latents.transpose(1, 2)).sample.isfinite().all()


def test_what_is_delivered_is_the_average(run: Any) -> None:
    folder, model, _ = run
    parts = load_components(str(folder))
    saved, raw = parts.transformer.state_dict(), model.transformer.state_dict()
    for name, value in model.ema.module.state_dict().items():
        torch.testing.assert_close(saved[name], value.half().float(), rtol=0, atol=0)
    assert max(float((saved[name] - raw[name]).abs().max()) for name in raw) > 1e-3


def test_validation_uses_the_average_and_fixed_noises(run: Any, pretrain: Any) -> None:
    _, model, _ = run
    data = model.trainer.datamodule
    batch = next(iter(data.val_dataloader()))
    average, raw = (
        model._loss(network, batch, torch.Generator().manual_seed(0)).item()
        for network in (model.ema.module, model.transformer)
    )
    logged = run[2]["val_loss"][-1]
    assert logged == pytest.approx(average, rel=1e-4) and logged != pytest.approx(raw, rel=1e-4)


def test_only_the_transformer_is_trained(run: Any) -> None:
    model = run[1]
    (optimizer,) = model.trainer.optimizers
    trained = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    assert trained == {id(weight) for weight in model.transformer.parameters()}
    shipped = load_vae("toy").state_dict()
    assert all(torch.equal(value, shipped[name]) for name, value in model.vae.state_dict().items())
