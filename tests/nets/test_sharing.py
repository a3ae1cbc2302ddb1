"""Ranks that share weights and run them unevenly: nobody hangs, and everybody computes what one process would."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from insvie_lightning.errors import InputError
from insvie_lightning.nets import sharing
from insvie_lightning.nets.sharing import Sharing, activate, in_turns, place

OnRanks = Callable[..., list[Any]]


class Stack(nn.Module):
    """Blocks of which the first is left out on demand, and a head of its own."""

    def __init__(self, seed: int, blocks: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(blocks))
            self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor, short: bool = False) -> Tensor:
        for block in self.blocks[short:]:
            x = block(x)
        return self.head(x)


@pytest.fixture(autouse=True)
def inactive() -> Iterator[None]:
    yield
    activate(None)


def share(net: nn.Module, *others: nn.Module) -> Sharing:
    """All of one net, and the blocks of others."""
    dist.init_process_group("gloo")
    shared = Sharing(init_device_mesh("cpu", (dist.get_world_size(),)))
    assert shared.share(net) is net
    activate(shared)
    for other in others:
        assert place(other, "cpu") is other and place(other, "cpu") is other
        assert not isinstance(other.head.weight, DTensor) and isinstance(other.blocks[0][0].weight, DTensor)  # type: ignore
    return shared


def calls(rank: int, net: Stack, other: Stack) -> list[Tensor]:
    """Rank 0 runs one net 5 times, sometimes in part; rank 1 the other one twice and the first one once."""
    inputs = [torch.full((2, 6), float(n + 10 * rank)) for n in range(5)]
    if rank == 0:
        return [net(x, short=n % 2 == 1) for n, x in enumerate(inputs)]
    return [other(inputs[0]), net(inputs[1]), other(inputs[2], short=True)]


@torch.no_grad()
def test_ranks_run_other_networks_and_unevenly_often_and_compute_what_one_does(on_ranks: OnRanks) -> None:
    def work(rank: int) -> list[Tensor]:
        net, other = Stack(0), Stack(1)
        shared = share(net, other)
        weights = list(net.parameters())
        assert all(isinstance(weight, DTensor) for weight in weights)
        assert sum(weight.to_local().numel() for weight in weights) <= 0.7 * sum(w.numel() for w in weights)  # type: ignore[attr-defined]
        shared.take_turns()
        made = calls(rank, net, other)
        shared.leave()
        assert not shared._gathered and all(isinstance(weight, DTensor) for weight in net.parameters())
        made.append(net(torch.ones(1, 6)))  # evenly again, as in training
        return made

    for rank, made in enumerate(on_ranks(work)):
        net, other = Stack(0), Stack(1)
        for one, two in zip([*calls(rank, net, other), net(torch.ones(1, 6))], made, strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=0)


@torch.no_grad()
def test_threads_of_a_rank_share_its_turns(on_ranks: OnRanks) -> None:
    """A judge in threads of its own beside an editor, under inference mode as judges are."""

    def asked(net: Stack, number: int) -> Tensor:
        with torch.inference_mode():
            return net(torch.full((1, 6), float(number))).clone()

    def work(rank: int) -> list[Tensor]:
        net, judge = Stack(0), Stack(1)
        shared = share(net, judge)
        shared.take_turns()
        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(asked, judge, number) for number in range(8 * (rank + 1))]
            edits = [net(torch.full((1, 6), float(n))) for n in range(4 + rank)]
            made = [*edits, *(future.result() for future in futures)]
        shared.leave()
        return made

    for rank, made in enumerate(on_ranks(work)):
        net, judge = Stack(0), Stack(1)
        alone = [net(torch.full((1, 6), float(n))) for n in range(4 + rank)]
        alone += [asked(judge, number) for number in range(8 * (rank + 1))]
        assert all(torch.equal(one, two) for one, two in zip(alone, made, strict=True))


@torch.no_grad()
def test_an_idle_rank_takes_part_and_sleeps_where_there_is_nothing(on_ranks: OnRanks) -> None:
    def work(rank: int) -> float:
        net = Stack(0)
        shared = share(net)
        shared.take_turns()
        start = time.monotonic()
        if rank == 0:
            for _ in range(3):
                net(torch.ones(1, 6))
            shared.idle(0.1)
        else:
            shared.idle(0.1)
        seconds = time.monotonic() - start
        shared.leave()
        return seconds

    assert all(0.1 <= seconds < 5 for seconds in on_ranks(work))


@torch.no_grad()
def test_a_rank_that_stops_is_told_to_the_others(on_ranks: OnRanks) -> None:
    def work(rank: int) -> str:
        net = Stack(0)
        shared = share(net)
        shared.take_turns()
        if rank == 1:
            return "stopped"
        with pytest.raises(RuntimeError, match="rank 0 cannot go on: a rank that holds a share of the weights has"):
            net(torch.ones(1, 6))
        return "told"

    assert on_ranks(work, seconds=20) == ["told", "stopped"]


def test_without_sharing_a_network_is_moved() -> None:
    net = Stack(0)
    assert place(net, "meta").head.weight.is_meta


def test_large_blocks_are_sharded_by_their_own_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.ModuleDict({"list": nn.ModuleList([Stack(0), nn.Identity()])})
    assert list(sharing._blocks(net)) == [net["list"][0]]  # type: ignore[index]
    monkeypatch.setattr(sharing, "LARGEST_BLOCK", 10)
    stack = net["list"][0]  # type: ignore[index]
    assert list(sharing._blocks(net)) == [*stack.blocks, stack]


def test_other_ways_to_share_are_refused() -> None:
    from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy

    with pytest.raises(InputError, match="not shared by FSDPStrategy here; legal is FSDP2, as by `-c fsdp`"):
        Sharing.of(SimpleNamespace(strategy=FSDPStrategy()))
    assert Sharing.of(SimpleNamespace(strategy=DDPStrategy())) is None


def test_within_turns_all_take_part_until_all_are_done() -> None:
    said: list[str] = []
    recorder: Any = SimpleNamespace(take_turns=lambda: said.append("take"), leave=lambda: said.append("leave"))
    with in_turns(recorder):
        said.append("within")
    assert said == ["take", "within", "leave"]
    with in_turns(None):
        said.append("alone")
    assert said[3:] == ["alone"]
