"""Write toy scenes as triplet shards, a share of them flawed the way that generated edits are."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule

from insvie_lightning.batch import Clip, Triplet
from insvie_lightning.errors import InputError
from insvie_lightning.shards.manifest import finished_keys
from insvie_lightning.shards.write import ShardWriter
from insvie_lightning.toy.edits import example_of_key, wrong_instruction

FLAWS = {"misplaced": (4.0, 2.0), "late": (3.0, 0.0), "wrong": (1.0, 0.0)}
"""Flaw -> the judge's score (1 to 5) and the end-point error in px that go into the manifest."""


class BuildToy(LightningModule):
    """Writes the triplets of `ToyScenes` into shards, with judge score and end-point error.

    Perfect edits get judge 5 and EPE 0 px. Flawed ones are `misplaced` (the edited clip is off by 2 px: judge 4,
    EPE 2), `late` (the first third of the frames is not edited: judge 3) or `wrong` (another edit than asked for:
    judge 1, rejected), so that the manifest queries of the curriculum's stages have something to choose.

    Args:
        output: Shard folder. Samples that are in it already are not made again.
        flawed: Share of flawed samples, 0 to 1.
        shard_size: Samples a shard.
        seed: Of the flaws.
    """

    def __init__(self, output: Path, flawed: float = 0.1, shard_size: int = 512, seed: int = 0) -> None:
        super().__init__()
        if not 0 <= flawed <= 1:
            raise InputError(f"flawed is {flawed}; legal are shares from 0 to 1")
        self.output, self.flawed, self.shard_size, self.seed = output, flawed, shard_size, seed
        self._writer: ShardWriter | None = None

    def on_predict_start(self) -> None:
        """Open the shard folder."""
        if self.trainer.world_size > 1:
            raise InputError("the toy world is written by one process: set --trainer.devices=1")
        self._writer = ShardWriter(self.output, shard_size=self.shard_size, lossless=True)
        self._done = finished_keys(self.output)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Triplets stay where they are: nothing of this builder runs on a device."""
        return batch

    def predict_step(self, batch: list[Triplet], batch_idx: int) -> None:
        """Flaw a share of the triplets; write them, or reject them with the reason."""
        assert self._writer is not None
        for triplet in batch:
            if triplet.key in self._done:
                continue
            rng = np.random.default_rng([self.seed, int(triplet.key[-7:])])
            flaw = str(rng.choice(list(FLAWS))) if rng.random() < self.flawed else ""
            made = _flaw(triplet, flaw) if flaw else triplet
            lineage = {"builder": "BuildToy", "version": 1, "flaw": flaw, "seed": self.seed}
            if flaw == "wrong":
                scores = {"judge": FLAWS[flaw][0], "epe_px": FLAWS[flaw][1]}
                asked = wrong_instruction(example_of_key(triplet.key))
                reason = "judge 1 is below 3: the clip shows another edit than asked for"
                record = {"instruction": asked, "origin": triplet.origin, "edit_type": triplet.edit_type}
                self._writer.reject(triplet.key, reason, dataset="toy", scores=scores, lineage=lineage, **record)
            else:
                self._writer.write(replace(made, lineage=lineage))

    def on_predict_end(self) -> None:
        """Finish the last shard."""
        assert self._writer is not None
        self._writer.close()


def _flaw(triplet: Triplet, flaw: str) -> Triplet:
    judge, epe_px = FLAWS[flaw]
    frames = triplet.edited.frames
    if flaw == "misplaced":
        frames = np.concatenate([frames[..., :2], frames[..., :-2]], axis=-1)
    elif flaw == "late":
        third = len(frames) // 3
        frames = np.concatenate([triplet.source.frames[:third], frames[third:]])
    return replace(triplet, edited=Clip(frames, triplet.edited.fps), scores={"judge": judge, "epe_px": epe_px})
