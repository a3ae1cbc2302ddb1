"""Keys of an input, and how it is cut into units and batches."""

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from insvie_lightning.builders.units import UnitLoader, check_keys, hash_keys
from insvie_lightning.errors import InputError


def keys(*chunks: list[str]) -> pa.ChunkedArray:
    return pa.chunked_array(chunks, pa.string())


def test_illegal_and_repeated_keys_are_named() -> None:
    check_keys(keys(["a", "b-1"], ["c_2"]), "the input")
    with pytest.raises(InputError, match=r"the input: the key 'b/\.\.' is not legal; it may hold letters, digits"):
        check_keys(keys(["a"], ["b/.."]), "the input")
    with pytest.raises(InputError, match="the key 'b' is used twice"):
        check_keys(keys(["a", "b"], ["c", "b"]), "the input")


def test_the_hash_is_of_keys_and_order_but_not_of_chunks() -> None:
    assert hash_keys(keys(["a", "b"], ["c"])) == hash_keys(keys(["a"], ["b", "c"]))
    hashes = {hash_keys(keys(names)) for names in (["a", "b"], ["b", "a"], ["ab"], ["a", "b", "c"])}
    assert len(hashes) == 4


class _Inputs:
    def __init__(self, count: int) -> None:
        self.keys = keys([str(n) for n in range(count)])

    def __getitem__(self, index: int) -> int:
        return index


def loader(count: int, shard_size: int, batch_size: int, unfinished: list[int], rank: int, ranks: int) -> UnitLoader:
    """A loader of a rank in lockstep, over inputs that are numbers."""
    left = list(unfinished)
    strategy = SimpleNamespace(broadcast=lambda value: value)
    builder: Any = SimpleNamespace(
        rehearsal=0,
        lockstep=True,
        shard_size=shard_size,
        trainer=SimpleNamespace(global_rank=rank, world_size=ranks, strategy=strategy),
        ledger=SimpleNamespace(unfinished=lambda: left, claim=lambda unit: unit != 99),
    )
    return UnitLoader(builder, _Inputs(count), batch_size, 0)  # type: ignore[arg-type]


def batches(*args: Any) -> list[tuple[int | None, tuple[Any, ...], bool]]:
    return [(work.unit, work.inputs, work.last) for work in loader(*args)]


def test_batches_lie_within_units_and_ranks_have_equally_many() -> None:
    assert batches(10, 4, 3, [0, 1, 2], 0, 2) == [
        (0, (0, 1, 2), False),
        (0, (3,), True),
        (2, (8, 9), True),
    ]
    assert batches(10, 4, 3, [0, 1, 2], 1, 2) == [
        (1, (4, 5, 6), False),
        (1, (7,), True),
        (None, (4, 5, 6), False),
    ]
    # A rank without any unit runs what another one has; where nothing is left, nobody runs anything.
    assert batches(10, 4, 3, [2], 1, 2) == [(None, (8, 9), True)]
    assert batches(10, 4, 3, [], 1, 2) == []


def test_a_unit_that_another_job_has_is_run_and_dropped() -> None:
    found = loader(4, 4, 2, [0], 0, 1)
    found.builder.ledger.claim = lambda unit: False  # type: ignore[method-assign]
    assert [(work.unit, work.inputs) for work in found] == [(None, (0, 1)), (None, (2, 3))]
