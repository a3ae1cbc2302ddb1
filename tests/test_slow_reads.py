"""A read that stalls is named, whoever reads, and is then waited for."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from insvie_callbacks import Heartbeat, Throughput
from insvie_data_modules import samples
from insvie_data_modules.curriculum import Curriculum, Stage
from insvie_data_modules.edit_folder import EditFolder
from insvie_lightning import slow_reads
from insvie_lightning.batch import Clip, EditBatch, Triplet
from insvie_lightning.builders.units import _Reader
from insvie_lightning.shards.write import ShardWriter
from insvie_lightning.video import write_clip

STALL = 0.6


def clip() -> Clip:
    return Clip(np.zeros((5, 3, 32, 48), np.uint8), 8.0)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    with ShardWriter(tmp_path / "data", shard_size=2) as writer:
        for key in "abcd":
            writer.write(Triplet(key, clip(), clip(), "do"))
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def stalling(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Tell what takes long within a fifth of a second, and let the first read of files of a name stall."""
    monkeypatch.setattr(slow_reads, "SECONDS", 0.2)
    monkeypatch.setattr(slow_reads, "_watcher", None)

    def stall(name: str) -> None:
        read, stalled = samples.read_member, []

        def slow(shard: Path, offset: int, size: int) -> bytes:
            if shard.name == name and not stalled:
                stalled.append(shard)
                time.sleep(STALL)
            return read(shard, offset, size)

        monkeypatch.setattr(samples, "read_member", slow)

    return stall


def curriculum(shards: Path, workers: int) -> Curriculum:
    return Curriculum(shards, [Stage("all", 4)], batch_size=1, frames=5, size=(32, 48), num_workers=workers)


@pytest.mark.parametrize(("workers", "who"), [(0, "rank 0"), (1, "worker 0 of rank 0")])
def test_a_stalled_read_is_named_and_the_order_stays(
    workers: int, who: str, shards: Path, stalling: Callable[[str], None], capfd: pytest.CaptureFixture[str]
) -> None:
    expected = [batch.keys for batch in curriculum(shards, 0).train_dataloader()]
    assert "has been reading" not in capfd.readouterr().err
    stalling("shard-000001.tar")
    assert [batch.keys for batch in curriculum(shards, workers).train_dataloader()] == expected
    first, second, *_ = [
        line for line in capfd.readouterr().err.splitlines() if "reading" in line
    ]  # again at twice 0.2 s
    found = re.match(rf"{who} has been reading sample '([cd])' of \S+/data/shard-000001\.tar for ([\d.]+) s$", first)
    assert found and float(found[2]) >= 0.2
    assert second.split(" for ")[0] == first.split(" for ")[0] and found[2] not in second


def test_videos_to_edit_and_the_inputs_of_builders_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from insvie_data_modules import edits

    write_clip(tmp_path / "a.mp4", clip())
    monkeypatch.setattr(edits, "read_clip", lambda path: time.sleep(0.3) or clip())
    assert len(list(EditFolder(tmp_path, "do").predict_dataloader())) == 1
    assert f"rank 0 has been reading {tmp_path / 'a.mp4'} for " in capfd.readouterr().err

    class Inputs:
        keys = pa.chunked_array([["x"]])
        reading = MappingProxyType({"at": "videos"})

        def __getitem__(self, index: int) -> int:
            time.sleep(0.3)
            return index

    inputs: Any = Inputs()
    assert _Reader(inputs)[None, 0, True] == ((None, 0, True), 0)
    assert "rank 0 has been reading sample 'x' of videos for " in capfd.readouterr().err


class Learning(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: EditBatch, batch_idx: int) -> torch.Tensor:
        return self.weight.square().sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_that_waits_for_its_disk_says_so(
    workers: int, shards: Path, tmp_path: Path, stalling: Callable[[str], None], capfd: pytest.CaptureFixture[str]
) -> None:
    """The sample by whoever reads it, the rank by its heartbeat, and afterwards the share of the wait."""
    order = [batch.keys[0] for batch in curriculum(shards, 0).train_dataloader()]
    late = next(number for number, key in enumerate(order) if key in ("cd" if order[0] in "ab" else "ab"))
    stalling("shard-000001.tar" if order[late] in "cd" else "shard-000000.tar")
    trainer = Trainer(
        default_root_dir=tmp_path, accelerator="cpu", devices=1, max_epochs=1, logger=False, log_every_n_steps=1,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[Heartbeat(0.3), Throughput()],
    )  # fmt: skip
    trainer.fit(Learning(), datamodule=curriculum(shards, workers))
    said = capfd.readouterr().err
    assert re.search(rf"reading sample '{order[late]}' of \S+\.tar for [\d.]+ s", said)
    where = (
        rf"after training batch {late - 1} of '{order[late - 1]}'" if not workers else "(at starting|after training)"
    )
    assert re.search(rf"rank 0 on \S+ \(pid \d+\) has stood still for \d s {where}", said)
    assert trainer.logged_metrics["data_wait_share"] > 0.5
