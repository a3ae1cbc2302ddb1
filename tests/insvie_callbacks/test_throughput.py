import csv
import time
import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from insvie_callbacks.throughput import Throughput, find_peak_tflops
from insvie_lightning.batch import EditBatch

NAMES = {"samples_per_second", "data_wait_share", "peak_memory_mib", "step_ms", "tflops", "mfu"}
TFLOP_PER_SAMPLE, PEAK_TFLOPS = 0.25, 500.0
LOADING, TRAINING, VALIDATING = 0.02, 0.01, 0.2


class Slow(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: EditBatch, batch_idx: int) -> torch.Tensor:
        time.sleep(TRAINING)
        return self.weight.square().sum()

    def validation_step(self, batch: EditBatch, batch_idx: int) -> None:
        time.sleep(VALIDATING)

    def flops_per_sample(self, batch: EditBatch) -> float:
        return 1e12 * TFLOP_PER_SAMPLE

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def load(batch: list[int]) -> EditBatch:
    time.sleep(LOADING)
    return EditBatch(keys=tuple(map(str, batch)), instructions=("",) * len(batch))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    folder: Path = tmp_path_factory.mktemp("run")
    logger = CSVLogger(folder, name="", version="")
    trainer = Trainer(
        accelerator="cpu",
        max_steps=12,
        val_check_interval=4,
        check_val_every_n_epoch=None,
        limit_val_batches=1,
        log_every_n_steps=2,
        logger=logger,
        callbacks=[Throughput(window=6, peak_tflops=PEAK_TFLOPS)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(range(48), batch_size=4, collate_fn=load)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(Slow(), loader, loader)
    assert {"samples_per_second", "mfu", "data_wait_share", "peak_memory_mib"} <= trainer.progress_bar_metrics.keys()
    assert [str(warning.message) for warning in caught if "batch_size" in str(warning.message)] == []
    with Path(logger.log_dir, "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_number_is_logged_at_the_logging_steps_only(rows: list[dict[str, str]]) -> None:
    logged = [row for row in rows if row["samples_per_second"]]
    assert [int(row["step"]) for row in logged] == [1, 3, 5, 7, 9, 11]
    assert all(row[name] for row in logged for name in NAMES)


def test_numbers_are_right_and_leave_validation_out(rows: list[dict[str, str]]) -> None:
    last = {name: float(rows[-1][name]) for name in NAMES}
    # Upper bounds are exact, since a sleep is never short; lower bounds leave room for a busy machine.
    assert 4 / (LOADING + TRAINING) / 2 < last["samples_per_second"] <= 4 / (LOADING + TRAINING)
    assert 0.4 < last["data_wait_share"] < 0.8
    assert 1000 * TRAINING <= last["step_ms"] < 1000 * VALIDATING / 4
    assert 100 < last["peak_memory_mib"] < 100_000
    assert last["tflops"] == pytest.approx(TFLOP_PER_SAMPLE * last["samples_per_second"])
    assert last["mfu"] == pytest.approx(last["tflops"] / PEAK_TFLOPS)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA L40", 181),
        ("NVIDIA L4", 121),
        ("Tesla V100-SXM2-16GB", None),
    ],
)
def test_the_peak_is_found_by_the_name_of_the_gpu(name: str, peak: float | None) -> None:
    assert find_peak_tflops(name) == peak


def test_a_model_that_does_not_say_what_it_needs_has_no_mfu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Slow, "flops_per_sample")
    trainer = Trainer(
        accelerator="cpu",
        max_steps=1,
        limit_val_batches=0,
        log_every_n_steps=1,
        logger=False,
        callbacks=[Throughput(peak_tflops=1.0)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Slow(), DataLoader(range(4), batch_size=4, collate_fn=load))
    assert "step_ms" in trainer.logged_metrics and not {"tflops", "mfu"} & trainer.logged_metrics.keys()
