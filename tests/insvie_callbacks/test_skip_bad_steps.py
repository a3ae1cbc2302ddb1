"""Steps that are not finite are skipped, on all ranks together, and too many of them stop the run."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader

from insvie_callbacks import SkipBadSteps
from insvie_lightning.errors import InputError
from insvie_lightning.fsdp import FullySharded


class Line(LightningModule):
    """Learns numbers; the loss of the numbers in `bad` is what is said there."""

    def __init__(self, bad: dict[int, float]) -> None:
        super().__init__()
        self.bad, self.shared = bad, False
        self.net = nn.Linear(1, 4)
        nn.init.constant_(self.net.weight, 1.0)
        nn.init.zeros_(self.net.bias)

    def configure_model(self) -> None:
        if self.shared:
            fully_shard(self.net, mesh=self.device_mesh["data_parallel"])  # type: ignore[index]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (number,) = batch.numbers
        loss = self.net(torch.full((1, 1), float(number))).square().mean()
        return loss * self.bad.get(number, 1.0)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 0.1)


def numbered(numbers: list[int]) -> Any:
    return SimpleNamespace(numbers=numbers, keys=tuple(f"k{n}" for n in numbers))


def fit(model: Line, folder: Path, numbers: list[int], *callbacks: Any, **options: Any) -> Trainer:
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks), use_distributed_sampler=False,
        **{"devices": 1, "gradient_clip_val": 1.0, **options},
    )  # fmt: skip
    own = numbers[trainer.global_rank :: trainer.world_size]
    trainer.fit(model, DataLoader(own, collate_fn=numbered))  # type: ignore[arg-type]
    return trainer


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bad_step_leaves_everything_as_it_was_and_its_keys_are_kept(value: float, tmp_path: Path) -> None:
    model, straight, callback = Line({3: value}), Line({}), SkipBadSteps()
    trainer = fit(model, tmp_path, [1, 2, 3, 4], callback)
    fit(straight, tmp_path / "straight", [1, 2, 4])
    for one, two in zip(model.parameters(), straight.parameters(), strict=True):
        assert torch.equal(one, two)
    assert lines(tmp_path / "skipped_steps-rank0.jsonl") == [
        {"step": 2, "batches": [{"keys": ["k3"], "loss": str(value)}]}
    ]
    assert callback.skipped == 1 and trainer.callback_metrics["skipped_steps"] == 1
    again = SkipBadSteps()
    again.load_state_dict(callback.state_dict())
    assert again.skipped == 1


def test_of_accumulated_batches_all_are_dropped_with_the_bad_one(tmp_path: Path) -> None:
    model, straight = Line({2: float("nan")}), Line({})
    fit(model, tmp_path, [1, 2, 3, 4], SkipBadSteps(), accumulate_grad_batches=2)
    fit(straight, tmp_path / "straight", [3, 4], accumulate_grad_batches=2)
    for one, two in zip(model.parameters(), straight.parameters(), strict=True):
        assert torch.equal(one, two)
    (line,) = lines(tmp_path / "skipped_steps-rank0.jsonl")
    assert [(batch["keys"], batch["loss"]) for batch in line["batches"]] == [(["k1"], "1.0"), (["k2"], "nan")]


def test_too_many_in_a_row_stop_the_run(tmp_path: Path) -> None:
    bad = dict.fromkeys([2, 4, 5], float("nan"))
    with pytest.raises(InputError, match=r"2 steps in a row were not finite, the last at step 4; .*rank0\.jsonl has"):
        fit(Line(bad), tmp_path, [1, 2, 3, 4, 5, 6], SkipBadSteps(max_in_a_row=2))
    with pytest.raises(InputError, match="max_in_a_row is 0"):
        SkipBadSteps(max_in_a_row=0)


@pytest.mark.parametrize("shared", [False, True], ids=["ddp", "fsdp"])
def test_ranks_skip_together_where_one_of_them_is_bad(
    shared: bool, on_ranks: Callable[..., list[Any]], tmp_path: Path
) -> None:
    def work(rank: int) -> list[Tensor]:
        torch.manual_seed(0)
        model, callback = Line({4: float("nan")}), SkipBadSteps()
        model.shared = shared
        strategy = (FullySharded if shared else DDPStrategy)(process_group_backend="gloo")
        fit(model, tmp_path, [1, 2, 3, 4, 5, 6], callback, devices=2, strategy=strategy)
        assert callback.skipped == 1
        return [getattr(p, "full_tensor", lambda p=p: p)().detach().clone() for p in model.parameters()]

    left, right = on_ranks(work)
    straight = Line({})
    fit(straight, tmp_path / "straight", [1, 2, 5, 6], accumulate_grad_batches=2)
    for one, two, alone in zip(left, right, straight.parameters(), strict=True):
        assert torch.equal(one, two)
        torch.testing.assert_close(one, alone.detach(), rtol=0, atol=1e-5)
    assert lines(tmp_path / "skipped_steps-rank0.jsonl")[0]["batches"][0]["keys"] == ["k3"]
    assert lines(tmp_path / "skipped_steps-rank1.jsonl")[0]["batches"] == [{"keys": ["k4"], "loss": "nan"}]
