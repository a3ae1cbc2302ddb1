"""How several ways of doing the same are timed in turns, compared and told. No benchmark by itself."""

from __future__ import annotations

import gc
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from real_size import Setting
from torch import Tensor, nn


@dataclass(frozen=True)
class Way:
    """One way of doing the same work.

    Attributes:
        run: Does it once; what it returns is kept.
        networks: Whose weights it needs, for its peak of memory.
        states: Bytes that it holds beside weights, such as an optimizer's.
    """

    run: Callable[[], Any]
    networks: tuple[nn.Module, ...] = ()
    states: int = 0


@dataclass
class Timing:
    """Seconds of the timed runs of a way, what they returned, peak memory (weights and all), or why it failed."""

    seconds: list[float] = field(default_factory=list)
    returned: list[Any] = field(default_factory=list)
    memory_gb: float | None = None
    failed: str = ""

    @property
    def median(self) -> float:
        """Seconds; not a number where nothing was timed."""
        return statistics.median(self.seconds) if self.seconds else math.nan

    def summary(self) -> dict[str, Any]:
        """For a line of JSON."""
        if not self.seconds:
            return {"failed": self.failed or "not reached in time"}
        quarters = statistics.quantiles(self.seconds, n=4) if len(self.seconds) > 1 else [self.median] * 3
        told = {"seconds": round(self.median, 6), "iqr": round(quarters[2] - quarters[0], 6), "runs": len(self.seconds)}
        return told if self.memory_gb is None else {**told, "memory_gb": round(self.memory_gb, 2)}


def side_by_side(
    ways: Mapping[str, Way], setting: Setting, rounds: int, warm_up: int = 1, until: float = math.inf
) -> dict[str, Timing]:
    """Time ways in turns, A B A B; a way that fails is left out and told, the others go on.

    Args:
        ways: By name.
        setting: Whose device is waited for.
        rounds: Timed runs of each.
        warm_up: Runs before them that do not count.
        until: `time.perf_counter()` after which no run starts.
    """
    timings = {name: Timing() for name in ways}
    for number in range(warm_up + rounds):
        for name, way in ways.items():
            timing = timings[name]
            if timing.failed or time.perf_counter() > until:
                continue
            try:
                seconds, memory_gb, returned = _timed(way, setting)
            except Exception as error:  # the others are worth having
                timing.failed = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]
                free(setting)
                continue
            if number >= warm_up:
                timing.seconds.append(seconds)
                timing.returned.append(returned)
                timing.memory_gb = memory_gb
    return timings


def _timed(way: Way, setting: Setting) -> tuple[float, float | None, Any]:
    setting.wait()
    before = 0
    if setting.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    clock = setting.clock
    start = clock()
    returned = way.run()
    setting.wait()
    seconds = clock() - start
    if setting.device.type != "cuda":
        return seconds, None, returned
    own = way.states + sum(weights_bytes(network) for network in set(way.networks))
    return seconds, (torch.cuda.max_memory_allocated() - before + own) / 1e9, returned


def weights_bytes(network: nn.Module) -> int:
    """Bytes of a network's weights."""
    return sum(weight.numel() * weight.element_size() for weight in network.parameters())


def free(setting: Setting) -> None:
    """Give memory of a GPU back that nothing holds any more."""
    if setting.device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def ratios(timings: Mapping[str, Timing], pairs: Mapping[str, tuple[str, str]]) -> dict[str, float]:
    """How many times as fast the second of each pair is as the first, of those that were both timed."""
    values = {
        what: timings[slow].median / timings[fast].median
        for what, (slow, fast) in pairs.items()
        if slow in timings and fast in timings
    }
    return {what: round(value, 3) for what, value in values.items() if not math.isnan(value)}


def relative_l2(value: Tensor, truth: Tensor) -> float:
    """|value - truth| / |truth|."""
    return float((value.float() - truth.float()).norm() / truth.float().norm())


def cosine(one: Tensor, other: Tensor) -> float:
    """Cosine of the angle between two tensors as vectors."""
    return float(nn.functional.cosine_similarity(one.flatten().float(), other.flatten().float(), dim=0))


def peak_of(result: Mapping[str, Any]) -> str:
    """What the MFU of a result is a share of, for people."""
    return f", MFU of {result['peak_tflops']:g} TFLOP/s" if result["peak_tflops"] else ""


def shared_lines(result: Mapping[str, Any]) -> list[str]:
    """The ratios and guards of a result, for people."""
    lines = [f"  {what}: {value:.2f} times as fast" for what, value in result["ratios"].items()]
    return lines + [f"  {what}: {told}" for what, told in result["guards"].items()]


def show(result: Mapping[str, Any], lines: Iterable[str]) -> None:
    """Print a table and the result as one line of JSON."""
    print("\n".join(lines))
    print(json.dumps(result))
