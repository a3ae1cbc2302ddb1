"""Write toy scenes as triplet shards, a share of them flawed the way that generated edits are."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from insvie_lightning.batch import Clip, Rejected, Triplet
from insvie_lightning.builders.builder import Builder, Built
from insvie_lightning.builders.drafts import seed_of
from insvie_lightning.errors import InputError
from insvie_lightning.toy.edits import example_of_key, wrong_instruction

FLAWS = {"misplaced": (4.0, 2.0), "late": (3.0, 0.0), "wrong": (1.0, 0.0)}
"""Flaw -> the judge's score (1 to 5) and the end-point error in px that go into the manifest."""


class BuildToy(Builder[Triplet]):
    """Writes the triplets of `ToyScenes` into shards, with judge score and end-point error.

    Perfect edits get judge 5 and EPE 0 px. Flawed ones are `misplaced` (the edited clip is off by 2 px: judge 4,
    EPE 2), `late` (the first third of the frames is not edited: judge 3) or `wrong` (another edit than asked for:
    judge 1, rejected), so that the manifest queries of the curriculum's stages have something to choose.

    Args:
        output: Shard folder.
        flawed: Share of flawed samples, 0 to 1.
        shard_size: Samples a shard.
        seed: Of the flaws.
        keep_wrong: Accept `wrong` samples, too, so that a training without the judge's filter has them.
    """

    takes = Triplet
    version = 2
    lossless = True

    def __init__(
        self, output: Path, flawed: float = 0.1, shard_size: int = 512, seed: int = 0, keep_wrong: bool = False
    ) -> None:
        super().__init__(output, shard_size)
        if not 0 <= flawed <= 1:
            raise InputError(f"flawed is {flawed}; legal are shares from 0 to 1")
        self.flawed, self.seed, self.keep_wrong = flawed, seed, keep_wrong

    def make(self, drafts: Sequence[Triplet]) -> list[Built]:
        """Flaw a share of the triplets, and reject those whose flaw is to be another edit."""
        return [self._make(triplet) for triplet in drafts]

    def _make(self, triplet: Triplet) -> Triplet | Rejected:
        # Not by the number of the scene, as the scene itself is drawn: flaws would go by edit type.
        rng = np.random.default_rng(seed_of(self.seed, triplet.key))
        flaw = str(rng.choice(list(FLAWS))) if rng.random() < self.flawed else ""
        made = replace(_flaw(triplet, flaw) if flaw else triplet, lineage={self.step: {"flaw": flaw}})
        if flaw != "wrong":
            return made
        made = replace(made, instruction=wrong_instruction(example_of_key(triplet.key)))
        reason = "judge 1 is below 3: the clip shows another edit than asked for"
        return made if self.keep_wrong else Rejected(made, reason)


def _flaw(triplet: Triplet, flaw: str) -> Triplet:
    judge, epe_px = FLAWS[flaw]
    frames = triplet.edited.frames
    if flaw == "misplaced":
        frames = np.concatenate([frames[..., :2], frames[..., :-2]], axis=-1)
    elif flaw == "late":
        third = len(frames) // 3
        frames = np.concatenate([triplet.source.frames[:third], frames[third:]])
    return replace(triplet, edited=Clip(frames, triplet.edited.fps), scores={"judge": judge, "epe_px": epe_px})
