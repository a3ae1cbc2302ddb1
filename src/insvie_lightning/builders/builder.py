"""What the steps of building a data set have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning import LightningModule

from insvie_lightning.batch import Draft, Rejected, Triplet

Built = Draft | Triplet | Rejected
"""What a step makes of a draft: a further draft, a finished triplet, or a reason why not."""


class Builder(LightningModule):
    """One step of building a data set, used with `insvie predict`: drafts in, shards out.

    A step says what it makes of drafts in `make`; what becomes of that is said here.

    Args:
        output: Shard folder.
        shard_size: Drafts a shard, which is the unit of work, of restart and of loss.
    """

    def __init__(self, output: Path, shard_size: int = 256) -> None:
        super().__init__()
        self.output, self.shard_size = output, shard_size

    def make(self, drafts: Sequence[Draft]) -> list[Built]:
        """Do the step for some drafts.

        It depends on nothing but the drafts and the step's settings: random numbers are seeded by the key. A draft may
        give several results, of different keys, or one `Rejected`.
        """
        raise NotImplementedError
