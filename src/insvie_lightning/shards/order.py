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


class StreamOrder:
    """The endless order of one stream: index 0, 1, 2, ... -> row, every row once per epoch.

    An epoch shuffles the shards, takes them in pools and permutes the samples within each pool: samples that are read
    together lie in few shards. The seed of an epoch derives from `seed`, `name` and the epoch's number. Held in memory
    are 4 bytes a row and the permutation of one pool.

    Args:
        shard_of_row: The shard of each row, as numbers; N < 2^31 rows.
        seed: The run's seed.
        name: Tells streams of one seed apart, for example by stage and stream.
        pool_shards: Number of shards whose samples are mixed.
    """

    def __init__(self, shard_of_row: np.ndarray, seed: int, name: str = "", pool_shards: int = 16) -> None:
        by_shard = np.argsort(shard_of_row, kind="stable").astype(np.int32)
        borders = np.flatnonzero(np.diff(shard_of_row[by_shard])) + 1
        self._shards = np.split(by_shard, borders)
        self._length = len(by_shard)
        self._seed = seed
        self._name = name
        self._pool_shards = pool_shards
        self._epoch = -1
        self._pools: list[np.ndarray] = []
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
            rows = np.concatenate([self._shards[shard] for shard in self._pools[pool]])
            generator(self._seed, f"{self._name}/{epoch}", pool).shuffle(rows)
            self._pool, self._rows = pool, rows
        return int(self._rows[within - self._starts[pool]])

    def _begin(self, epoch: int) -> None:
        shuffled = generator(self._seed, self._name, epoch).permutation(len(self._shards))
        self._pools = np.split(shuffled, range(self._pool_shards, len(shuffled), self._pool_shards))
        sizes = [sum(len(self._shards[shard]) for shard in pool) for pool in self._pools]
        self._starts = np.cumsum([0, *sizes[:-1]])
        self._epoch, self._pool = epoch, -1


def generator(seed: int, name: str, number: int) -> np.random.Generator:
    """The random numbers of item `number` of what `name` says, the same on every machine, rank and worker."""
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(name.encode()), number]))
