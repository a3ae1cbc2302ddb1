"""What a device can do: the limits that `gpu.py` compares everything else with. No benchmark by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from real_size import Setting
from timing import free
from torch import Tensor
from torch.nn import functional as F

from insvie_callbacks.throughput import find_peak_tflops
from insvie_lightning.nets.attention import time_kernels


def per_call(call: Callable[[], Any], setting: Setting, count: int = 10) -> float:
    """Mean seconds of a call, after three that do not count."""
    for _ in range(3):
        call()
    setting.wait()
    start = time.perf_counter()
    for _ in range(count):
        call()
    setting.wait()
    return (time.perf_counter() - start) / count


def calibrate(setting: Setting, until: float) -> dict[str, Any]:
    """TFLOP/s of products, attention and convolutions, TB/s of a copy; on random data, since zeros draw less power.

    The backward pass of attention counts as two forward passes.
    """
    small = setting.size.name == "tiny"
    device, dtype = setting.device, torch.bfloat16
    rows, width = (90, 64) if small else (29028, 1920)
    side = 128 if small else 8192
    tokens = (40, 70) if small else (9676, 17776)
    heads = (3, 2) if small else (3, 30)
    channels, video = (8, (4, 16, 16)) if small else (128, (8, 480, 720))

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, dtype=dtype)

    def product(m: int, k: int, n: int) -> float:
        a, b = random(m, k), random(k, n)
        return 2 * m * k * n / per_call(lambda: a @ b, setting) / 1e12

    def fp8(m: int, k: int, n: int) -> float:
        a, b = random(m, k).to(torch.float8_e4m3fn), random(n, k).to(torch.float8_e4m3fn)
        scales = {"scale_a": torch.ones(m, 1, device=device), "scale_b": torch.ones(1, n, device=device)}
        call = lambda: torch._scaled_mm(a, b.t(), **scales, out_dtype=dtype)  # noqa: E731
        return 2 * m * k * n / per_call(call, setting) / 1e12

    def convolution(last: bool) -> float:
        layout: Any = torch.channels_last_3d if last else torch.contiguous_format
        x, weight = (
            t.to(memory_format=layout) for t in (random(1, channels, *video), random(channels, channels, 3, 3, 3))
        )
        work = 2 * 27 * channels**2 * video[0] * video[1] * video[2]
        return work / per_call(lambda: F.conv3d(x, weight, padding=1), setting, 5) / 1e12

    def attention(count: int, training: bool) -> dict[str, float]:
        shape = (*heads, count, 64)
        seconds: dict[str, float] = dict(time_kernels(shape, dtype, device, training))
        if not training:
            query, key, value = (random(*shape) for _ in range(3))
            call = lambda: F.scaled_dot_product_attention(query, key, value)  # noqa: E731
            seconds["chosen by torch"] = per_call(call, setting, 5)
        work = 4 * heads[0] * heads[1] * count**2 * 64 * (3 if training else 1)
        return {name: round(work / taken / 1e12, 2) for name, taken in seconds.items()}

    def copy() -> float:
        x = random(2**18 if small else 2**31)
        y = torch.empty_like(x)
        return 2 * x.numel() * x.element_size() / per_call(lambda: y.copy_(x), setting) / 1e12

    measures: dict[str, Callable[[], Any]] = {
        f"product {side} x {side} x {side}, TFLOP/s": lambda: product(side, side, side),
        f"product {rows} x {width} x {4 * width}, TFLOP/s": lambda: product(rows, width, 4 * width),
        f"fp8 product {rows} x {width} x {4 * width}, TFLOP/s": lambda: fp8(rows, width, 4 * width),
        "copy, TB/s": copy,
        "convolution, channels first, TFLOP/s": lambda: convolution(False),
        "convolution, channels last, TFLOP/s": lambda: convolution(True),
    }
    for count in tokens:
        measures[f"attention of {count}, forward, TFLOP/s"] = lambda count=count: attention(count, False)  # type: ignore[misc]
        measures[f"attention of {count}, forward and backward, TFLOP/s"] = lambda count=count: attention(count, True)  # type: ignore[misc]
    found: dict[str, Any] = {"cudnn": torch.backends.cudnn.version()}
    if device.type == "cuda":
        found["data sheet, TFLOP/s"] = find_peak_tflops(torch.cuda.get_device_name())
    for name, measure in measures.items():
        if time.perf_counter() > until:
            found[name] = "not reached in time"
            continue
        try:
            value = measure()
            found[name] = round(value, 4) if isinstance(value, float) else value
        except Exception as error:  # the others are worth having
            found[name] = f"failed: {str(error).splitlines()[0][:150]}"
        free(setting)
    return found


def best_product(found: Mapping[str, Any]) -> float | None:
    """TFLOP/s of the best bfloat16 product that was measured."""
    values = [value for name, value in found.items() if name.startswith("product") and isinstance(value, float)]
    return max(values, default=None)


def calibration_table(found: Mapping[str, Any]) -> list[str]:
    """The calibration for people."""
    return [f"  {name:55} {value}" for name, value in found.items()]
