"""The samples of planned stages, by number: what a training loader reads."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
from torch.utils.data import Dataset, DistributedSampler

from insvie_data_modules.samples import Folders, Form, Sample, list_folders, load_rows, read_sample, stack
from insvie_lightning.batch import ORIGINS, EditBatch, Position
from insvie_lightning.errors import InputError
from insvie_lightning.quarantine import Quarantine
from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.order import Ratio, Runs, Stream, StreamOrder, generator, interleave, run_starts
from insvie_lightning.slow_reads import reading


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage whose samples are known.

    Attributes:
        name: Name of the stage.
        batches: Number of batches of each process.
        ratio: Static to real samples; None takes them as they come.
        rows: The manifest rows that the stage selects.
        streams: Stream -> the order of its rows.
        digest: Hash of all that the order depends on.
    """

    name: str
    batches: int
    ratio: Ratio | None
    rows: pa.Table
    streams: dict[Stream, StreamOrder]
    digest: str


def plan_stage(
    name: str,
    batches: int,
    folders: Folders,
    where: str,
    static_to_real: str | float | None,
    real_includes_pairs: bool,
    seed: int,
    pool_shards: int,
) -> PlannedStage:
    """Select the rows of a stage and put its streams in order; the arguments are those of `Stage` and `Curriculum`.

    Raises:
        InputError: The ratio or the clause is not legal, or nothing is selected of a stream that the ratio needs.
    """
    ratio = None if static_to_real is None else Ratio.parse(static_to_real)
    rows, summary = load_rows(folders, where), summarize(folders, where)
    if len(rows) != (found := int(summary.runs.lengths.sum())):
        raise InputError(f"{folders} changed while it was opened ({len(rows)}, then {found} samples)")
    count = {origin: int(summary.runs.lengths[summary.origins == place].sum()) for place, origin in enumerate(ORIGINS)}
    members: dict[Stream, tuple[str, ...]] = {
        "all": ORIGINS, "static": ("static",), "real": ("real", "pair") if real_includes_pairs else ("real",)
    }  # fmt: skip
    needed: list[Stream] = ["all"] if ratio is None else [s for s in ("static", "real") if getattr(ratio, s)]
    if any(not sum(count[origin] for origin in members[stream]) for stream in needed):
        selected = ", ".join(f"{count[origin]} {origin}" for origin in ORIGINS)
        raise InputError(
            f"stage {name!r} needs {'samples' if ratio is None else f'static:real = {ratio}'}, but in {folders} the "
            f"clause `{where}` selects {selected}; loosen it, or change static_to_real"
        )
    streams: dict[Stream, StreamOrder] = {}
    for stream in needed:
        chosen = np.isin(summary.origins, [ORIGINS.index(origin) for origin in members[stream]])
        streams[stream] = StreamOrder(summary.runs[chosen], seed, f"{name}/{stream}", pool_shards)
    drawn = [members[stream] for stream in needed]
    digest = hashlib.sha256(f"{summary.digest} {name} {ratio} {drawn} {seed} {pool_shards}".encode())
    return PlannedStage(name, batches, ratio, rows, streams, digest.hexdigest())


@dataclass(frozen=True, slots=True)
class RowSummary:
    """What the order of rows depends on, a few bytes for each run of rows of one shard and one origin.

    Attributes:
        runs: The R runs; shards are numbered as they first appear.
        origins: Place of the origin of each run in `ORIGINS`, -1 of any other; R.
        digest: Hash of the keys, shards and origins of all rows, in their order.
    """

    runs: Runs
    origins: np.ndarray
    digest: str


