"""The last numbers of a run, in one file."""

import json
from pathlib import Path
from typing import Any

import pytest

from insvie_callbacks.run_checkpoint import RunCheckpoint
from insvie_callbacks.summary import Summary


def test_a_fit_leaves_its_last_values_steps_and_seconds(
    make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path / "new", Summary(), val_check_interval=2)
    trainer.fit(make_editor(), numbers(4), numbers(1))
    found = json.loads((tmp_path / "new/summary.json").read_text())
    assert 0 <= found.pop("seconds") < 60
    assert found == {"train_loss": -3, "val_loss": -4, "steps": 4}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["summary.json"]


def test_a_test_leaves_its_scores_and_a_validation_nothing(
    make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_trainer(tmp_path, Summary()).validate(make_editor(), numbers(1), verbose=False)
    assert not (tmp_path / "summary.json").exists()
    with caplog.at_level("INFO"):
        make_trainer(tmp_path, Summary()).test(make_editor(), numbers(1), verbose=False)
    told = f"the numbers: {tmp_path}/summary.json; a page of this run: insvie report {tmp_path}"
    assert told in caplog.messages
    assert json.loads((tmp_path / "summary.json").read_text())["score"] == 3.5


def test_a_rerun_of_a_complete_run_keeps_its_numbers(
    make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path
) -> None:
    make_trainer(tmp_path, Summary(), RunCheckpoint(), max_steps=2).fit(make_editor(), numbers(2))
    written = (tmp_path / "summary.json").read_text()
    again, path = make_trainer(tmp_path, Summary(), RunCheckpoint(), max_steps=2), tmp_path / "checkpoints/step=2.ckpt"
    again.fit(make_editor(), numbers(2), ckpt_path=path)
    assert (tmp_path / "summary.json").read_text() == written and "train_loss" in written
    assert [file.name for file in sorted((tmp_path / "checkpoints").iterdir())] == ["last.ckpt", "step=2.ckpt"]
