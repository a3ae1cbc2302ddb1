"""What a builder is fed: its input, cut into the units of the ledger, read in worker processes as far as needed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from torch.utils.data import DataLoader, Dataset

from insvie_lightning.batch import Draft, Triplet
from insvie_lightning.errors import InputError
from insvie_lightning.shards.ledger import Ledger
from insvie_lightning.slow_reads import reading

_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a step, as a data module reads it.

    Attributes:
        sample: The draft or triplet; of one that cannot be read, what is known, with a source of no frames.
        members: The encoded files of its clips by the names that they are stored under. What a step leaves as it is
            goes on as these bytes, and is not encoded again.
        bad: Why it cannot be used; empty if it can.
    """

    sample: Draft | Triplet
    members: Mapping[str, bytes] = field(default_factory=dict)
    bad: str = ""


class Inputs(Protocol):
    """The whole input of a step, in a fixed order; nothing is read before it is asked for."""

    @property
    def keys(self) -> pa.ChunkedArray:
        """The key of every input."""

    @property
    def reading(self) -> Mapping[str, Any]:
        """What makes the samples what they are (frames, size ...), in JSON types; what is under `at` says where."""

    def __getitem__(self, index: int) -> Input:
        """Read one input."""


@dataclass(frozen=True, slots=True)
class Work:
    """A batch of a builder.

    Attributes:
        unit: Number of the unit; None of a batch that is run to measure: its results are dropped.
        inputs: One or more.
        last: Whether the unit ends with it.
    """

    unit: int | None
    inputs: tuple[Input, ...]
    last: bool


Place = tuple[int | None, int, bool]
"""Unit, number of the input, and whether it is the last of its batch's unit."""


def check_keys(keys: pa.ChunkedArray, source: str) -> None:
    """Refuse keys that are not legal or come twice.

    Raises:
        InputError: The first such key.
    """
    if not len(keys):
        raise InputError(f"{source} holds nothing to build from")
    legal = pc.match_substring_regex(keys, r"^[A-Za-z0-9_-]+$")
    if not pc.all(legal).as_py():
        raise InputError(
            f"{source}: the key {keys[pc.index(legal, False).as_py()].as_py()!r} is not legal; "
            "it may hold letters, digits, '_' and '-' only"
        )
    if pc.count_distinct(keys).as_py() < len(keys):
        counts = keys.value_counts()
        twice = counts.field("values")[pc.index(pc.greater(counts.field("counts"), 1), True).as_py()]
        raise InputError(f"{source}: the key {twice.as_py()!r} is used twice; keys are unique in a data set")


def hash_keys(keys: pa.ChunkedArray) -> str:
    """Hash keys and their order."""
    digest = hashlib.sha256()
    for chunk in keys.chunks:
        digest.update("\n".join(chunk.to_pylist()).encode() + b"\n")
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Units:
    """How a job is shared by its processes.

    Attributes:
        ledger: Who works on what.
        size: Inputs a unit.
        wait: Waits so many seconds for what other processes have claimed.
    """

    ledger: Ledger
    size: int
    wait: Callable[[float], None]


class UnitLoader:
    """Batches of the units that are free, claimed as they are reached; iterating ends when the whole job is finished.

    Every process claims for itself, so that a slow one holds nobody up, and what a dead one leaves is taken over.

    Args:
        inputs: The whole input.
        batch_size: Inputs a batch; a batch lies within one unit.
        num_workers: Processes that read.
        units: What is claimed of whom; a number of inputs reads the first so many, as no unit.
    """

    def __init__(self, inputs: Inputs, batch_size: int, num_workers: int, units: Units | int) -> None:
        self.inputs, self.batch_size, self.num_workers, self.units = inputs, batch_size, num_workers, units

    def __len__(self) -> int:
        """At most so many batches: those of all units that are not finished, and 1 where all are."""
        # With a length Lightning fetches no batch ahead, so that whoever waits here has written all that he made.
        if isinstance(self.units, int):
            return math.ceil(min(self.units, len(self.inputs.keys)) / self.batch_size)
        return max(
            1, sum(math.ceil(len(self._range(unit)) / self.batch_size) for unit in self.units.ledger.unfinished())
        )

    def __iter__(self) -> Iterator[Work]:
        """Read the batches of this process."""
        if isinstance(self.units, int):
            count = min(self.units, len(self.inputs.keys))
            yield from self._read(self._cut(None, range(count)))
            return
        ledger = self.units.ledger
        while left := ledger.unfinished():
            free = (unit for unit in left if ledger.claim(unit))
            if (first := next(free, None)) is None:
                self.units.wait(_LOOK_SECONDS)
            else:
                claimed = chain([first], free)
                yield from self._read(chain.from_iterable(self._cut(unit, self._range(unit)) for unit in claimed))

    def _read(self, places: Iterator[list[Place]]) -> Iterator[Work]:
        # The order of batches is kept whatever the number of workers; claims are made here, in the parent.
        yield from DataLoader(
            _Reader(self.inputs),
            batch_sampler=places,
            num_workers=self.num_workers,
            collate_fn=_to_work,
        )

    def _range(self, unit: int) -> range:
        assert not isinstance(self.units, int)
        size = self.units.size
        return range(unit * size, min((unit + 1) * size, len(self.inputs.keys)))

    def _cut(self, unit: int | None, numbers: range) -> Iterator[list[Place]]:
        for start in range(0, len(numbers), self.batch_size):
            batch = numbers[start : start + self.batch_size]
            yield [(unit, number, batch[-1] == numbers[-1]) for number in batch]


class _Reader(Dataset[tuple[Place, Input]]):
    """Reads the inputs at given places."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs

    def __getitem__(self, place: Any) -> tuple[Place, Input]:
        with reading(f"sample {self.inputs.keys[place[1]].as_py()!r} of {self.inputs.reading.get('at', 'the input')}"):
            return place, self.inputs[place[1]]


def _to_work(read: list[tuple[Place, Input]]) -> Work:
    unit, _, last = read[0][0]
    return Work(unit, tuple(input for _, input in read), last)
