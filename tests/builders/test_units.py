"""Keys of an input, and how it is cut into units and batches."""

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from insvie_lightning.builders.units import UnitLoader, Units, check_keys, hash_keys
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
        self.keys, self.reading = keys([str(n) for n in range(count)]), {"at": "numbers"}

    def __getitem__(self, index: int) -> int:
        return index


def batches(count: int, shard_size: int, batch_size: int, claimable: list[int]) -> list[tuple[int | None, Any, bool]]:
    """What a loader over inputs that are numbers gives, when these units can be claimed and the others are finished."""
    left = list(claimable)

    def claim(unit: int) -> bool:
        left.remove(unit)
        return True

    ledger = SimpleNamespace(unfinished=lambda: list(left), claim=claim)
    units = Units(ledger, shard_size, wait=lambda seconds: None)  # type: ignore[arg-type]
    loader = UnitLoader(_Inputs(count), batch_size, 0, units)  # type: ignore[arg-type]
    return [(work.unit, work.inputs, work.last) for work in loader]


def test_batches_lie_within_units() -> None:
    assert batches(10, 4, 3, [0, 2]) == [(0, (0, 1, 2), False), (0, (3,), True), (2, (8, 9), True)]
    assert batches(10, 4, 3, []) == []


def test_a_loader_waits_for_units_that_others_have_claimed() -> None:
    waited: list[float] = []
    ledger = SimpleNamespace(unfinished=lambda: [] if waited else [0], claim=lambda unit: False)
    units = Units(ledger, 4, waited.append)  # type: ignore[arg-type]
    assert list(UnitLoader(_Inputs(4), 2, 0, units)) == [] and len(waited) == 1  # type: ignore[arg-type]


def test_a_number_of_inputs_is_read_as_no_unit() -> None:
    for number, expected in ((3, [(0, 1), (2,)]), (9, [(0, 1), (2, 3)])):
        loader = UnitLoader(_Inputs(4), 2, 0, number)  # type: ignore[arg-type]
        assert [work.inputs for work in loader] == expected and len(loader) == len(expected)
        assert {work.unit for work in loader} == {None}
