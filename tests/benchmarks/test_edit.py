"""Editing beside its baselines: that they give the same video, and what is told."""

import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch


@pytest.fixture(scope="module")
def edit(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("edit")


@pytest.fixture(scope="module")
def result(edit: ModuleType, tiny: Any) -> Any:
    return edit.measure(tiny, 3, 1, whole=True)


def test_all_ways_give_the_same_video(result: Any) -> None:
    assert result["guards"].keys() == {f"{name} and stock" for name in ("official", "stock fast", "ours", "ours eager")}
    for name, told in result["guards"].items():
        assert told["first_step"] < 1e-5 and told["pixels"] < 1e-4 and told["pixels_cosine"] > 0.9999, name


def test_every_way_is_told(edit: ModuleType, result: Any) -> None:
    ways = result["ways"]
    assert len(ways) == 9 and not any("failed" in told for told in ways.values())
    assert all(abs(ways[name]["edit_seconds"] - ways[name]["seconds"]) < 1e-4 for name in edit.WHOLE)
    assert "edit_seconds" not in ways["offload"]
    ours = ways["ours"]
    assert ours["edit_seconds"] == pytest.approx(50 * ours["step_seconds"] + ours["around_seconds"], rel=1e-3)
    assert result["ratios"].keys() == edit.RATIOS.keys() and result["whole"].keys() == {"ours", "stock"}
    assert json.loads(json.dumps(result)) == result
    assert len(edit.table(result)) == 1 + 9 + 2 + len(edit.RATIOS) + 4


def test_another_guidance_is_another_video(edit: ModuleType, tiny: Any) -> None:
    edits, _, _ = edit.make_ways(tiny, 2)
    ours, short = (edits[name](2) for name in ("ours", "ours short"))
    assert ours.first.shape[0] == 3 and short.first.shape[0] == 2
    assert not torch.equal(ours.pixels, short.pixels) and len(ours.steps) == 1


def test_fast_ways_leave_out_what_they_say(edit: ModuleType, tiny: Any) -> None:
    """Calls of the network by branches, and those that compute the block behind the first."""
    edits, ways, _ = edit.make_ways(tiny, 2)
    block = ways["ours fast"].networks[0].transformer_blocks[1].attn1
    branches: list[int] = []
    block.register_forward_hook(lambda _module, _inputs, output: branches.append(len(output[0])))
    computed = {}
    for name in edit.WHOLE:
        branches.clear()
        with torch.compiler.set_stance("force_eager"):  # what was compiled before calls no hooks
            edits[name](4)
        computed[name] = list(branches)
    assert computed == {"ours reuse": [3, 1] * 2, "ours fast": [3, 1]}
