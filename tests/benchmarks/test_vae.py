"""The autoencoder in several ways."""

import json
from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def vae(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("vae")


def test_a_run(vae: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    vae.main(["--tiny", "--rounds", "1", "--frames", "5"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(result["ways"]) == 7 and not any("failed" in told for told in result["ways"].values())
    assert result["ratios"].keys() == vae.RATIOS.keys() and result["clip"] == [5, 32, 48]
    assert result["guards"]["encode, ours and stock"] < 1e-5 and result["guards"]["decode, ours and stock"] < 1e-5
    assert 0 < sum(result["kernels"]["share"].values()) <= 1.001
    assert 0 < result["kernels"]["copies"] < 0.9


def test_slow_convolutions_are_found(vae: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """One clip alone is convolved slowly on a CPU."""
    vae.main(["--tiny", "--rounds", "1", "--frames", "1"])
    assert any(
        "slow_conv3d" in name for name in json.loads(capsys.readouterr().out.splitlines()[-1])["kernels"]["fallbacks"]
    )
