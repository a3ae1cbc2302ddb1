"""The networks that are timed, and the timing."""

import math
import time
from types import ModuleType
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from transformers import T5Config, T5EncoderModel

from insvie_lightning.weights.deliverable import trainable_weights


def test_the_real_size_is_that_of_cogvideox_2b(real_size: ModuleType) -> None:
    """The published weights hold so many numbers."""
    with torch.device("meta"):
        networks: list[Any] = [
            CogVideoXTransformer3DModel(**real_size.REAL.transformer),
            AutoencoderKLCogVideoX(**real_size.REAL.vae),
            T5EncoderModel(T5Config(**real_size.REAL.text_encoder)),
        ]
    counts = [sum(weight.numel() for weight in network.parameters()) for network in networks]
    assert counts == [1_693_783_872, 215_583_907, 4_762_310_656]


def test_baselines_have_the_weights_of_ours(real_size: ModuleType, tiny: Any) -> None:
    parts = real_size.build(tiny)
    editor = real_size.build_editor(parts, tiny, tiny.execution())
    ours, theirs = (
        trainable_weights(net) for net in (editor.transformer, real_size.stock_transformer(parts, editor, tiny))
    )
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(value.any() for name, value in ours.items() if name.endswith("weight"))


def test_a_way_that_fails_is_told_and_the_others_go_on(real_size: ModuleType, tiny: Any) -> None:
    calls: list[str] = []

    def fail() -> None:
        calls.append("bad")
        raise RuntimeError("out of memory\nand more")

    ways = {"bad": real_size.Way(fail), "good": real_size.Way(lambda: calls.append("good"))}
    timings = real_size.side_by_side(ways, tiny, rounds=3, warm_up=1)
    assert calls == ["bad", "good", "good", "good", "good"]
    assert timings["bad"].summary() == {"failed": "RuntimeError: out of memory"}
    assert timings["good"].summary()["runs"] == 3
    assert real_size.ratios(timings, {"x": ("bad", "good"), "y": ("good", "good"), "z": ("good", "absent")}) == {
        "y": 1.0
    }


def test_ways_take_turns_until_their_time_is_over(real_size: ModuleType, tiny: Any) -> None:
    calls: list[str] = []
    ways = {name: real_size.Way(lambda name=name: calls.append(name)) for name in "ab"}
    real_size.side_by_side(ways, tiny, rounds=2, warm_up=1)
    assert "".join(calls) == "ababab"
    timings = real_size.side_by_side(ways, tiny, rounds=2, until=time.perf_counter())
    assert len(calls) == 6
    assert timings["a"].summary() == {"failed": "not reached in time"} and math.isnan(timings["a"].median)


def test_other_work_on_the_machine_does_not_count_on_a_cpu(real_size: ModuleType, tiny: Any) -> None:
    timings = real_size.side_by_side({"sleeps": real_size.Way(lambda: time.sleep(0.2))}, tiny, 1, warm_up=0)
    assert timings["sleeps"].median < 0.1


@pytest.mark.parametrize(
    ("argv", "name", "dtype"), [(["--tiny"], "tiny", torch.float32), ([], "CogVideoX-2B", torch.bfloat16)]
)
def test_the_command_line(real_size: ModuleType, argv: list[str], name: str, dtype: torch.dtype) -> None:
    import argparse

    _, setting = real_size.read_setting(argparse.ArgumentParser(), argv)
    assert (setting.size.name, setting.dtype, setting.peak_tflops) == (name, dtype, None)


def test_a_known_gpu_has_a_peak(real_size: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    import argparse

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H200")
    _, setting = real_size.read_setting(argparse.ArgumentParser(), ["--device", "cuda"])
    assert setting.peak_tflops == 989
    assert real_size.peak_of({"peak_tflops": 989.0}) == ", MFU of 989 TFLOP/s"
