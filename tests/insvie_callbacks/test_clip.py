"""The callbacks of CLIP scores: their arguments reach the metric, and a run logs the scores of its edits."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from insvie_callbacks import ClipFrame, ClipTemporal, ClipText, PickScore, UltraEdit
from insvie_lightning.batch import EditBatch, EditedVideos, collate
from insvie_lightning.nets.latents import to_device_pixels
from insvie_lightning.toy.edits import example, to_triplet


class Perfect(LightningModule):
    """Returns the exact edits."""

    def test_step(self, batch: EditBatch, batch_idx: int) -> EditedVideos:
        assert batch.edited is not None
        return EditedVideos(to_device_pixels(batch.edited))

    validation_step = test_step


class Batches(torch.utils.data.IterableDataset):
    """Three toy edits, two and one."""

    def __iter__(self) -> Iterator[EditBatch]:
        triplets = [to_triplet(example("test", index), frames=3) for index in range(3)]
        yield from (collate(triplets[:2]), collate(triplets[2:]))


@pytest.fixture
def loader() -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(Batches(), batch_size=None)


def test_a_test_logs_every_score_beside_that_of_the_source(
    make_trainer: Callable[..., Trainer], loader: Any, tmp_path: Path
) -> None:
    callbacks = [
        ClipFrame("toy"),
        ClipTemporal("toy"),
        ClipText("toy"),
        PickScore("toy"),
        UltraEdit("toy", dino=None),
    ]
    trainer = make_trainer(tmp_path, *callbacks)
    [logged] = trainer.test(Perfect(), loader, verbose=False)
    names = {"clip_frame", "clip_temporal", "clip_text", "pick_score", "clip_sim_target"}
    assert {f"source_{name}" for name in names} | names <= logged.keys() and "clip_sim_dir" in logged
    assert logged["clip_text"] > logged["source_clip_text"] and logged["clip_text"] == logged["pick_score"]
    assert all(len(callback.metric.rows) == 3 for callback in callbacks)


def test_validation_logs_a_score_to_follow(make_trainer: Callable[..., Trainer], loader: Any, tmp_path: Path) -> None:
    [logged] = make_trainer(tmp_path, ClipText("toy", with_source=False)).validate(Perfect(), loader, verbose=False)
    assert logged.keys() == {"val_clip_text"}


@pytest.mark.parametrize("kind", [ClipFrame, ClipText, PickScore])
def test_arguments_reach_the_metric(kind: Any) -> None:
    given = {"model": "m", "preprocessing": "tensor", "tgve_square": True, "with_source": False}
    callback = kind(**given, max_seconds=5)
    assert {name: getattr(callback.metric, name) for name in given} == given and callback.max_seconds == 5


def test_arguments_reach_the_other_metrics() -> None:
    temporal = ClipTemporal("m", "tensor", with_source=False, max_seconds=5)
    assert (temporal.metric.model, temporal.metric.preprocessing) == ("m", "tensor")  # type: ignore[attr-defined]
    assert not temporal.metric.with_source and temporal.max_seconds == 5
    assert PickScore(processor="p").metric.processor == "p"  # type: ignore[attr-defined]
