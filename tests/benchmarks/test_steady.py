"""A long training on cached latents."""

from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def steady(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("steady")


def test_steady(steady: ModuleType) -> None:
    told = steady.steady(30)
    assert told["steps"] == 30 and told["ratio"] == pytest.approx(told["late_ms"] / told["early_ms"], abs=1e-2)
    assert all(100 < memory < 20_000 for memory in told["memory_mb"])


@pytest.mark.proof
def test_2000_steps_do_not_slow_down_and_memory_stays(steady: ModuleType) -> None:
    told = steady.steady(2000)
    assert told["steps"] == 2000
    assert told["ratio"] < 1.15
    assert told["memory_mb"][1] - told["memory_mb"][0] < 20