def summarize(folders: Folders, where: str) -> RowSummary:
    """Summarize the rows of `load_rows` while they stream, so that no page of them stays in memory.

    Raises:
        InputError: As `load_rows`.
    """
    starts, shards, origins = [np.empty(0, np.int32)], [np.empty(0, np.int32)], [np.empty(0, np.int8)]
    numbers: dict[tuple[Path, str | None], int] = {}
    keys, places, total = hashlib.sha256(), hashlib.sha256(), 0
    for folder in list_folders(folders):
        for batch in open_manifest(folder).stream(where, ["key", "origin", "shard"]):
            names, kinds = (batch[name].dictionary_encode("encode") for name in ("shard", "origin"))
            known = [numbers.setdefault((folder, shard), len(numbers)) for shard in names.dictionary.to_pylist()]
            shard = np.array(known, np.int32)[names.indices.to_numpy()]
            legal = [ORIGINS.index(kind) if kind in ORIGINS else -1 for kind in kinds.dictionary.to_pylist()]
            origin = np.array(legal, np.int8)[kinds.indices.to_numpy()]
            # Two hashes, because keys and places alternate as the batches are cut, which changes with `compact`.
            keys.update("".join(f"{key}\n" for key in batch["key"].to_pylist()).encode())
            places.update(np.stack([shard, origin], axis=1).astype(np.int32).tobytes())
            first = run_starts(shard, origin)
            starts.append(first + np.int32(total))
            shards.append(shard[first])
            origins.append(origin[first])
            total += len(batch)
    start, number, place = (np.concatenate(parts) for parts in (starts, shards, origins))
    runs = Runs(start, np.diff(start, append=np.int32(total)), number)
    return RowSummary(runs, place, f"{keys.hexdigest()} {places.hexdigest()}")


class StagedSamples(Dataset[tuple[int, Sample]]):
    """Sample number n of a curriculum, over all its stages; `collate` makes a batch of consecutive ones.

    Args:
        stages: The stages, in their order.
        samples_per_batch: Samples per batch over all processes.
        forms: The shape to bring clips to, stage by stage.
        seed: Seed of the windows.
        quarantine: Where bad samples go; the next good one of their stream takes their place.
    """

    def __init__(
        self,
        stages: Sequence[PlannedStage],
        samples_per_batch: int,
        forms: Sequence[Form],
        seed: int,
        quarantine: Quarantine,
    ) -> None:
        self.stages = stages
        self.samples_per_batch = samples_per_batch
        self.forms = forms
        self.seed = seed
        self.quarantine = quarantine
        self._starts = list(accumulate((stage.batches * samples_per_batch for stage in stages), initial=0))

    def __len__(self) -> int:
        """Number of samples of the whole curriculum."""
        return self._starts[-1]

    def __getitem__(self, number: int) -> tuple[int, Sample]:
        """Read sample `number`; returns the number with it.

        Raises:
            InputError: Too many samples are bad.
        """
        index = self._stage_of(number)
        stage, within = self.stages[index], number - self._starts[index]
        top, left, start = generator(self.seed, f"{stage.name}/window", within).random(3)
        stream, first = interleave(within, stage.ratio)
        order = stage.streams[stream]
        for candidate in range(first, first + len(order)):
            row = stage.rows.slice(order[candidate], 1).to_pylist()[0]
            try:
                with reading(f"sample {row['key']!r} of {Path(row['folder']) / row['shard']}"):
                    sample = read_sample(row, self.forms[index], (float(start), float(top), float(left)))
            except InputError as error:
                self.quarantine.add(row["key"], str(error))
            else:
                self.quarantine.accept()
                return number, sample
        raise InputError(f"stage {stage.name!r} has no {stream} sample that can be read; see {self.quarantine.path}")

    def collate(self, samples: Sequence[tuple[int, Sample]]) -> EditBatch:
        """Make a batch of the samples that one process draws in a row.

        Raises:
            InputError: The samples are not of one shape.
        """
        number = samples[0][0]
        index = self._stage_of(number)
        step = (number - self._starts[index]) // self.samples_per_batch
        return stack([sample for _, sample in samples], Position(self.stages[index].name, index, step))

    def fingerprint(self) -> str:
        """The order of the samples, as a hash; only the length of the last stage does not matter."""
        digest = hashlib.sha256(str(self.seed).encode())
        for start, stage in zip(self._starts, self.stages, strict=False):
            digest.update(f" {start} {stage.digest}".encode())
        return digest.hexdigest()

    def _stage_of(self, number: int) -> int:
        return bisect_right(self._starts, number) - 1


class RankSampler(DistributedSampler[int]):
    """Rank r of w draws the numbers r, r + w, r + 2w, ... in order, the first time from its draw number `start` on.

    Lightning replaces any sampler that is not a `DistributedSampler` by one that shuffles.
    """

    def __init__(self, dataset: StagedSamples, num_replicas: int, rank: int, start: int = 0) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=False)
        self.start = start

    def __iter__(self) -> Iterator[int]:
        """The numbers of this rank; `len` counts those before `start`, too, as Lightning does."""
        start, self.start = self.start, 0
        return iter(range(start * self.num_replicas + self.rank, self.total_size, self.num_replicas))
