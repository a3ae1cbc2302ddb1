"""Scores of toy edits: perfect ones, and the baselines' own columns."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule

from insvie_callbacks.toy_scores import ToyScores
from insvie_data_modules.toy_scenes import ToyScenes
from insvie_lightning.batch import EditBatch, EditedVideos
from insvie_lightning.nets.latents import to_device_pixels
from insvie_lightning.toy.edits import example_of_key

SCORES = {"recolour_accuracy", "removal_accuracy", "psnr_db"}


class Oracle(LightningModule):
    """Makes the true edit when it sees the source and is asked for it, else grey clips; remembers what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.asked: list[tuple[tuple[str, ...], tuple[str, ...], bool]] = []

    def edit_batch(self, batch: EditBatch, keep_source: bool = True) -> torch.Tensor:
        self.asked.append((batch.keys, batch.instructions, keep_source))
        right = tuple(example_of_key(key).instruction for key in batch.keys)
        assert batch.edited is not None
        perfect = to_device_pixels(batch.edited)
        return perfect if keep_source and batch.instructions == right else torch.zeros_like(perfect)

    def test_step(self, batch: EditBatch, batch_idx: int) -> EditedVideos:
        return EditedVideos(self.edit_batch(batch))

    def validation_step(self, batch: EditBatch, batch_idx: int) -> EditedVideos:
        return EditedVideos(self.edit_batch(batch))


class Idle(Oracle):
    """Returns the source."""

    def edit_batch(self, batch: EditBatch, keep_source: bool = True) -> torch.Tensor:
        return super().edit_batch(replace(batch, edited=batch.source), keep_source)


def scenes(count: int = 12) -> ToyScenes:
    kinds: Any = ("recolour", "remove")
    return ToyScenes(4, val_samples=count, test_samples=count, edit_types=kinds, test_edit_types=kinds)


@pytest.fixture(scope="module")
def tested(make_trainer: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Oracle, dict[str, float]]:
    editor = Oracle()
    trainer = make_trainer(tmp_path_factory.mktemp("run"), ToyScores())
    (scores,) = trainer.test(editor, scenes(), verbose=False)
    return editor, scores


def test_every_baseline_has_its_prefix(tested: tuple[Oracle, dict[str, float]]) -> None:
    prefixes = ("", "copy_", "wrong_text_", "no_source_")
    assert tested[1].keys() == {f"{prefix}{score}" for prefix in prefixes for score in SCORES}


def test_perfect_edits_score_one_and_copies_zero(tested: tuple[Oracle, dict[str, float]]) -> None:
    scores = tested[1]
    assert scores["recolour_accuracy"] == scores["removal_accuracy"] == 1
    assert scores["psnr_db"] > 100
    assert scores["copy_recolour_accuracy"] == scores["copy_removal_accuracy"] == 0
    assert 10 < scores["copy_psnr_db"] < 30
    assert (
        scores["wrong_text_psnr_db"] == pytest.approx(scores["no_source_psnr_db"]) and scores["no_source_psnr_db"] < 15
    )


def test_baselines_are_asked_for_another_edit_or_shown_no_source(tested: tuple[Oracle, dict[str, float]]) -> None:
    asked = tested[0].asked
    assert len(asked) == 3 * 3
    for plain, wrong, blind in (asked[i : i + 3] for i in range(0, 9, 3)):
        assert plain[0] == wrong[0] == blind[0] and plain[1] == blind[1]
        assert all(first != second for first, second in zip(plain[1], wrong[1], strict=True))
        assert (plain[2], wrong[2], blind[2]) == (True, True, False)


def test_baselines_can_be_left_out(make_trainer: Any, tmp_path: Path) -> None:
    editor = Oracle()
    (scores,) = make_trainer(tmp_path, ToyScores(baselines=False)).test(editor, scenes(4), verbose=False)
    assert scores.keys() == SCORES and len(editor.asked) == 1


def test_validation_scores_only_the_editor(make_trainer: Any, tmp_path: Path) -> None:
    (scores,) = make_trainer(tmp_path, ToyScores()).validate(Idle(), scenes(8), verbose=False)
    assert scores.keys() == {f"val_{score}" for score in SCORES}
    assert scores["val_recolour_accuracy"] == scores["val_removal_accuracy"] == 0
    assert math.isfinite(scores["val_psnr_db"])


@pytest.mark.parametrize("loop", ["validation", "test"])
def test_counts_lie_where_the_editor_is_when_its_loop_begins(loop: str) -> None:
    callback, editor = ToyScores(), Oracle()
    callback.setup(None, editor, loop)  # type: ignore[arg-type]
    editor.to("meta")  # as Lightning moves an editor to its GPU, after `setup`
    getattr(callback, f"on_{loop}_epoch_start")(None, editor)
    assert {score.removals.device.type for score in callback.scores.values()} == {"meta"}
