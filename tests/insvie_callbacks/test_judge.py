"""The judge as a callback, in a run with the tiny model of `tests/judges`."""

from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader

from insvie_callbacks import Judge
from insvie_lightning.batch import EditBatch, EditedVideos
from insvie_lightning.errors import InputError
from insvie_lightning.judges.local import LocalModel
from insvie_lightning.judges.server import Server

TINY_VLM = Path(__file__).parents[1] / "judges/tiny_vlm"


class White(LightningModule):
    """Makes every clip white."""

    def test_step(self, batch: EditBatch, batch_idx: int) -> EditedVideos:
        assert batch.source is not None
        return EditedVideos(torch.full(batch.source.shape, 0.8))

    validation_step = test_step


def black() -> DataLoader[Any]:
    source = torch.full((1, 3, 3, 56, 56), 30, dtype=torch.uint8)
    batches: Any = [EditBatch((key,), ("make it white",), source=source) for key in "ab"]
    return DataLoader(batches, batch_size=None)


def test_scores_of_a_test_and_of_a_validation_are_logged_and_kept(make_trainer: Any, tmp_path: Path) -> None:
    judge = Judge(str(TINY_VLM), kind="local", cache=tmp_path / "answers", frames=2, max_tokens=32)
    trainer = make_trainer(tmp_path, judge)
    (scores,) = trainer.test(White(), black(), verbose=False)
    assert scores == {"judge_temporal": 5, "judge_text": 5, "judge_quality": 5}
    assert len(list((tmp_path / "answers").rglob("*.json"))) == 3  # both samples are the same edit
    (scores,) = trainer.validate(White(), black(), verbose=False)
    assert scores == {"val_judge_temporal": 5, "val_judge_text": 5, "val_judge_quality": 5}
    assert all(verdict.cached for verdicts in judge.metric.verdicts.values() for verdict in verdicts)  # type: ignore[attr-defined]


def test_a_server_that_is_not_there_stops_the_run_at_its_start(make_trainer: Any, tmp_path: Path) -> None:
    judge = Judge("m", base_url="http://127.0.0.1:9/v1", cache=None)
    with pytest.raises(InputError, match="cannot be reached"):
        make_trainer(tmp_path, judge).test(White(), black(), verbose=False)


def test_every_option_arrives_from_a_recipe() -> None:
    parser = ArgumentParser()
    parser.add_class_arguments(Judge, "judge")
    options: dict[str, Any] = {
        "model": "m", "base_url": "http://localhost:8000/v1", "cache": "answers", "frames": 5, "detail": "low",
        "max_tokens": 9, "temperature": None, "reasks": 1, "concurrency": 2, "max_retries": 3, "timeout_seconds": 4,
        "usd_per_million_input": 5, "usd_per_million_output": 6, "max_seconds": 7,
    }  # fmt: skip
    callback = parser.instantiate_classes(parser.parse_object({"judge": options})).judge
    metric, judge = callback.metric, callback.metric.judge
    assert isinstance(judge.model, Server) and judge.cache.folder == Path("answers")
    assert (judge.model.model, judge.model.base_url, judge.model.detail) == ("m", "http://localhost:8000/v1", "low")
    assert (judge.model.max_tokens, judge.model.temperature) == (9, None)
    assert (judge.model.max_retries, judge.model.timeout_seconds) == (3, 4)
    assert (judge.reasks, judge.concurrency, judge.usd_per_token) == (1, 2, (5e-6, 6e-6))
    assert (metric.frames, callback.max_seconds) == (5, 7)


def test_a_local_judge_needs_a_model_and_loads_it_late() -> None:
    with pytest.raises(InputError, match="a local judge needs a `model`"):
        Judge(kind="local")
    assert isinstance(Judge("nobody/has-it", kind="local").metric.judge.model, LocalModel)  # type: ignore[attr-defined]
