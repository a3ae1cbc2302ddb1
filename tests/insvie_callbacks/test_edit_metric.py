"""When edits are scored, what is logged, and when a validation stops."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from insvie_callbacks.edit_metric import EditMetric, edit_metrics, scores_of
from insvie_lightning.batch import EditBatch, EditedVideos
from insvie_lightning.errors import InputError
from insvie_lightning.metrics.per_sample import EditedSample, PerSample
from insvie_lightning.quarantine import read_quarantine


class Brightness(PerSample):
    """Mean of the edited clip in 0..255; counts how often it was prepared."""

    names = ("brightness",)

    def __init__(self) -> None:
        super().__init__()
        self.prepared = 0

    def prepare(self) -> None:
        self.prepared += 1

    def score(self, sample: EditedSample) -> tuple[float, ...]:
        return (float(sample.edited.float().mean()),)


class Copying(LightningModule):
    """Gives the source back."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: EditBatch, batch_idx: int) -> torch.Tensor:
        return self.weight.sum()

    def validation_step(self, batch: EditBatch, batch_idx: int) -> EditedVideos:
        return EditedVideos(batch.source)  # type: ignore[arg-type]

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def loader(count: int) -> Any:
    def stacked(numbers: list[int]) -> EditBatch:
        pixels = torch.tensor(numbers, dtype=torch.uint8)[:, None, None, None, None].expand(-1, 2, 3, 4, 4)
        return EditBatch(tuple(f"k{n}" for n in numbers), ("x",) * len(numbers), source=10 * pixels)

    return DataLoader(range(count), batch_size=2, collate_fn=stacked)  # type: ignore[arg-type]


def trainer(folder: Path, callback: EditMetric, **options: Any) -> Trainer:
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    return Trainer(accelerator="cpu", devices=1, default_root_dir=folder, callbacks=[callback], **quiet, **options)


def test_a_fit_is_scored_at_every_validation_and_not_by_the_sanity_check(tmp_path: Path) -> None:
    callback = EditMetric(Brightness())
    seen: list[set[str]] = []
    run = trainer(tmp_path, callback, max_epochs=2)
    callback.on_validation_end = lambda *_: seen.append(set(callback.metric.rows))  # type: ignore[method-assign]
    run.fit(Copying(), loader(2), loader(3))
    assert seen == [set(), {"k0", "k1", "k2"}, {"k0", "k1", "k2"}]
    assert run.callback_metrics["val_brightness"] == 10 and callback.metric.prepared == 1


def test_a_fit_without_validation_loads_nothing(tmp_path: Path) -> None:
    callback = EditMetric(Brightness())
    trainer(tmp_path, callback, max_epochs=1).fit(Copying(), loader(2))
    assert callback.metric.prepared == 0


def test_a_validation_stops_in_time_and_a_test_is_whole(tmp_path: Path) -> None:
    callback = EditMetric(Brightness(), max_seconds=0.0)
    run = trainer(tmp_path, callback)
    (logged,) = run.validate(Copying(), loader(5), verbose=False)
    assert logged["val_brightness_skipped"] == 5 and not callback.metric.rows
    (logged,) = run.test(Copying(), loader(5), verbose=False)
    assert logged == {"brightness": 20}
    assert edit_metrics(run) == [callback]
    assert scores_of(run) == {f"k{n}": {"brightness": 10.0 * n} for n in range(5)}


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_what_is_needed_is_loaded_before_the_work_begins(tmp_path: Path, verb: str) -> None:
    class Absent(Brightness):
        def prepare(self) -> None:
            raise RuntimeError("no weights")

    class Unused(Copying):
        def validation_step(self, batch: EditBatch, batch_idx: int) -> EditedVideos:
            raise AssertionError("the work began")

        test_step = validation_step

    with pytest.raises(RuntimeError, match="no weights"):
        getattr(trainer(tmp_path, EditMetric(Absent())), verb)(Unused(), loader(1), verbose=False)


def test_two_metrics_of_one_name_are_refused_before_they_are_loaded(tmp_path: Path) -> None:
    """Lightning would log the mean of both under the one name."""
    one, two = EditMetric(Brightness()), EditMetric(Brightness())
    run = trainer(tmp_path, one, max_epochs=1)
    run.callbacks.append(two)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="2 metrics give the score 'brightness'; one name has room for one"):
        run.fit(Copying(), loader(2), loader(3))
    assert one.metric.prepared == 0  # type: ignore[attr-defined]


class Picky(Brightness):
    """Refuses some samples."""

    def __init__(self, refused: set[str]) -> None:
        super().__init__()
        self.refused = refused

    def score(self, sample: EditedSample) -> tuple[float, ...]:
        if sample.key in self.refused:
            raise InputError(f"sample {sample.key!r} has no caption")
        return super().score(sample)


def test_a_later_sample_that_is_refused_is_set_aside(tmp_path: Path) -> None:
    callback = EditMetric(Picky({"k2", "k4"}))
    (logged,) = trainer(tmp_path, callback).test(Copying(), loader(5), verbose=False)
    assert logged["brightness"] == pytest.approx((0 + 10 + 30) / 3) and logged["brightness_skipped"] == 2
    bad = read_quarantine(tmp_path / "quarantine-scores-rank0.jsonl")
    assert bad == {key: f"Picky: sample {key!r} has no caption" for key in ("k2", "k4")}


def test_a_first_sample_that_is_refused_stops_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'k0' has no caption"):
        trainer(tmp_path, EditMetric(Picky({"k0"}))).test(Copying(), loader(5), verbose=False)
