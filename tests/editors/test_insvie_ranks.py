"""The InsViE editor on two ranks, by DDP and with shared weights: it trains, resumes and edits as one process."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

from insvie_callbacks.lora_ema import LoraEMA
from insvie_callbacks.pixels import Pixels
from insvie_callbacks.save_editor import SaveEditor
from insvie_data_modules.curriculum import Curriculum, Stage
from insvie_data_modules.shard_set import ShardSet
from insvie_lightning.batch import EditBatch
from insvie_lightning.config import config_root
from insvie_lightning.diffusion.guidance import Guidance
from insvie_lightning.editors import InsViE
from insvie_lightning.fsdp import FullySharded
from insvie_lightning.weights.deliverable import load_deliverable

OnRanks = Callable[..., list[Any]]
STEPS = 2
EDITING: dict[str, Any] = {"num_inference_steps": 1, "sampler": "ddim"}
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


def quiet_trainer(folder: Path, *callbacks: Any, **options: Any) -> Trainer:
    return Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=list(callbacks), **options,
    )  # fmt: skip


def fit(editor: InsViE, data: Any, folder: Path, resume: Path | None = None, **options: Any) -> None:
    checkpoints = ModelCheckpoint(folder / "checkpoints", "{step}", every_n_train_steps=1, save_top_k=-1)
    callbacks = [LoraEMA(0.9), SaveEditor(), checkpoints]
    trainer = quiet_trainer(folder, *callbacks, max_epochs=1, gradient_clip_val=1.0, **options)
    source = {"datamodule": data} if isinstance(data, Curriculum) else {"train_dataloaders": data}
    trainer.fit(editor, ckpt_path=resume, **source)


def shared(sharded: bool = True) -> FullySharded:
    return FullySharded(save_distributed_checkpoint=sharded, process_group_backend="gloo")


def share_and_fit(base: Path, shards: Path, folder: Path, resume: Path | None = None, sharded: bool = True) -> Noting:
    editor = Noting(base=str(base), **SETTINGS)
    fit(editor, curriculum(shards, 2), folder, resume, devices=2, strategy=shared(sharded))
    return editor


def samples(shards: Path) -> ShardSet:
    return ShardSet(shards, frames=5, size=(32, 48), limit=3)


def predict(weights: Path, shards: Path, **options: Any) -> list[Tensor]:
    """Edits of this rank's share of three samples."""
    stored = {name: value for name, value in load_deliverable(weights).settings.items() if name != "editor"}
    stored |= {"guidance": Guidance(**stored["guidance"]), "start_from": weights, **EDITING}
    trainer = quiet_trainer(weights, **options)
    made: Any = trainer.predict(InsViE(**stored), samples(shards).predict_dataloader())
    return [edits.edited for edits in made]


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
    return SimpleNamespace(folder=folder, losses=editor.losses, made=load_deliverable(folder / "weights"))


def test_ranks_that_share_the_weights_learn_and_edit_as_one_process(
    alone: SimpleNamespace, base: Path, toy_shards: Path, on_ranks: OnRanks, tmp_path: Path
) -> None:
    def work(rank: int) -> tuple[list[float], list[Tensor]]:
        editor = share_and_fit(base, toy_shards, tmp_path / "straight", sharded=True)
        weights = [*editor.transformer.parameters(), *editor.text_encoder.parameters()]
        assert all(isinstance(weight, DTensor) for weight in weights)
        assert sum(w.to_local().numel() for w in weights) < 0.6 * sum(w.numel() for w in weights)  # type: ignore[attr-defined]
        return editor.losses, predict(alone.folder / "weights", toy_shards, devices=2, strategy=shared())

    (left, edits), (right, others) = on_ranks(work)
    assert [*left, *right] == pytest.approx([*alone.losses[0::2], *alone.losses[1::2]], rel=1e-4)
    straight = load_deliverable(tmp_path / "straight/weights")
    assert_close(alone.made.raw, straight.raw, 1e-4)
    assert_close(alone.made.ema, straight.ema, 1e-4)
    assert (tmp_path / "straight/checkpoints/step=1.ckpt").is_dir()
    one, two, three = predict(alone.folder / "weights", toy_shards, devices=1)
    for expected, edited in zip([one, three, two], [*edits, *others], strict=True):  # one rank has two, the other one
        torch.testing.assert_close(edited, expected, rtol=0, atol=1e-5)


