"""A base model with tiny random weights, editors on it, and toy clips to train them with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer

from insvie_lightning.batch import EditBatch, collate
from insvie_lightning.diffusion.guidance import Guidance
from insvie_lightning.editors import InsViE
from insvie_lightning.shards.write import ShardWriter
from insvie_lightning.toy.edits import example, to_triplet
from insvie_lightning.weights.deliverable import trainable_weights


@pytest.fixture(scope="session")
def base(tiny_base: Path) -> Path:
    """A folder in diffusers' layout: random transformer of 2 layers, the toy world's autoencoder and text encoder."""
    return tiny_base


@pytest.fixture(scope="session")
def make_editor(base: Path) -> Callable[..., InsViE]:
    """Build an editor; keyword arguments override the small defaults. Random weights let source and sentence count."""

    def make(random_weights: bool = False, **settings: Any) -> InsViE:
        defaults: dict[str, Any] = {
            "base": str(base),
            "lora_rank": 4,
            "lora_alpha": 4.0,
            "lr": 1e-2,
            "warmup_steps": 2,
            "guidance": Guidance(3.0, 1.5),
            "num_inference_steps": 2,
            "sampler": "ddim",
        }
        editor = InsViE(**{**defaults, **settings})
        editor.configure_model()
        if random_weights:
            generator = torch.Generator().manual_seed(0)
            for value in trainable_weights(editor.transformer).values():
                value.copy_(0.3 * torch.randn(value.shape, generator=generator))
        return editor

    return make


@pytest.fixture(scope="session")
def batch() -> EditBatch:
    """Four toy samples of 5 frames, 32 x 48."""
    return collate([to_triplet(example("train", index), 5, 32, 48) for index in range(4)])


@pytest.fixture(scope="session")
def toy_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 toy samples of 5 frames, 32 x 48."""
    folder = tmp_path_factory.mktemp("toy-shards")
    with ShardWriter(folder, shard_size=6, lossless=True) as writer:
        for index in range(12):
            writer.write(to_triplet(example("train", index), frames=5, height=32, width=48))
    return folder


@pytest.fixture(scope="session")
def fit() -> Callable[..., None]:
    """Train an editor on the CPU, once through its data, in a folder."""

    def run(
        editor: InsViE, data: Any, folder: Path, *callbacks: Callback, resume: Path | None = None, **options: Any
    ) -> None:
        trainer = Trainer(
            default_root_dir=folder,
            accelerator="cpu",
            max_epochs=1,
            gradient_clip_val=1.0,
            callbacks=list(callbacks),
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=any("Checkpoint" in type(callback).__name__ for callback in callbacks),
            **options,
        )
        source = {"datamodule": data} if isinstance(data, LightningDataModule) else {"train_dataloaders": data}
        trainer.fit(editor, ckpt_path=resume, **source)
        editor.trainer = None  # so that its steps can be called on their own again

    return run
