"""Edit the first frame of every clip several times, and let a judge pick the best edit."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from insvie_lightning.batch import Clip, Draft, Rejected
from insvie_lightning.builders.builder import Builder, Built
from insvie_lightning.builders.drafts import seed_of
from insvie_lightning.builders.image_editors import ImageEditor
from insvie_lightning.errors import InputError
from insvie_lightning.judges import NONE_GOOD, SCREENING, Question, Spent, Verdict, VLMJudge
from insvie_lightning.video import fit_clip

SIDE_MULTIPLE = 32
"""Sides that SDXL's U-Net halves without a rest: eightfold by its autoencoder, twice by itself."""


class BuildFirstFrames(Builder):
    """Edits first frames by instruction with several guidance scales, and keeps what a judge picks.

    The first stage of InsViE's pipeline (paper 3.1 and 7.2): six candidates of guidance 3 to 8, since nearly all best
    ones lie there (7.4), made in one batch from one noise; a vision-language judge picks the best by adherence,
    integration, artifacts and subject, or rejects all. Then new noise is tried, at most `max_attempts` times. A draft
    without a verdict is rejected with the judge's reason. While the judge thinks, the next frames are edited.

    Drafts need an instruction; a source of one frame is an image. The result is `edited_frame` at the source's size and
    the score `edit_guidance_scale`, so that the histogram of 7.4 is a query over the manifest.

    Args:
        output: Shard folder.
        editor: Who edits.
        judge: Who picks.
        guidance_scales: Of the text, one candidate each; from 1, and not all of them 1.
        size: Height and width in px; frames are edited in their own aspect, with as many pixels as that (sides are
            multiples of 32), and shown to the judge so. None leaves frames as they are.
        max_attempts: How often a frame is edited before it is given up, each time from other noise.
        seed: Of the noise, with the key and the number of the attempt.
        shard_size: As of `Builder`.
        max_bad_rate: As of `Builder`.

    Raises:
        InputError: One of them is not legal.
    """

    takes = Draft
    elsewhere = Builder.elsewhere | {"editor", "judge"}

    def __init__(
        self,
        output: Path,
        editor: ImageEditor,
        judge: VLMJudge,
        guidance_scales: tuple[float, ...] = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0),
        size: tuple[int, int] | None = (576, 1024),
        max_attempts: int = 3,
        seed: int = 0,
        shard_size: int = 256,
        max_bad_rate: float = 0.5,
    ) -> None:
        super().__init__(output, shard_size, max_bad_rate)
        if (
            not guidance_scales
            or not all(1 <= scale < math.inf for scale in guidance_scales)
            or max(guidance_scales) == 1
        ):
            raise InputError(
                f"guidance_scales are {list(guidance_scales)}; legal are finite numbers from 1, one of them above 1"
            )
        if size is not None and min(size) < SIDE_MULTIPLE:
            raise InputError(f"size is {size}; height and width are at least {SIDE_MULTIPLE} px")
        if max_attempts < 1:
            raise InputError(f"max_attempts is {max_attempts}; a frame is edited at least once")
        self.editor, self.judge = editor, judge
        self.guidance_scales, self.size = tuple(guidance_scales), size
        self.max_attempts, self.seed = max_attempts, seed

    @property
    def settings(self) -> dict[str, Any]:
        """As of `Builder`; of editor and judge, what changes their answers."""
        judge = {**self.judge.model.identity, "prompt": SCREENING.name, "version": SCREENING.version}
        return {**super().settings, "editor": dict(self.editor.identity), "judge": judge}

    @property
    def spent(self) -> Spent:
        """What the judge has used up in this process."""
        return self.judge.spent

    def configure_model(self) -> None:
        """Load the editor, and reach or load the judge, so that a job stops here if either is absent."""
        self.editor.load(self.device if self._trainer is None else self.trainer.strategy.root_device)
        self.judge.model.check()

    def make(self, drafts: Sequence[Draft]) -> list[Built]:
        """Each draft with its edited frame, or rejected.

        Raises:
            Unavailable: The judge's server answers no more.
        """
        self.editor.load(self.device)
        made: dict[str, Built] = {}
        trials: dict[str, list[dict[str, Any]]] = {draft.key: [] for draft in drafts}
        pending = [draft for draft in drafts if draft.instruction]
        for attempt in range(self.max_attempts):
            again = []
            for draft, seed, candidates, verdict in self._screened(pending, attempt):
                trials[draft.key].append({"seed": seed, **verdict.facts})
                told = replace(
                    draft, lineage={**draft.lineage, type(self).__name__: self._made_of(draft, trials[draft.key])}
                )
                if verdict.answer is None:
                    made[draft.key] = Rejected(told, f"the judge gave no verdict on the first frame: {verdict.missing}")
                elif verdict.answer != NONE_GOOD:
                    made[draft.key] = self._with_edit(told, candidates[verdict.answer], verdict.answer)
                elif attempt + 1 < self.max_attempts:
                    again.append(draft)
                else:
                    reason = f"the judge rejected all edits of the first frame in {self.max_attempts} attempts"
                    made[draft.key] = Rejected(told, reason)
            pending = again
        return [
            made.get(draft.key, Rejected(draft, "it has no instruction to edit its first frame by")) for draft in drafts
        ]

    def _screened(self, drafts: Sequence[Draft], attempt: int) -> Iterator[tuple[Draft, int, np.ndarray, Verdict[int]]]:
        """Each draft in order, with the seed of its candidates, these, and the verdict on them."""
        seeds = [seed_of(self.seed, attempt, draft.key) for draft in drafts]
        waiting: deque[np.ndarray] = deque()

        def questions() -> Iterator[Question]:
            for draft, seed in zip(drafts, seeds, strict=True):
                frame = self._working_frame(draft)
                waiting.append(self.editor.edit(frame, draft.instruction, self.guidance_scales, seed))
                yield Question(SCREENING, draft.instruction, frame[None], waiting[-1], draft.edited_caption)

        for draft, seed, verdict in zip(drafts, seeds, self.judge.ask_all(questions()), strict=True):
            yield draft, seed, waiting.popleft(), verdict

    def _working_frame(self, draft: Draft) -> np.ndarray:
        first = Clip(draft.source.frames[:1], draft.source.fps)
        size = first.size if self.size is None else working_size(first.size, self.size)
        return fit_clip(first, size, "stretch").frames[0]

    def _made_of(self, draft: Draft, trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """What `settings` do not tell already."""
        size = draft.source.size if self.size is None else working_size(draft.source.size, self.size)
        return {"size": list(size), "attempts": list(trials)}

    def _with_edit(self, draft: Draft, candidate: np.ndarray, number: int) -> Draft:
        edited = fit_clip(Clip(candidate[None], draft.source.fps), draft.source.size, "stretch").frames[0]
        scale = self.guidance_scales[number]
        return replace(draft, edited_frame=edited, scores={**draft.scores, "edit_guidance_scale": scale})


def working_size(size: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the same aspect as `size` and the same area as `wanted`, to the nearest multiples of 32."""
    scale = math.sqrt(math.prod(wanted) / math.prod(size))
    height, width = (max(1, round(side * scale / SIDE_MULTIPLE)) * SIDE_MULTIPLE for side in size)
    return height, width
