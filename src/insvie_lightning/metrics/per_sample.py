"""One value per edit: the base of every metric, and what a metric is given."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from insvie_lightning.batch import EditBatch, EditedVideos
from insvie_lightning.errors import InputError
from insvie_lightning.nets.latents import to_uint8
from insvie_lightning.nets.recent import Recent, fingerprint

_SOURCES_KEPT = 4096  # a few numbers each; the edits of one video may be far apart, as where a set is sorted by task


@dataclass(frozen=True, slots=True)
class EditedSample:
    """One edit to be scored; clips are F 3 H W, uint8, all of one shape.

    Attributes:
        key: Of the sample.
        source: The clip before the edit.
        edited: What the editor made of it.
        target: What it should have made, where that is known.
        instruction: The sentence.
        source_caption: What the source shows; empty if unknown.
        edited_caption: What the edited clip should show; empty if unknown.
    """

    key: str
    source: Tensor
    edited: Tensor
    target: Tensor | None = None
    instruction: str = ""
    source_caption: str = ""
    edited_caption: str = ""


class PerSample(Metric):
    """A metric with one or more values for each edit; `compute` gives their means over all processes.

    A sample that several processes have seen, as when a sampler pads the last round, counts once; a process without
    samples is legal. A value of nan is missing: it is left out of the mean, and counted as `NAME_missing`.

    Networks are no attributes of a metric, because they would be saved with every checkpoint; see `nets.frozen`.

    Args:
        with_source: Also give the values of the unedited source, as `source_NAME`, where that says something.
    """

    names: tuple[str, ...]
    """What the values are called, in the order in which `score` returns them; names carry their unit."""
    source_names: ClassVar[tuple[str, ...]] = ()
    """Those of `names` that are also taken of the unedited source."""
    reads_captions: ClassVar[bool] = False
    """Whether they depend on the captions. If not, all edits of one video share them; they may depend on nothing else
    but the source's pixels."""
    full_state_update = False
    is_differentiable = False
    ids: list[Tensor]
    values: list[Tensor]

    def __init__(self, with_source: bool = True) -> None:
        super().__init__()
        self.with_source = with_source
        # A process without samples gathers an empty tensor of this type, and it holds 48 bits of a key's hash exactly.
        self.set_dtype(torch.float64)
        self.add_state("ids", [], dist_reduce_fx="cat")
        self.add_state("values", [], dist_reduce_fx="cat")
        self.rows: dict[str, tuple[float, ...]] = {}
        self._sources: Recent[tuple[float, ...]] = Recent(_SOURCES_KEPT)

    def prepare(self) -> None:
        """Load what scoring needs.

        Raises:
            InputError: Weights are absent or of another model.
        """

    @abstractmethod
    def score(self, sample: EditedSample) -> tuple[float, ...]:
        """Return the values of one edit, in the order of `names`."""

    @property
    def columns(self) -> tuple[str, ...]:
        """`names`, then `source_NAME` of those that are also taken of the source."""
        return (*self.names, *(f"source_{name}" for name in self.source_names if self.with_source))

    def update(self, batch: EditBatch, edits: EditedVideos) -> None:
        """Score the edits of a batch.

        Raises:
            InputError: As `samples_of`, or a sample lacks what the metric needs.
        """
        for sample in samples_of(batch, edits):
            self.add(sample)

    @torch.inference_mode()
    def add(self, sample: EditedSample) -> None:
        """Score one edit."""
        with torch.autocast(sample.edited.device.type, enabled=False):  # published numbers are of float32
            values = self.score(sample)
            if self.with_source and self.source_names:
                values += self._of_source(sample)
        # torchmetrics counts and forgets its result in `update` only, and `compute` warns where nothing was counted.
        self._update_count, self._computed = self._update_count + 1, None
        self.rows[sample.key] = values
        self.ids.append(torch.tensor([_number(sample.key)], dtype=torch.float64, device=self.device))
        self.values.append(torch.tensor(values, dtype=torch.float64, device=self.device))

    def compute(self) -> dict[str, Tensor]:
        """The mean of each column, nan where it has no value, and how many values are missing where some are."""
        ids, values = (
            torch.cat([*part, torch.empty(0, dtype=torch.float64, device=self.device)])
            if isinstance(part, list)
            else part
            for part in (self.ids, self.values)
        )
        values = values.reshape(-1, len(self.columns))
        order = torch.argsort(ids, stable=True)
        first = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
        first[1:] = ids[order][1:] != ids[order][:-1]
        values = values[order][first]
        result = dict(zip(self.columns, values.nanmean(0).float(), strict=True))
        missing = values.isnan().sum(0)
        return result | {f"{name}_missing": n.float() for name, n in zip(self.columns, missing, strict=True) if n}

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        self.rows = {}

    def _of_source(self, sample: EditedSample) -> tuple[float, ...]:
        """Values of the unedited source; the edits of one video share them, with their captions if those are read."""
        pixels = fingerprint(sample.source)
        told = (sample.source_caption, sample.edited_caption) if self.reads_captions else ("", "")

        def values() -> tuple[float, ...]:
            # It is made of what it is kept by, so that nothing of the edit that comes first can show in its values.
            alone = EditedSample(pixels, sample.source, sample.source, source_caption=told[0], edited_caption=told[1])
            found = self.score(alone)
            return tuple(found[self.names.index(name)] for name in self.source_names)

        return self._sources.get((pixels, *told), values)


def samples_of(batch: EditBatch, edits: EditedVideos) -> Iterator[EditedSample]:
    """Yield the edits of a batch one by one; those that are missing are left out.

    Raises:
        InputError: The batch has no source clips, or source and edited clips differ in shape.
    """
    edited = to_uint8(edits.edited)
    source = batch.source if edits.source is None else edits.source
    if source is None:
        raise InputError(f"sample {batch.keys[0]!r} comes from cached latents; scores need shards of videos")
    if source.shape != edited.shape:
        raise InputError(
            f"sample {batch.keys[0]!r}: the source is {tuple(source.shape[1:])}, the edit {tuple(edited.shape[1:])} "
            "(F 3 H W); scores compare clips of one shape"
        )
    target = batch.edited if edits.target is None else edits.target
    for i, key in enumerate(batch.keys):
        if key in edits.missing:
            continue
        yield EditedSample(
            key=key,
            source=source[i].to(edited.device),
            edited=edited[i],
            target=None if target is None else target[i].to(edited.device),
            instruction=batch.instructions[i],
            source_caption=batch.source_captions[i] if batch.source_captions else "",
            edited_caption=batch.edited_captions[i] if batch.edited_captions else "",
        )


def _number(key: str) -> int:
    """48 bits of a key's hash: exact in float64, and alike for two of a million keys by a chance of 2e-3."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big")
