"""The last numbers of a run, in one file."""

import json
from pathlib import Path
from typing import Any

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
    make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path
) -> None:
    make_trainer(tmp_path, Summary()).validate(make_editor(), numbers(1), verbose=False)
    assert not (tmp_path / "summary.json").exists()
    make_trainer(tmp_path, Summary()).test(make_editor(), numbers(1), verbose=False)
    assert json.loads((tmp_path / "summary.json").read_text())["score"] == 3.5
