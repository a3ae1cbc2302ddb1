"""DDP and FSDP2 are compared with one process that takes the turns of all."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from insvie_lightning.batch import EditBatch, Position

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def distributed(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("distributed")


def test_one_process_takes_the_turns_of_two(distributed: ModuleType, tmp_path: Path) -> None:
    distributed.write_data(tmp_path / "data", 4)
    distributed.fit("alone", tmp_path, "cpu", devices=2, steps=1)
    alone = distributed.read(tmp_path / "alone", 2, 1.0)
    assert alone.backend == "none" and [len(losses) for losses in alone.losses] == [1, 1]
    assert alone.losses[0] != alone.losses[1] and any("lora_B" in name for name in alone.weights)
    assert distributed.compare(alone, alone) == distributed.Difference(0, 0)


def test_each_process_is_dealt_what_it_would_draw(distributed: ModuleType) -> None:
    clips = torch.arange(4, dtype=torch.uint8)[:, None, None, None, None].expand(4, 1, 3, 8, 8)
    whole = EditBatch(tuple("abcd"), tuple("ABCD"), source=clips, edited=clips + 10, position=Position("s1", 0, 7))
    first, second = distributed.deal(whole, 2)
    assert (first.keys, second.keys, second.instructions) == (("a", "c"), ("b", "d"), ("B", "D"))
    assert second.source.unique().tolist() == [1, 3] and second.edited.unique().tolist() == [11, 13]
    assert first.position == second.position == whole.position


def test_a_difference_is_found(distributed: ModuleType) -> None:
    one = distributed.Trained("none", [[2.0, 1.0]], {"a": torch.zeros(2)}, 0.0)
    other = replace(one, losses=[[2.0, 1.0 + 3e-4]], weights={"a": torch.tensor([0.0, -2e-4])})
    far = distributed.compare(one, other)
    assert (far.loss, far.weight) == (pytest.approx(3e-4, rel=1e-2), pytest.approx(2e-4)) and not far.agrees
    assert distributed.Difference(1e-5, 1e-5).agrees and not distributed.Difference(float("nan"), 0).agrees
    with pytest.raises(ValueError, match="different weights"):
        distributed.compare(one, replace(one, weights={}))
    with pytest.raises(ValueError, match="processes and steps"):
        distributed.compare(one, replace(one, losses=[[2.0]]))


@pytest.mark.proof
def test_every_way_trains_the_same(distributed: ModuleType) -> None:
    told: list[str] = []
    assert distributed.distributed("cpu", 2, 2, told.append)
    assert json.loads(told[-1])["fsdp"]["weight"] > 0 and "| ddp | 2 | gloo |" in told[3]
    assert "FSDP1: it runs on GPUs only" in told[5]
