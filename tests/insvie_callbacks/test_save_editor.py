"""What a run delivers, and when."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from insvie_callbacks.lora_ema import LoraEMA
from insvie_callbacks.save_editor import SaveEditor
from insvie_lightning.weights.deliverable import load_deliverable


def test_the_last_raw_and_averaged_weights_are_delivered(
    make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    editor = make_editor()
    with caplog.at_level("INFO"):
        make_trainer(tmp_path, SaveEditor(), LoraEMA()).fit(editor, numbers(3))
    assert f"the editor after step 3: insvie edit --weights {tmp_path}/weights" in caplog.messages
    assert {path.name for path in (tmp_path / "weights").iterdir()} == {
        "editor.json", "raw.safetensors", "ema.safetensors",
    }  # fmt: skip
    found = load_deliverable(tmp_path / "weights")
    assert list(found.raw) == ["trained"] and found.raw["trained"].item() == -3
    assert found.ema is not None and found.ema["trained"].item() == pytest.approx(-2.7)
    assert (found.settings, found.ema_updates) == ({"base": "none"}, 3)


def test_without_an_average_there_is_no_file_of_it(
    make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path
) -> None:
    make_trainer(tmp_path, SaveEditor(tmp_path / "elsewhere")).fit(make_editor(), numbers(1))
    found = load_deliverable(tmp_path / "elsewhere")
    assert found.ema is None and found.raw["trained"].item() == -1
    assert not (tmp_path / "weights").exists()


def test_after_a_crash_the_weights_are_those_of_the_last_checkpoint(
    make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path
) -> None:
    saving = ModelCheckpoint(tmp_path / "checkpoints", every_n_train_steps=2)
    with pytest.raises(RuntimeError, match="power cut"):
        make_trainer(tmp_path, LoraEMA(), SaveEditor(), saving).fit(make_editor(fail_at=3), numbers(5))
    found = load_deliverable(tmp_path / "weights")
    assert found.raw["trained"].item() == -2 and found.ema is not None
    assert found.ema["trained"].item() == pytest.approx(-1.8)
