"""What is told of a builder at work, and what the whole job will take."""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning import LightningModule, Trainer

from insvie_callbacks.build_progress import BuildProgress, Preflight
from insvie_data_modules.toy_scenes import ToyScenes
from insvie_lightning.batch import Rejected, Triplet
from insvie_lightning.builders.builder import Builder, Built
from insvie_lightning.cli import main
from insvie_lightning.errors import InputError

SECONDS = 0.02


class Sleep(Builder[Triplet]):
    """Takes its time, asks a judge for a cent each, half of it from a cache, and rejects every fourth."""

    def __init__(self, output: Path, shard_size: int = 4) -> None:
        super().__init__(output, shard_size)
        self.judge = SimpleNamespace(spent=SimpleNamespace(usd=1.0, saved_usd=2.0))

    def make(self, drafts: Sequence[Triplet]) -> list[Built]:
        time.sleep(SECONDS * len(drafts))
        self.judge.spent.usd += 0.005 * len(drafts)
        self.judge.spent.saved_usd += 0.005 * len(drafts)
        return [Rejected(t, "poor") if t.key.endswith("3") else t for t in drafts]


def predict(builder: LightningModule, callback: Any, samples: int = 10, **options: Any) -> None:
    data = ToyScenes(samples=samples, size=(32, 48), frames=5, batch_size=2)
    quiet = {"logger": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(accelerator="cpu", devices=1, callbacks=[callback], **quiet, **options)
    trainer.predict(builder, datamodule=data, return_predictions=False)


def test_progress_tells_rate_share_and_time_left(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    predict(Sleep(tmp_path), BuildProgress(every_seconds=0, line_seconds=0))
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("Sleep: ")]
    told = [re.fullmatch(r"Sleep: (\d+) of 10 samples, (\S+) samples/s, (.*), (\d+:\d\d:\d\d) left", s) for s in lines]
    assert all(told) and [int(line[1]) for line in told if line] == [2, 4, 6, 8, 10, 10]
    last = told[-1]
    assert last is not None and last[3] == "90.0% accepted" and last[4] == "0:00:00"
    assert 0 < float(last[2]) <= 1 / SECONDS


def test_a_rerun_counts_what_is_left_only(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    predict(Sleep(tmp_path), BuildProgress(), limit_predict_batches=2)
    capfd.readouterr()
    predict(Sleep(tmp_path), BuildProgress(every_seconds=0, line_seconds=0))
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("Sleep: ")]
    assert lines[0].startswith("Sleep: 2 of 6 samples") and lines[-1].startswith("Sleep: 6 of 6 samples")


def test_a_trainer_without_a_bar_is_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    predict(Sleep(tmp_path), BuildProgress(every_seconds=0, line_seconds=0), enable_progress_bar=False)
    assert "samples/s" not in capfd.readouterr().err


def test_preflight_prints_what_the_job_will_take_and_writes_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    predict(Sleep(tmp_path / "out"), Preflight(samples=8), samples=3600)
    out = capfd.readouterr().out
    assert not (tmp_path / "out").exists()
    found = re.search(
        r"Sleep: 8 samples measured, (\S+) s each \((\d+)% of the time in the step itself\), 88% accepted\n"
        r"the whole job of 3600 samples: (\S+) days on 1 device, (\S+) CPU-hours, (\S+) GB, \$36\.00 for the judge",
        out,
    )
    assert found is not None, out
    seconds, share, days, hours, gigabytes = map(float, found.groups())
    assert seconds >= SECONDS and 0 < share <= 100
    assert hours == pytest.approx(seconds, rel=0.01) and days == pytest.approx(hours / 24, rel=0.01)
    assert 1e-3 < gigabytes < 0.1


def test_what_is_no_builder_is_one_sentence(tmp_path: Path) -> None:
    class Other(LightningModule):
        def forward(self) -> None: ...

    for callback in (BuildProgress(), Preflight()):
        with pytest.raises(InputError, match=f"{type(callback).__name__} watches builders; Other is none"):
            predict(Other(), callback)
    with pytest.raises(InputError, match="samples is 0"):
        Preflight(0)


def test_preflight_works_from_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--trainer.callbacks+=Preflight", "--trainer.callbacks.samples=3", "--data.samples=1000"]
    where = [f"--model.output={tmp_path / 'out'}", f"--trainer.default_root_dir={tmp_path / 'run'}"]
    assert main(["predict", "-c", "build_toy", *where, *options]) == 0
    assert "BuildToy: 3 samples measured" in capfd.readouterr().out
    assert not (tmp_path / "out").exists()