@pytest.mark.proof
def test_checkpoints_of_shared_weights_resume_whether_sharded_or_whole(
    base: Path, toy_shards: Path, on_ranks: OnRanks, tmp_path: Path
) -> None:
    def work(rank: int) -> None:
        share_and_fit(base, toy_shards, tmp_path / "straight", sharded=True)
        first = tmp_path / "straight/checkpoints/step=1.ckpt"
        share_and_fit(base, toy_shards, tmp_path / "from_folder", first, sharded=False)
        share_and_fit(base, toy_shards, tmp_path / "whole", sharded=False)
        share_and_fit(base, toy_shards, tmp_path / "from_file", tmp_path / "whole/checkpoints/step=1.ckpt")

    on_ranks(work, seconds=240)
    straight = load_deliverable(tmp_path / "straight/weights")
    for name in ("from_folder", "from_file"):
        resumed = load_deliverable(tmp_path / name / "weights")
        assert_close(straight.raw, resumed.raw, 0)
        assert_close(straight.ema, resumed.ema, 0)
        assert resumed.ema_updates == straight.ema_updates == STEPS
    whole = tmp_path / "from_folder/checkpoints/step=2.ckpt"
    state = torch.load(whole, weights_only=True)["state_dict"]
    assert len(state) == 2 * 4 * 2 + 2  # what is trained, and nothing else
    editor = Noting(base=str(base), **SETTINGS)
    editor.configure_model()
    editor.load_state_dict(state, strict=False)
    assert_close(straight.raw, editor.deliverable().raw, 0)


def test_ddp_fits_validates_tests_and_predicts_as_one_process(
    alone: SimpleNamespace, base: Path, toy_shards: Path, on_ranks: OnRanks, tmp_path: Path
) -> None:
    weights = alone.folder / "weights"

    def scores(**options: Any) -> list[float]:
        found = []
        for verb in ("validate", "test"):
            trainer = quiet_trainer(tmp_path, Pixels(), inference_mode=False, **options)
            editor = InsViE.from_pretrained(weights, **EDITING)
            (made,) = getattr(trainer, verb)(editor, samples(toy_shards).val_dataloader(), verbose=False)
            found += [value for name, value in sorted(made.items()) if "psnr" in name or "ssim" in name]
        return found

    def work(rank: int) -> Any:
        overlay = yaml.safe_load((config_root() / "ddp.yaml").read_text())["trainer"]["strategy"]["init_args"]
        assert overlay["static_graph"]
        ddp: dict[str, Any] = {"devices": 2, "strategy": DDPStrategy(process_group_backend="gloo", **overlay)}
        editor = Noting(base=str(base), **SETTINGS)
        fit(editor, curriculum(toy_shards, 2), tmp_path / "ddp", **ddp)
        ddp["strategy"] = "ddp"
        return editor.losses, scores(**ddp), predict(weights, toy_shards, **ddp)

    (left, scored, edits), (right, again, others) = on_ranks(work)
    assert [*left, *right] == pytest.approx([*alone.losses[0::2], *alone.losses[1::2]], rel=1e-4)
    assert_close(alone.made.raw, load_deliverable(tmp_path / "ddp/weights").raw, 1e-4)
    assert len(scored) >= 4 and scored == again == pytest.approx(scores(devices=1), rel=1e-4)
    one, two, three = predict(weights, toy_shards, devices=1)
    for expected, edited in zip([one, three, two], [*edits, *others], strict=True):
        torch.testing.assert_close(edited, expected, rtol=0, atol=1e-5)
