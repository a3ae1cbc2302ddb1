"""The toy CLIP's training: it learns, scores retrieval, and delivers a model that loads and runs."""

import math
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch

from insvie_lightning.batch import EditBatch
from insvie_lightning.nets.clip import load_clip
from insvie_lightning.pretraining.clip import ClipTraining

SMALL = ["--model.size.hidden=32", "--model.size.layers=1", "--model.size.features=24", "--model.warmup_steps=2"]


@pytest.fixture(scope="module")
def run(pretrain: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, dict[str, list[float]]]:
    folder = tmp_path_factory.mktemp("clip")
    model, metrics = pretrain("toy_clip", folder, 40, *SMALL, "--model.lr=3e-3", "--data.frames=1")
    return folder / "model", model, metrics


def test_the_loss_falls_and_retrieval_is_logged(run: Any) -> None:
    losses = run[2]["train_loss"]
    assert len(losses) == 40 and losses[0] == pytest.approx(math.log(8), abs=1.5)
    assert mean(losses[-10:]) < 0.95 * mean(losses[:10])
    assert 0 <= run[2]["val_retrieval"][-1] <= 1


@torch.no_grad()
def test_the_delivered_model_loads_and_agrees_with_the_trained_one(run: Any) -> None:
    folder, trained, _ = run
    model = load_clip(folder)
    assert not model.training
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tokens = trained.tokenizer(["red circle on night"], padding="max_length", max_length=16, return_tensors="pt")
    for found, expected in (
        (model.encode_image(images), trained.model.encode_image(images)),
        (model.encode_text(tokens.input_ids), trained.model.encode_text(tokens.input_ids)),
    ):
        assert found.shape[1] == 24 and found.isfinite().all()
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    ("captions", "expected"),
    [(("a", "b", "c", "d"), 0.5), (("a", "b", "a", "d"), 0.75)],
)
def test_retrieval_counts_equal_captions_as_one(
    monkeypatch: pytest.MonkeyPatch, captions: tuple[str, ...], expected: float
) -> None:
    texts = torch.eye(4)
    images = texts[[2, 1, 2, 0]]  # the first frame is nearest to the third caption, the last one to the first
    logged: dict[str, float] = {}
    monkeypatch.setattr(ClipTraining, "_features", lambda *_: (images, texts))
    monkeypatch.setattr(ClipTraining, "log", lambda _, name, value, **__: logged.update({name: value}))
    batch = EditBatch(("x", "y"), ("", ""), source_captions=captions[:2], edited_captions=captions[2:])
    ClipTraining().validation_step(batch, 0)
    assert logged == {"val_retrieval": expected}
