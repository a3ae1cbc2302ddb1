"""Kernels are timed, and the fastest one is taken."""

from typing import Any

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel

from insvie_lightning.errors import InputError
from insvie_lightning.nets import attention
from insvie_lightning.nets.attention import ChosenAttention, fastest_kernel, time_kernels, use_attention

CPU = torch.device("cpu")


@pytest.mark.parametrize("training", [False, True])
def test_the_kernels_of_the_device_are_timed(training: bool) -> None:
    seconds = time_kernels((1, 2, 256, 16), torch.float32, CPU, training)
    assert seconds.keys() == {"flash", "math"}
    assert all(0 < value < 5 for value in seconds.values())


def test_the_fastest_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds, fastest in (
        ({"flash": 2.0, "cudnn": 1.0}, "cudnn"),
        ({"flash": 1.0, "cudnn": 2.0}, "flash"),
        ({}, None),
    ):
        monkeypatch.setattr(attention, "time_kernels", lambda *_, seconds=seconds: seconds)
        assert fastest_kernel((1, 1, 1, 1), torch.float32, CPU, True) == fastest


def test_a_kernel_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> float:
        raise RuntimeError("No available kernel")

    monkeypatch.setattr(attention, "_seconds", fail)
    assert time_kernels((1, 1, 4, 8), torch.float32, CPU, False) == {}


def test_the_named_kernel_is_the_one_that_runs() -> None:
    query = torch.randn(1, 2, 8, 16)
    for kernel, found in (("flash", True), ("math", False)):
        with torch.profiler.profile() as profile:
            ChosenAttention(kernel)._attend(query, query, query)  # type: ignore[arg-type]
        names = {event.key for event in profile.key_averages()}
        assert any("flash_attention" in name for name in names) is found


def test_rotary_embeddings_are_refused() -> None:
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, num_layers=1, time_embed_dim=8, text_embed_dim=8,
        use_rotary_positional_embeddings=True,
    )  # fmt: skip
    with pytest.raises(InputError, match="without rotary embeddings"):
        use_attention(transformer, "flash", False)
