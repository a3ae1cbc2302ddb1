"""The deterministic order of a curriculum stage: sample number n = 0, 1, 2, ... -> row of the manifest.

The order is a pure function of n. Ranks and workers only take turns at it, so it does not change with their number, and
a run resumes from n alone.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from fractions import Fraction
from math import gcd
from typing import Literal

import numpy as np

from insvie_lightning.errors import InputError

Stream = Literal["static", "real", "all"]
MAX_SHARD_ROWS = 16_384
"""A shard of more rows, such as a zip of a published data set, is mixed as if it were several of so many."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """`static` static samples to `real` real ones, in lowest terms; the pattern's period is `static + real`."""

    static: int
    real: int

    @classmethod
    def parse(cls, value: str | float) -> Ratio:
        """Read `'5:1'`, or static samples per real one as a number (`5`, `0.5`).

        Raises:
            InputError: Not two whole numbers, both zero, negative, or a number that YAML made of an unquoted `5:1`.
        """
        legal = "legal are 'STATIC:REAL' in quotes, such as '5:1', or static samples per real one, such as 0.5"
        text = str(value).strip()
        if match := re.fullmatch(r"(\d+)\s*:\s*(\d+)", text):
            static, real = int(match[1]), int(match[2])
        else:
            try:
                number = float(text)
                static, real = Fraction(number).limit_denominator(1000).as_integer_ratio()
            except (ValueError, OverflowError):
                raise InputError(f"static_to_real: {value!r} is not a ratio; {legal}") from None
            if number >= 60:  # YAML 1.1 reads an unquoted 5:1 as 5 minutes and 1 second
                minutes, seconds = divmod(int(number), 60)
                raise InputError(
                    f"static_to_real: {value!r} looks like {minutes}:{seconds} without its quotes; "
                    f"write '{minutes}:{seconds}'"
                )
        if static < 0 or static + real == 0:
            raise InputError(f"static_to_real: {value!r} is not a ratio; {legal}")
        divisor = gcd(static, real)
        return cls(static // divisor, real // divisor)

    def __str__(self) -> str:
        return f"{self.static}:{self.real}"


def interleave(n: int, ratio: Ratio | None) -> tuple[Stream, int]:
    """Return the stream that sample number `n` is drawn from, and its index within that stream.

    The static samples are spread as evenly as possible (Bresenham's line): among the first n there are
    floor(n * static / (static + real)), so any window of static + real samples holds the ratio exactly.
    Without a ratio there is one stream, `all`.
    """
    if ratio is None:
        return "all", n
    period = ratio.static + ratio.real
    static = n * ratio.static // period
    if (n + 1) * ratio.static // period > static:
        return "static", static
    return "real", n - static


@dataclass(frozen=True, slots=True)
class Runs:
    """Stretches of consecutive rows that lie in one shard: all that an order needs to know of them.

    Attributes:
        starts: First row of each run; R.
        lengths: Number of rows of each; R.
        shards: Number of the shard of each; R.
    """

    starts: np.ndarray
    lengths: np.ndarray
    shards: np.ndarray

    @classmethod
    def of(cls, shard_of_row: np.ndarray) -> Runs:
        """Find the runs of N < 2^31 rows, given the number of the shard of each."""
        starts = run_starts(shard_of_row)
        return cls(starts, np.diff(starts, append=np.int32(len(shard_of_row))), shard_of_row[starts])

    def __getitem__(self, chosen: np.ndarray) -> Runs:
        """Some of the runs, by their numbers or a mask."""
        return Runs(self.starts[chosen], self.lengths[chosen], self.shards[chosen])

    def by_shard(self, most: int) -> tuple[Runs, np.ndarray]:
        """Put them shard by shard, in pieces of at most so many rows; return with them the first run of each piece."""
        runs = self[np.argsort(self.shards, kind="stable")]
        ends = np.cumsum(runs.lengths)
        first = run_starts(runs.shards)
        before = np.repeat((ends - runs.lengths)[first], np.diff(first, append=len(ends)))
        begin, end = ends - runs.lengths - before, ends - before  # within the shard
        shift = runs.starts - begin
        counts = (end - 1) // most - begin // most + 1
        piece, run = expand(begin // most, counts), np.repeat(np.arange(len(ends)), counts)
        begin, end = np.maximum(begin[run], piece * most), np.minimum(end[run], (piece + 1) * most)
        starts, lengths = begin + shift[run], end - begin
        cut = Runs(starts.astype(np.int32), lengths.astype(np.int32), runs.shards[run])
        return cut, run_starts(cut.shards, piece)


def run_starts(*columns: np.ndarray) -> np.ndarray:
    """Return where runs of equal values in all columns begin, as int32."""
    borders = [column[1:] != column[:-1] for column in columns]
    return np.append(np.int32(0), np.flatnonzero(np.any(borders, axis=0)) + 1)[: len(columns[0])].astype(np.int32)


def expand(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the members start, start + 1, ... of all runs, run by run, as int32."""
    before = np.cumsum(lengths) - lengths
    return np.repeat((starts - before).astype(np.int32), lengths) + np.arange(lengths.sum(), dtype=np.int32)


class StreamOrder:
    """The endless order of one stream: index 0, 1, 2, ... -> row, every row once per epoch.

    An epoch shuffles the shards, takes them in pools and permutes the samples within each pool: samples that are read
    together lie in few shards. The seed of an epoch derives from `seed`, `name` and the epoch's number. Held in memory
    are a few numbers for each run of rows, and the permutation of one pool, 4 bytes a row.

    Args:
        runs: The rows. Their memory is that of runs, so they should lie shard by shard.
        seed: The run's seed.
        name: Tells streams of one seed apart, for example by stage and stream.
        pool_shards: Number of shards whose samples are mixed.
    """

    def __init__(self, runs: Runs, seed: int, name: str = "", pool_shards: int = 16) -> None:
        self._runs, self._first_runs = runs.by_shard(MAX_SHARD_ROWS)
        self._run_counts = np.diff(self._first_runs, append=len(self._runs.starts))
        self._sizes = np.add.reduceat(self._runs.lengths, self._first_runs, dtype=np.int64)
        self._length = int(self._sizes.sum())
        self._seed = seed
        self._name = name
        self._pool_shards = pool_shards
        self._epoch = -1
        self._shuffled = np.empty(0, dtype=np.int64)
        self._starts = np.empty(0, dtype=np.int64)
        self._pool = -1
        self._rows = np.empty(0, dtype=np.int32)

    def __len__(self) -> int:
        """Number of rows N."""
        return self._length

    def __getitem__(self, index: int) -> int:
        """The row at `index` >= 0; index // N is the epoch."""
        epoch, within = divmod(index, self._length)
        if epoch != self._epoch:
            self._begin(epoch)
        pool = int(np.searchsorted(self._starts, within, side="right")) - 1
        if pool != self._pool:
            shards = self._shuffled[pool * self._pool_shards : (pool + 1) * self._pool_shards]
            runs = self._runs[expand(self._first_runs[shards], self._run_counts[shards])]
            self._rows = expand(runs.starts, runs.lengths)
            generator(self._seed, f"{self._name}/{epoch}", pool).shuffle(self._rows)
            self._pool = pool
        return int(self._rows[within - self._starts[pool]])

    def _begin(self, epoch: int) -> None:
        self._shuffled = generator(self._seed, self._name, epoch).permutation(len(self._sizes))
        sizes = np.add.reduceat(self._sizes[self._shuffled], np.arange(0, len(self._sizes), self._pool_shards))
        self._starts = np.cumsum(sizes) - sizes
        self._epoch, self._pool = epoch, -1


def generator(seed: int, name: str, number: int) -> np.random.Generator:
    """The random numbers of item `number` of what `name` says, the same on every machine, rank and worker."""
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(name.encode()), number]))
