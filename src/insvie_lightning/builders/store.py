"""Where a builder's results go: encoded in the background, written in order, a shard a unit."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from insvie_lightning.batch import Clip, Draft, Triplet
from insvie_lightning.builders.units import Input
from insvie_lightning.shards.drafts import clips_of, encode_member
from insvie_lightning.shards.ledger import Ledger
from insvie_lightning.shards.record import describe
from insvie_lightning.shards.write import ShardWriter

ENCODERS = min(4, os.cpu_count() or 1)
"""Threads that encode clips while the next batch is made."""
_MANY = 2**62  # a unit ends its shard, however many samples were made of it


@dataclass(slots=True)
class Tally:
    """What one process has done so far: inputs, accepted and rejected results, seconds in `make`, bytes of members."""

    inputs: int = 0
    accepted: int = 0
    rejected: int = 0
    make_seconds: float = 0.0
    stored_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Encoding:
    """A result on its way; `reason` is empty of an accepted one."""

    sample: Draft | Triplet
    reason: str
    members: Mapping[str, bytes | Future[bytes]]

    @property
    def done(self) -> bool:
        return all(isinstance(data, bytes) or data.done() for data in self.members.values())


class Store:
    """Writes results into the shard of the unit in progress.

    Args:
        ledger: Whose units are built; None measures what would be written, and writes nothing.
        lossless: Encode clips without loss.
        tally: Counts what is stored.
    """

    def __init__(self, ledger: Ledger | None, lossless: bool, tally: Tally) -> None:
        self._ledger, self._lossless, self._tally = ledger, lossless, tally
        self._encoders = ThreadPoolExecutor(ENCODERS, thread_name_prefix="encode")
        self._encoding: deque[_Encoding] = deque()
        self._writer: ShardWriter | None = None

    def add(
        self,
        input: Input,
        sample: Draft | Triplet,
        reason: str,
        unit: int | None,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        """Take a result of an input, rejected where there is a reason; clips that are the input's keep their bytes.

        Args:
            input: What it was made of.
            sample: The result.
            reason: Why it is rejected; empty if it is not.
            unit: Of the input.
            files: Stored instead of the sample's clips.
        """
        # What another one has taken over, and may have finished, is his to write.
        if self._writer is None and self._ledger is not None and unit is not None and self._ledger.holds(unit):
            self._writer = ShardWriter(
                self._ledger.folder, shard_size=_MANY, first_shard=unit, taken=(), writer=self._ledger.writer
            )
        before = {} if reason else clips_of(input.sample)
        members: dict[str, bytes | Future[bytes]] = dict(files or {})
        for name, clip in ({} if reason or files is not None else clips_of(sample)).items():
            kept = input.members.get(name) if name in before and _same(clip, before[name]) else None
            members[name] = kept or self._encoders.submit(encode_member, name, clip, self._lossless)
        self._encoding.append(_Encoding(sample, reason, members))
        while self._encoding and (len(self._encoding) > 2 * ENCODERS or self._encoding[0].done):
            self._write(self._encoding.popleft())

    def finish(self, unit: int | None) -> None:
        """Write what is left of a unit, check and rename its shard, and let the unit go."""
        while self._encoding:
            self._write(self._encoding.popleft())
        if self._ledger is None or unit is None:
            return
        if self._writer is not None:
            if self._ledger.holds(unit):
                self._writer.close()
            else:  # this process was silent for so long that another one has taken the unit over
                self._writer.discard()
            self._writer = None
        self._ledger.release(unit)

    def close(self) -> None:
        """Drop the shard in progress and let all units go."""
        self._encoding.clear()
        self._encoders.shutdown(cancel_futures=True)
        if self._writer is not None:
            self._writer.discard()
            self._writer = None
        if self._ledger is not None:
            self._ledger.close()

    def _write(self, encoding: _Encoding) -> None:
        members = {name: data if isinstance(data, bytes) else data.result() for name, data in encoding.members.items()}
        self._tally.accepted += not encoding.reason
        self._tally.rejected += bool(encoding.reason)
        self._tally.stored_bytes += sum(map(len, members.values()))
        if self._writer is None:
            return
        record = describe(encoding.sample)
        if encoding.reason:
            self._writer.reject(record.pop("key"), encoding.reason, **record)
        else:
            self._writer.write_members(record, members)


def _same(clip: Clip, before: Clip) -> bool:
    """Whether a step passed a clip on as it was: in the very same memory."""
    frames = clip.frames
    return (
        clip.fps == before.fps
        and frames.shape == before.frames.shape
        and frames.strides == before.frames.strides
        and np.may_share_memory(frames, before.frames)
    )
