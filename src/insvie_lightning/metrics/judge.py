"""Scores of a vision-language judge on InsViE's three aspects."""

from __future__ import annotations

import math
import warnings
from dataclasses import astuple, fields, replace

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from insvie_lightning.errors import InputError
from insvie_lightning.judges import QUALITY, TEMPORAL, TEXT, Question, Spent, Verdict, VLMJudge, pick_frames
from insvie_lightning.judges.reply import Unavailable
from insvie_lightning.metrics.per_sample import EditedSample, PerSample

PROMPTS = (TEMPORAL, TEXT, QUALITY)


class JudgeScores(PerSample):
    """Whole numbers from 1 to 5 on temporal consistency, textual alignment and quality [InsViE supplement 8].

    The judge sees the frames of the source, then those of the edit, and the instruction. A score is nan where it has no
    readable answer; `verdicts` has the reasons and the raw replies. When nobody answers any more, a warning says so
    once and the rest of the scores are missing, so that a server that is down stops no training; answers that are in
    the cache still count, and `reset` tries the server again.

    Scores of different models, or versions of the prompts, are not comparable.

    Args:
        judge: Who answers.
        frames: Frames of each clip, evenly spread; None shows all, as the paper does at test.
    """

    names = tuple(f"judge_{prompt.name}" for prompt in PROMPTS)
    higher_is_better = True
    used: Tensor

    def __init__(self, judge: VLMJudge, frames: int | None = None) -> None:
        super().__init__()
        if frames is not None and frames < 1:
            raise InputError(f"a judge is shown at least one frame of each clip, not {frames}; leave it out for all")
        self.judge = judge
        self.frames = frames
        self.add_state("used", torch.zeros(len(fields(Spent)), dtype=torch.float64), dist_reduce_fx="sum")
        self.verdicts: dict[str, tuple[Verdict, ...]] = {}
        """Of each sample that this process has scored since the last reset, in the order of `names`."""
        self._unavailable = ""

    def prepare(self) -> None:
        """Reach the server, or load the model."""
        self.judge.model.check()

    def score(self, sample: EditedSample) -> tuple[float, ...]:
        """Three scores of an edit.

        Raises:
            InputError: The sample has no instruction.
        """
        if not sample.instruction:
            raise InputError(f"sample {sample.key!r} has no instruction, by which a judge scores")
        source, edited = (pick_frames(clip.cpu().numpy(), self.frames) for clip in (sample.source, sample.edited))
        questions = [Question(prompt, sample.instruction, source, edited) for prompt in PROMPTS]
        before = self.judge.spent
        verdicts = self._verdicts(questions)
        used = [now - then for now, then in zip(astuple(self.judge.spent), astuple(before), strict=True)]
        self.used = self.used + torch.tensor(used, dtype=torch.float64, device=self.device)
        self.verdicts[sample.key] = verdicts
        return tuple(math.nan if verdict.answer is None else float(verdict.answer) for verdict in verdicts)

    def compute(self) -> dict[str, Tensor]:
        """The means, as every metric's; what all processes have spent since the last reset is said beside."""
        *counts, usd, saved_usd = self.used.tolist()
        if any(counts):
            rank_zero_info(f"judge: {replace(Spent(*map(int, counts)), usd=usd, saved_usd=saved_usd)}")
        return super().compute()

    def reset(self) -> None:
        """Forget all samples, and that the server was down."""
        super().reset()
        self.verdicts = {}
        self._unavailable = ""

    def _verdicts(self, questions: list[Question]) -> tuple[Verdict, ...]:
        if not self._unavailable:
            try:
                return tuple(self.judge.ask_all(questions))
            except Unavailable as error:
                self._unavailable = str(error)
                warnings.warn(f"scores of the judge are missing from here on: {error}", stacklevel=2)
        return tuple(self.judge.recall(question) or Verdict(None, self._unavailable) for question in questions)
