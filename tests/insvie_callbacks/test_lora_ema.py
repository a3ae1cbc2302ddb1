"""The moving average, against series worked out by hand: the weight is -n after optimizer step n."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from insvie_callbacks.lora_ema import LoraEMA

SERIES = [
    # d_n = (1 + n) / (10 + n) = 1/10, 2/11, 3/12 : 0.1*0 + 0.9*-1 = -0.9; 2/11*-0.9 + 9/11*-2 = -1.8; ...
    (LoraEMA(0.9999), [-0.9, -1.8, -2.7]),
    (LoraEMA(0.2), [-0.9, -1.8, 0.2 * -1.8 + 0.8 * -3]),
    (LoraEMA(0.5, warmup=False), [-0.5, -1.25, -2.125]),
]


def average(editor: Any) -> float:
    assert list(editor.ema) == ["trained"]
    return editor.ema["trained"].item()


@pytest.mark.parametrize(("callback", "series"), SERIES, ids=["warm-up", "warm-up ends", "no warm-up"])
def test_the_average_follows_the_formula(
    make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path, callback: LoraEMA, series: list[float]
) -> None:
    for steps, expected in enumerate(series, start=1):
        editor = make_editor()
        make_trainer(tmp_path, LoraEMA(callback.decay, callback.warmup)).fit(editor, numbers(steps))
        assert editor.weight == -steps and editor.ema_updates == steps
        assert average(editor) == pytest.approx(expected, abs=1e-6)


def test_accumulated_gradients_update_once_for_every_optimizer_step(
    make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path
) -> None:
    editor = make_editor()
    make_trainer(tmp_path, LoraEMA(), accumulate_grad_batches=2).fit(editor, numbers(6))
    assert editor.trained == [0, 0, -1, -1, -2, -2] and editor.ema_updates == 3
    assert average(editor) == pytest.approx(-2.7, abs=1e-6)


def test_validation_sees_the_average_and_training_the_raw_weights_bit_for_bit(
    make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path
) -> None:
    plain, averaged = make_editor(0.1, rate=0.3), make_editor(0.1, rate=0.3)
    each_step = {"val_check_interval": 1, "num_sanity_val_steps": 1}
    make_trainer(tmp_path, **each_step).fit(plain, numbers(4), numbers(1))
    make_trainer(tmp_path, LoraEMA(0.5, warmup=False), **each_step).fit(averaged, numbers(4), numbers(1))
    assert averaged.trained == plain.trained and averaged.weight == plain.weight
    expected = mean = 0.1
    for raw, seen in zip(plain.validated, averaged.validated, strict=True):
        expected = mean if raw == plain.validated[0] else 0.5 * expected + 0.5 * raw
        assert seen == pytest.approx(expected, abs=1e-6)
    assert averaged.validated[-1] == average(averaged) != plain.validated[-1]
    assert averaged.transformer.frozen.item() == 7


def test_a_test_runs_with_the_weights_that_the_editor_has(
    make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path
) -> None:
    editor = make_editor(0.1)
    editor.ema = {"trained": torch.tensor([5.0])}
    make_trainer(tmp_path, LoraEMA()).test(editor, numbers(1), verbose=False)
    assert editor.validated == [editor.weight] == [pytest.approx(0.1)]


def test_a_checkpoint_holds_raw_weights_and_average_and_a_resumed_run_equals_a_straight_one(
    make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path
) -> None:
    straight, cut, resumed = (make_editor(0.1, rate=0.3) for _ in range(3))
    make_trainer(tmp_path, LoraEMA()).fit(straight, numbers(5))
    saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=3)
    validating = {"val_check_interval": 3, "num_sanity_val_steps": 0}
    make_trainer(tmp_path, LoraEMA(), saving, max_steps=3, **validating).fit(cut, numbers(5), numbers(1))
    checkpoint = torch.load(tmp_path / "step=3.ckpt", weights_only=True)
    assert checkpoint["state_dict"]["transformer.trained"].item() == cut.weight != average(cut)
    assert checkpoint["lora_ema"]["ema"]["trained"].item() == average(cut)
    assert checkpoint["lora_ema"]["updates"] == 3
    make_trainer(tmp_path, LoraEMA()).fit(resumed, numbers(5), ckpt_path=tmp_path / "step=3.ckpt")
    assert resumed.weight == straight.weight and resumed.ema_updates == straight.ema_updates == 5
    assert average(resumed) == average(straight)


def test_a_run_that_starts_from_another_carries_the_average_and_its_warm_up_on(
    make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path
) -> None:
    whole, first, second = make_editor(), make_editor(), make_editor(start=-2.0)
    make_trainer(tmp_path, LoraEMA()).fit(whole, numbers(5))
    make_trainer(tmp_path, LoraEMA()).fit(first, numbers(2))
    delivered = first.deliverable()
    second.ema, second.ema_updates = delivered.ema, delivered.ema_updates
    make_trainer(tmp_path, LoraEMA()).fit(second, numbers(3))
    assert second.weight == whole.weight == -5 and second.ema_updates == 5
    assert average(second) == average(whole)
    assert average(first) == pytest.approx(-1.8, abs=1e-6)  # what was delivered is a copy


def test_a_checkpoint_saved_while_a_validation_runs_holds_the_raw_weights(
    make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path
) -> None:
    callback, editor = LoraEMA(0.5, warmup=False), make_editor(0.1, rate=0.3)
    trainer = make_trainer(tmp_path, callback)
    trainer.fit(editor, numbers(2))
    raw = editor.weight
    callback.on_validation_start(trainer, editor)
    assert editor.weight != raw
    checkpoint = {"state_dict": editor.state_dict()}
    callback.on_save_checkpoint(trainer, editor, checkpoint)
    assert checkpoint["state_dict"]["transformer.trained"].item() == raw
    assert checkpoint["state_dict"]["transformer.frozen"].item() == 7


def test_a_run_resumed_under_accumulation_updates_as_often_as_a_straight_one(
    make_editor: Any, make_trainer: Any, numbers: Any, tmp_path: Path
) -> None:
    straight, cut, resumed = (make_editor(0.1, rate=0.3) for _ in range(3))
    make_trainer(tmp_path, LoraEMA(), accumulate_grad_batches=2).fit(straight, numbers(8))
    saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=2)
    make_trainer(tmp_path, LoraEMA(), saving, accumulate_grad_batches=2, max_steps=2).fit(cut, numbers(8))
    path = tmp_path / "step=2.ckpt"
    make_trainer(tmp_path, LoraEMA(), accumulate_grad_batches=2).fit(resumed, numbers(8), ckpt_path=path)
    assert resumed.ema_updates == straight.ema_updates
