"""Training beside its baselines: that they compute the same, and what is told."""

import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

from insvie_lightning.batch import Position


@pytest.fixture(scope="module")
def train(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("train")


@pytest.fixture(scope="module")
def found(train: ModuleType, tiny: Any) -> Any:
    return train.trainees(tiny, 2)


def test_baselines_compute_our_loss_and_gradients(train: ModuleType, found: Any) -> None:
    guards = train.guards(found[0])
    assert guards.keys() == {f"{other} and {one}" for one, other in train.SAME}
    for name, told in guards.items():
        assert told["loss"] < 1e-5 and told["gradient_cosine"] > 1 - 1e-5, name


def test_the_guard_tells_other_draws(train: ModuleType, found: Any) -> None:
    trainee = found[0]["ours cached"]
    first, gradient = trainee.gradient(Position("guard", 0, 0))
    second, other = trainee.gradient(Position("guard", 0, 1))
    assert abs(first - second) > 1e-3 and torch.nn.functional.cosine_similarity(gradient, other, dim=0) < 0.999


def test_stage_3_as_released_halves_the_gradient_and_adds_a_number(train: ModuleType, found: Any) -> None:
    position = Position("guard", 0, 0)
    (loss, gradient), (with_lpips, halved) = (found[0][name].gradient(position) for name in ("official", "official s3"))
    torch.testing.assert_close(halved, gradient / 2)
    assert with_lpips - loss / 2 > 1e-4


def test_recomputing_is_what_tells_the_factory_ways_apart(found: Any) -> None:
    block = found[0]["factory"].network.transformer_blocks[0]
    calls: list[int] = []
    block.register_forward_pre_hook(lambda *_: calls.append(1))
    counts = []
    for name in ("factory", "factory no AC"):
        calls.clear()
        found[0][name].gradient(Position("guard", 0, 0))
        counts.append(len(calls))
    assert counts == [2, 1]


def test_flops_are_those_of_the_work_that_must_be_done(found: Any) -> None:
    _, flops = found
    assert flops["official"] == flops["ours online"] > flops["ours cached"] == flops["factory"]
    assert "official s3" not in flops and "ours s3" not in flops


def test_a_run_of_two_ways(train: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    train.main(["--tiny", "--rounds", "1", "--only", "factory no AC", "ours cached"])
    *lines, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert result["ways"].keys() == {"factory no AC", "ours cached"} and len(result["guards"]) == 1
    assert result["peak_tflops"] is None and "mfu" not in result["ways"]["ours cached"]
    rate = result["ways"]["ours cached"]
    assert rate["samples_per_second"] == pytest.approx(2 / rate["seconds"], rel=1e-3)
    assert any(line.startswith("  ours cached") and "ms" in line for line in lines)
