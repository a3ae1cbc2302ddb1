"""Another second half of the real route: a video editor edits whole clips as it edited their first frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from insvie_lightning.batch import Clip, Draft, Rejected
from insvie_lightning.builders.builder import Builder, Built
from insvie_lightning.builders.drafts import seed_of
from insvie_lightning.errors import InputError


class ClipEditor(Protocol):
    """Who edits clips for `BuildEdits`, such as `editors.frames.VideoEditor`."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model's name as `model`, and what else changes its edits; JSON types."""
        ...

    def load(self, device: torch.device) -> None:
        """Load the model, or move it; nothing happens when it is there.

        Raises:
            InputError: There is none.
        """
        ...

    def edit_clip(self, clip: Clip, instruction: str, guidance_scale: float, seed: int) -> np.ndarray:
        """Edit a clip, with a guidance scale of the text from 1, from the noise of a seed: F 3 H W, uint8."""
        ...


class BuildEdits(Builder[Draft]):
    """Makes triplets by a video editor that follows instructions, such as one that was trained by this project.

    Where the step before screened first frames of the same editor, each clip is edited with the guidance scale and the
    seed of the frame that was picked, so that the judge has chosen the video, too. Drafts of other editors get
    `guidance_scale` and a seed of their own, and their edited frame is not looked at.

    Args:
        output: Shard folder.
        editor: Who edits.
        guidance_scale: Of the text, from 1, for drafts without a screened first frame.
        seed: Of their noise, with the key.
        lossless: Store clips without loss, which only suits tiny ones.
        shard_size: As of `Builder`.
        max_bad_rate: As of `Builder`.

    Raises:
        InputError: One of them is not legal.
    """

    takes = Draft
    elsewhere = Builder.elsewhere | {"editor"}

    def __init__(
        self,
        output: Path,
        editor: ClipEditor,
        guidance_scale: float = 6.0,
        seed: int = 0,
        lossless: bool = False,
        shard_size: int = 64,
        max_bad_rate: float = 0.5,
    ) -> None:
        super().__init__(output, shard_size, max_bad_rate)
        if not 1 <= guidance_scale < float("inf"):
            raise InputError(f"guidance_scale is {guidance_scale}; legal are finite numbers from 1")
        self.editor, self.guidance_scale, self.seed, self.lossless = editor, guidance_scale, seed, lossless

    @property
    def settings(self) -> dict[str, Any]:
        """As of `Builder`; of the editor, what changes its edits."""
        return {**super().settings, "editor": dict(self.editor.identity)}

    def configure_model(self) -> None:
        """Load the editor, so that a job stops here if it is absent."""
        self.editor.load(self.device if self._trainer is None else self.trainer.strategy.root_device)

    def make(self, drafts: Sequence[Draft]) -> list[Built]:
        """A triplet for each draft; one without an instruction is rejected."""
        self.editor.load(self.device)
        return [
            self._edit(draft) if draft.instruction else Rejected(draft, "it has no instruction to edit it by")
            for draft in drafts
        ]

    def _edit(self, draft: Draft) -> Built:
        screened = draft.lineage.get("BuildFirstFrames", {})
        same = screened.get("settings", {}).get("editor") == dict(self.editor.identity)
        seed = screened["attempts"][-1]["seed"] if same else seed_of(self.seed, draft.key)
        scale = draft.scores["edit_guidance_scale"] if same else self.guidance_scale
        frames = self.editor.edit_clip(draft.source, draft.instruction, scale, seed)
        lineage = {**draft.lineage, type(self).__name__: {"seed": seed, "guidance_scale": scale}}
        return replace(draft, lineage=lineage).triplet(draft.source, replace(draft.source, frames=frames))
