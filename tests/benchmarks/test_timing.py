"""Ways in turns, and what is told of them."""

import math
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def timing(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("timing")


def test_a_way_that_fails_is_told_and_the_others_go_on(timing: ModuleType, tiny: Any) -> None:
    calls: list[str] = []

    def fail() -> None:
        calls.append("bad")
        raise RuntimeError("out of memory\nand more")

    ways = {"bad": timing.Way(fail), "good": timing.Way(lambda: calls.append("good"))}
    timings = timing.side_by_side(ways, tiny, rounds=3, warm_up=1)
    assert calls == ["bad", "good", "good", "good", "good"]
    assert timings["bad"].summary() == {"failed": "RuntimeError: out of memory"}
    assert timings["good"].summary()["runs"] == 3
    assert timing.ratios(timings, {"x": ("bad", "good"), "y": ("good", "good"), "z": ("good", "absent")}) == {"y": 1.0}


def test_ways_take_turns_until_their_time_is_over(timing: ModuleType, tiny: Any) -> None:
    calls: list[str] = []
    ways = {name: timing.Way(lambda name=name: calls.append(name)) for name in "ab"}
    timing.side_by_side(ways, tiny, rounds=2, warm_up=1)
    assert "".join(calls) == "ababab"
    timings = timing.side_by_side(ways, tiny, rounds=2, until=time.perf_counter())
    assert len(calls) == 6
    assert timings["a"].summary() == {"failed": "not reached in time"} and math.isnan(timings["a"].median)


def test_other_work_on_the_machine_does_not_count_on_a_cpu(timing: ModuleType, tiny: Any) -> None:
    timings = timing.side_by_side({"sleeps": timing.Way(lambda: time.sleep(0.2))}, tiny, 1, warm_up=0)
    assert timings["sleeps"].median < 0.1


def test_what_a_share_is_of_is_told(timing: ModuleType) -> None:
    assert timing.peak_of({"peak_tflops": 989.0}) == ", MFU of 989 TFLOP/s"
    assert timing.peak_of({"peak_tflops": None}) == ""
