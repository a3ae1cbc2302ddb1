"""The order of a stage: ratio, permutation, seeds."""

from collections import Counter

import numpy as np
import pytest

from insvie_lightning.errors import InputError
from insvie_lightning.shards.order import Ratio, Runs, StreamOrder, generator, interleave


@pytest.mark.parametrize(
    ("value", "static", "real"),
    [("5:1", 5, 1), ("10:2", 5, 1), (5, 5, 1), (0.5, 1, 2), ("0.5", 1, 2), ("0:1", 0, 1), ("1:0", 1, 0), (0, 0, 1)],
)
def test_ratio_is_read_in_lowest_terms(value: str | float, static: int, real: int) -> None:
    assert Ratio.parse(value) == Ratio(static, real)


@pytest.mark.parametrize("value", ["0:0", "5:x", "-1", "nan", "inf", ""])
def test_what_is_no_ratio_is_refused(value: str) -> None:
    with pytest.raises(InputError, match="is not a ratio; legal are"):
        Ratio.parse(value)


def test_a_ratio_that_lost_its_quotes_is_named() -> None:
    with pytest.raises(InputError, match="write '5:1'"):
        Ratio.parse(301.0)


@pytest.mark.parametrize("text", ["5:1", "1:2", "3:4", "0:1", "1:0", "2:7"])
def test_any_window_of_a_period_holds_the_ratio(text: str) -> None:
    ratio = Ratio.parse(text)
    draws = [interleave(n, ratio)[0] for n in range(600)]
    period = ratio.static + ratio.real
    assert all(draws[i : i + period].count("static") == ratio.static for i in range(600 - period))


def test_indices_of_a_stream_count_up_without_a_gap() -> None:
    seen: dict[str, list[int]] = {"static": [], "real": []}
    for n in range(100):
        stream, index = interleave(n, Ratio(5, 1))
        seen[stream].append(index)
    assert seen["static"] == list(range(len(seen["static"])))
    assert seen["real"] == list(range(len(seen["real"])))


def test_without_a_ratio_there_is_one_stream() -> None:
    assert interleave(17, None) == ("all", 17)


def test_every_row_comes_once_per_epoch_and_epochs_differ() -> None:
    order = StreamOrder(Runs.of(np.repeat(np.arange(10), 7)), seed=0, pool_shards=3)
    epochs = [[order[epoch * 70 + i] for i in range(70)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(70)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_order_is_a_function_of_seed_name_and_index_alone() -> None:
    shards = Runs.of(np.repeat(np.arange(10), 7))
    order = StreamOrder(shards, seed=3, name="s1/static")
    first = [order[i] for i in range(200)]
    again = StreamOrder(shards, seed=3, name="s1/static")
    assert [again[i] for i in reversed(range(200))] == first[::-1]
    assert [StreamOrder(shards, seed=4, name="s1/static")[i] for i in range(70)] != first[:70]
    assert [StreamOrder(shards, seed=3, name="s1/real")[i] for i in range(70)] != first[:70]


def test_samples_stay_within_a_pool_of_shards() -> None:
    shards = np.repeat(np.arange(12), 50)
    order = StreamOrder(Runs.of(shards), seed=0, pool_shards=3)
    pools = [{int(shards[order[i]]) for i in range(start, start + 150)} for start in range(0, 600, 150)]
    assert [len(pool) for pool in pools] == [3, 3, 3, 3]
    assert len(set.union(*pools)) == 12
    mixed = Counter(int(shards[order[i]]) for i in range(50))
    assert len(mixed) == 3  # the shards of a pool are mixed, not read one after the other


def test_a_million_rows_are_ordered_in_seconds() -> None:
    order = StreamOrder(Runs.of(np.arange(1_000_000) // 1000), seed=0)
    assert order[0] != order[1_000_000 - 1]
    assert len({order[i] for i in range(1000)}) == 1000


def test_the_order_does_not_depend_on_where_runs_are_cut() -> None:
    shards = np.random.default_rng(0).integers(0, 5, 200)
    rows = Runs(np.arange(200, dtype=np.int32), np.ones(200, np.int32), shards)
    assert len(Runs.of(shards).starts) < 180
    order, same = StreamOrder(Runs.of(shards), seed=0, pool_shards=2), StreamOrder(rows, seed=0, pool_shards=2)
    assert [order[i] for i in range(400)] == [same[i] for i in range(400)]


def test_a_large_shard_is_cut_into_pieces_wherever_its_runs_end() -> None:
    runs = Runs(np.array([0, 12, 30, 100]), np.array([9, 18, 3, 20]), np.array([7, 7, 2, 7]))
    cut, first = runs.by_shard(10)
    pieces = [
        [*zip(part.shards, part.starts, part.starts + part.lengths, strict=True)]
        for part in (cut[chosen] for chosen in np.split(np.arange(len(cut.starts)), first[1:]))
    ]
    assert pieces == [
        [(2, 30, 33)], [(7, 0, 9), (7, 12, 13)], [(7, 13, 23)], [(7, 23, 30), (7, 100, 103)],
        [(7, 103, 113)], [(7, 113, 120)],
    ]  # fmt: skip


def test_a_pool_of_large_shards_holds_few_rows() -> None:
    order = StreamOrder(Runs.of(np.repeat([0, 1], 100_000)), seed=0, pool_shards=2)
    assert len({order[i] for i in range(200_000)}) == 200_000
    assert order._rows.nbytes <= 2 * 4 * 16_384


def test_random_numbers_depend_on_every_part_of_the_seed() -> None:
    draws = {generator(*parts).random() for parts in [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1)]}
    assert len(draws) == 4
    assert generator(0, "a", 0).random() in draws
