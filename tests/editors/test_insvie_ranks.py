"""The InsViE editor on two ranks that share its weights: it trains, saves, resumes and edits as one process does."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

from insvie_callbacks.lora_ema import LoraEMA
from insvie_callbacks.save_editor import SaveEditor
from insvie_data_modules.curriculum import Curriculum, Stage
from insvie_lightning.batch import EditBatch
from insvie_lightning.editors import InsViE
from insvie_lightning.fsdp import FullySharded
from insvie_lightning.weights.deliverable import load_deliverable

STEPS = 3
SETTINGS: dict[str, Any] = {"lora_rank": 4, "lora_alpha": 4.0, "lr": 1e-2, "warmup_steps": 2, "seed": 3}


class Noting(InsViE):
    """Notes its losses."""

    losses: list[float]

    def training_step(self, batch: EditBatch, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.losses = [*getattr(self, "losses", []), float(loss.detach())]
        return loss


class InTurn(Noting):
    """One process in the place of two ranks: the batches of a step one after the other."""

    _world_size = 2
    global_rank = 0

    def whole(self) -> InsViE:
        self.configure_model()
        return self

    def training_step(self, batch: EditBatch, batch_idx: int) -> Tensor:
        self.global_rank = batch_idx % 2  # type: ignore[misc]
        return super().training_step(batch, batch_idx)


def curriculum(shards: Path, batch_size: int) -> Curriculum:
    return Curriculum(shards, [Stage("s", STEPS)], batch_size=batch_size, frames=5, size=(32, 48))


def batches_in_turn(shards: Path) -> list[EditBatch]:
    """What the two ranks are given, step by step."""
    made = []
    for whole in curriculum(shards, batch_size=4).train_dataloader():
        for part in (slice(0, None, 2), slice(1, None, 2)):
            clips = {"source": whole.source[part], "edited": whole.edited[part]}
            made.append(EditBatch(whole.keys[part], whole.instructions[part], position=whole.position, **clips))
    return made


def fit(editor: InsViE, data: Any, folder: Path, resume: Path | None = None, **options: Any) -> None:
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", max_epochs=1, gradient_clip_val=1.0, logger=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        callbacks=[
            LoraEMA(0.9), SaveEditor(),
            ModelCheckpoint(folder / "checkpoints", "{step}", every_n_train_steps=1, save_top_k=-1),
        ],
        **options,
    )  # fmt: skip
    source = {"datamodule": data} if isinstance(data, Curriculum) else {"train_dataloaders": data}
    trainer.fit(editor, ckpt_path=resume, **source)


def assert_close(one: dict[str, Tensor] | None, other: dict[str, Tensor] | None, atol: float) -> None:
    assert one is not None and other is not None and one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=0, atol=atol, msg=name)


@pytest.fixture(scope="module")
def alone(base: Path, toy_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """One process: its losses and weights."""
    editor, folder = InTurn(base=str(base), **SETTINGS), tmp_path_factory.mktemp("alone")
    loader = DataLoader(batches_in_turn(toy_shards), batch_size=None)  # type: ignore[arg-type]
    fit(editor, loader, folder, devices=1, accumulate_grad_batches=2)
    return SimpleNamespace(losses=editor.losses, made=load_deliverable(folder / "weights"))


def test_ranks_that_share_the_weights_learn_what_one_process_learns(
    alone: SimpleNamespace, base: Path, toy_shards: Path, on_ranks: Callable[..., list[Any]], tmp_path: Path
) -> None:
    def run(name: str, resume: Path | None = None, sharded: bool = True) -> InsViE:
        editor = Noting(base=str(base), **SETTINGS)
        strategy = FullySharded(save_distributed_checkpoint=sharded, process_group_backend="gloo")
        fit(editor, curriculum(toy_shards, 2), tmp_path / name, resume, devices=2, strategy=strategy)
        return editor

    def work(rank: int) -> list[float]:
        editor = run("straight")
        weights = [*editor.transformer.parameters(), *editor.text_encoder.parameters()]
        assert all(isinstance(weight, DTensor) for weight in weights)
        assert sum(w.to_local().numel() for w in weights) < 0.6 * sum(w.numel() for w in weights)
        run("from_folder", tmp_path / "straight/checkpoints/step=1.ckpt", sharded=False)
        run("from_file", tmp_path / "from_folder/checkpoints/step=2.ckpt")
        return editor.losses

    left, right = on_ranks(work, seconds=60)
    assert [*left, *right] == pytest.approx([*alone.losses[0::2], *alone.losses[1::2]], rel=1e-4)
    straight = load_deliverable(tmp_path / "straight/weights")
    assert_close(alone.made.raw, straight.raw, 1e-4)
    assert_close(alone.made.ema, straight.ema, 1e-4)
    assert (tmp_path / "straight/checkpoints/step=1.ckpt").is_dir()
    assert (tmp_path / "from_folder/checkpoints/step=2.ckpt").is_file()
    for name in ("from_folder", "from_file"):
        resumed = load_deliverable(tmp_path / name / "weights")
        assert_close(straight.raw, resumed.raw, 0)
        assert_close(straight.ema, resumed.ema, 0)
        assert resumed.ema_updates == straight.ema_updates == STEPS
    state = torch.load(tmp_path / "from_folder/checkpoints/step=2.ckpt", weights_only=True)["state_dict"]
    assert len(state) == 2 * 4 * 2 + 2  # what is trained, and nothing else
    assert set(state) <= InTurn(base=str(base), **SETTINGS).whole().state_dict().keys()
