"""The networks that are timed, and the command line."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from transformers import T5Config, T5EncoderModel

from insvie_lightning.weights.deliverable import trainable_weights


@pytest.fixture(scope="module")
def stock(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("stock")


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


def test_baselines_have_the_weights_of_ours(real_size: ModuleType, stock: ModuleType, tiny: Any) -> None:
    parts = real_size.build(tiny)
    editor = real_size.build_editor(parts, tiny, tiny.execution())
    ours, theirs = (
        trainable_weights(net) for net in (editor.transformer, stock.stock_transformer(parts, editor, tiny))
    )
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(value.any() for name, value in ours.items() if name.endswith("weight"))


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
