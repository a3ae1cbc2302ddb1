"""Frozen or trained networks whose weights ranks share by FSDP2, whoever holds them and however often each rank runs.

An all-gather needs every rank. In training all ranks run the same forwards; when data are built or videos are edited
they do not: a judge replies in more words, an edit is tried again, a rank has nothing left to do. There, before a rank
gathers a block, all ranks say which block they want (one number each, over gloo), the lowest number wins, and whoever
wants another one, or none, takes part in the gathering and drops what it gathered.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from insvie_lightning.errors import InputError

Net = TypeVar("Net", bound=nn.Module)
LARGEST_BLOCK = 200_000_000
"""A block of more parameters is sharded by its own blocks: so much is whole on a device at a time."""

_active: Sharing | None = None


def place(net: Net, device: torch.device | str) -> Net:
    """Put a network on a device; where ranks share weights, only this rank's share of its repeated blocks, and once.

    What is no block stays whole on every rank, since libraries run such parts on their own: an embedding, an image
    encoder's first layer. Under sharing, the network has to be on the CPU before.
    """
    return net.to(device) if _active is None else _active.share(net, rest=False).to(device)


def activate(sharing: Sharing | None) -> None:
    """Let `place` share weights from now on, or no more."""
    global _active
    _active = sharing


class Sharing:
    """The weights that ranks share, and whose turn it is.

    Args:
        mesh: The ranks, in one dimension.
    """

    def __init__(self, mesh: DeviceMesh) -> None:
        self.mesh = mesh
        self._ranks: Any = dist.new_group(mesh.mesh.flatten().tolist(), backend="gloo")
        self._units: list[Any] = []
        self._gathered: set[int] = set()
        self._uneven = False
        self._working = threading.RLock()  # held through a forward: no unit is given away while a thread computes in it

    @classmethod
    def of(cls, trainer: Any) -> Sharing | None:
        """Sharing as a trainer's strategy asks for it; None where every rank has all weights.

        Raises:
            InputError: The strategy shares weights in a way that does not suit uneven work.
        """
        from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

        strategy = trainer.strategy
        if isinstance(strategy, DeepSpeedStrategy | FSDPStrategy):
            raise InputError(
                f"weights are not shared by {type(strategy).__name__} here; legal is FSDP2, as by `-c fsdp`"
            )
        if isinstance(strategy, ModelParallelStrategy):
            return cls(strategy.device_mesh["data_parallel"])
        return None

    def take_turns(self) -> None:
        """Let every rank run networks as often as it likes from now on, until the ranks `leave`; all call it."""
        self._uneven = True

    def share(self, net: Net, rest: bool = True) -> Net:
        """Shard a network in place, onto the device of the mesh; all ranks share the same ones in the same order.

        Args:
            net: On any device.
            rest: Shard what is no block, too; the network has to run by being called then.
        """
        if any(isinstance(module, FSDPModule) for module in net.modules()):
            return net
        blocks: list[nn.Module] = list(_blocks(net))
        units = [*blocks, net] if rest else blocks
        unit: Any
        for unit in units:
            fully_shard(unit, mesh=self.mesh, reshard_after_forward=True)
        for unit in reversed(units):
            # Usually done by the first forward, which a rank that only takes part may never run; nothing public does.
            unit._get_fsdp_state()._lazy_init()
            number = len(self._units)
            self._units.append(unit)
            # Before FSDP's own hook, which finds the unit gathered; and the lock around both.
            unit.register_forward_pre_hook(lambda *_, number=number: self._gather(number), prepend=True)
            unit.register_forward_hook(lambda *_, number=number: self._gathered.discard(number), always_call=True)
            unit.register_forward_pre_hook(self._begin, prepend=True)
            unit.register_forward_hook(self._end, always_call=True)
        return net

    def leave(self) -> None:
        """Take part in what the other ranks run until they all have left."""
        while self._uneven and self._round(self._left) != self._left:
            pass
        self._uneven = False

    def idle(self, seconds: float) -> None:
        """Take part in what the other ranks run for some time; sleep if they have nothing to run either."""
        end = time.monotonic() + seconds
        while (rest := end - time.monotonic()) > 0:
            if self._round(self._idle) >= self._idle:
                time.sleep(rest)

    # What a rank may say instead of the number of a unit; the lowest wins.
    @property
    def _idle(self) -> int:
        return len(self._units)

    @property
    def _left(self) -> int:
        return len(self._units) + 1

    def _begin(self, *_: Any) -> None:
        if self._uneven:
            self._working.acquire()

    def _end(self, *_: Any) -> None:
        if self._uneven:
            self._working.release()

    def _gather(self, number: int) -> None:
        """Before the forward of a unit: gather it when it is its turn, and others' until then."""
        if not self._uneven or number in self._gathered:
            return
        with self._working:
            while self._round(number) != number:
                pass
            self._unshard(number)
            self._gathered.add(number)

    def _round(self, wish: int) -> int:
        """Agree on whose turn it is, and take part if it is another unit's than this rank's."""
        with self._working:
            lowest = torch.tensor(wish)
            try:
                dist.all_reduce(lowest, dist.ReduceOp.MIN, group=self._ranks)
            except RuntimeError as error:
                raise RuntimeError(
                    f"rank {dist.get_rank()} cannot go on: a rank that holds a share of the weights has stopped, or "
                    "said nothing for half an hour; its own message says why"
                ) from error
            turn = int(lowest)
            if turn < self._idle and turn != wish:
                if turn in self._gathered:  # by this rank, before all met here: once more, since all have to
                    self._units[turn].reshard()
                    self._unshard(turn)
                else:
                    self._unshard(turn)
                    self._units[turn].reshard()
            return turn

    def _unshard(self, number: int) -> None:
        with torch.inference_mode(False), torch.no_grad():
            self._units[number].unshard()


@contextmanager
def in_turns(sharing: Sharing | None) -> Iterator[None]:
    """Let ranks run networks unevenly often within; all ranks come by here.

    Args:
        sharing: None, where every rank has all weights, needs no turns.
    """
    if sharing is not None:
        sharing.take_turns()
    yield  # an exception ends the process, and the others hear of it
    if sharing is not None:
        sharing.leave()


def _blocks(net: nn.Module) -> Iterator[nn.Module]:
    """The repeated blocks of a network, inner ones first: members of its lists of modules."""
    for child in net.children():
        if not isinstance(child, nn.ModuleList):
            yield from _blocks(child)
            continue
        for block in child:
            if sum(parameter.numel() for parameter in block.parameters()) > LARGEST_BLOCK:
                yield from _blocks(block)
            if next(block.parameters(), None) is not None:
                yield block
