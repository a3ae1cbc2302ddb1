"""The tables of a test, of one process and of two."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader

from insvie_callbacks import EditSamples, ScoreTable
from insvie_callbacks.edit_metric import EditMetric
from insvie_lightning.batch import EditBatch, EditedVideos
from insvie_lightning.metrics.per_sample import EditedSample, PerSample
from insvie_lightning.report.score_sheet import read_sheet

TYPES = ("style", "object")


class Brightness(PerSample):
    """Mean of the edited clip in 0..255."""

    names = ("brightness",)
    source_names = names

    def score(self, sample: EditedSample) -> tuple[float, ...]:
        return (float(sample.edited.float().mean()),)


class Frames(PerSample):
    """How many frames; no value for the sample `k3`."""

    names = ("frames_seen",)

    def __init__(self) -> None:
        super().__init__()
        self.model = "toy"

    def score(self, sample: EditedSample) -> tuple[float, ...]:
        return (float("nan") if sample.key == "k3" else float(len(sample.edited)),)


class Doubling(LightningModule):
    """Returns the source twice as bright; without an edit for what `missing` names."""

    def __init__(self, missing: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.missing = missing

    def test_step(self, batch: EditBatch, batch_idx: int) -> EditedVideos:
        return EditedVideos(2 * batch.source, missing=self.missing & {*batch.keys})  # type: ignore[operator]


def stacked(numbers: list[int]) -> EditBatch:
    pixels = torch.tensor(numbers, dtype=torch.uint8)[:, None, None, None, None].expand(-1, 3, 3, 16, 16)
    keys = tuple(f"k{n}" for n in numbers)
    types = tuple(TYPES[n % 2] for n in numbers)
    return EditBatch(keys, tuple(f"do {n}" for n in numbers), source=10 * pixels, edit_types=types)


def run_test(
    folder: Path, count: int, model: Doubling, *callbacks: Any, batch_size: int = 2, **options: Any
) -> dict[str, float]:
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **options,
    )
    loader: Any = DataLoader(range(count), batch_size, collate_fn=stacked)  # type: ignore[arg-type]
    return dict(trainer.test(model, loader, verbose=False)[0])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def metrics() -> list[EditMetric]:
    return [EditMetric(Brightness()), EditMetric(Frames())]


def test_every_edit_is_in_the_files_and_the_means_on_the_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_test(tmp_path, 5, Doubling(frozenset({"k4"})), *metrics(), ScoreTable("tgve"), devices=1)
    edits = rows(tmp_path / "scores.csv")
    about = ["key", "edit_type", "instruction", "frames", "height", "width"]
    assert list(edits[0]) == [*about, "brightness", "source_brightness", "frames_seen"]
    assert [list(edit.values()) for edit in edits[2:]] == [
        ["k2", "style", "do 2", "3", "16", "16", "40.0", "20.0", "3.0"],
        ["k3", "object", "do 3", "3", "16", "16", "60.0", "30.0", ""],
        ["k4", "style", "do 4", "", "", "", "", "", ""],
    ]
    assert [list(task.values()) for task in rows(tmp_path / "tasks.csv")] == [
        ["style", "3", "1", "20.0", "10.0", "3.0"],
        ["object", "2", "0", "40.0", "20.0", "3.0"],
        ["all", "5", "1", "30.0", "15.0", "3.0"],
    ]
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("InsViE", "20.90", "this run", "brightness", "source_brightness"))
    assert "1 of 5 edits are missing" in shown
    sheet = read_sheet(tmp_path)
    assert sheet is not None and sheet.tasks.rows[0] == ("brightness", "20", "40", "30")


def test_two_processes_write_what_one_writes(tmp_path: Path) -> None:
    """Five edits on two processes, of which the sampler repeats the first to fill the last round."""
    ranks = DDPStrategy(start_method="fork", process_group_backend="gloo")
    one = run_test(tmp_path / "one", 5, Doubling(), *metrics(), ScoreTable(), devices=1)
    two = run_test(tmp_path / "two", 5, Doubling(), *metrics(), ScoreTable(), devices=2, strategy=ranks, batch_size=1)
    assert one == two == {"brightness": 40, "source_brightness": 20, "frames_seen": 3, "frames_seen_missing": 1}
    for name in ("scores.csv", "tasks.csv", "score_table.json"):
        assert (tmp_path / "two" / name).read_text() == (tmp_path / "one" / name).read_text()
    assert len(rows(tmp_path / "two/scores.csv")) == 5


def test_samples_show_what_the_metrics_say_of_them(tmp_path: Path) -> None:
    run_test(tmp_path, 5, Doubling(frozenset({"k0"})), EditSamples(max_samples=3), *metrics(), devices=1)
    entries = json.loads(next(tmp_path.glob("samples/*/samples.json")).read_text())
    assert [(entry["key"], entry["scores"]) for entry in entries] == [
        ("k1", {"brightness": 20.0, "source_brightness": 10.0, "frames_seen": 3.0}),
        ("k2", {"brightness": 40.0, "source_brightness": 20.0, "frames_seen": 3.0}),
        ("k3", {"brightness": 60.0, "source_brightness": 30.0}),
    ]
