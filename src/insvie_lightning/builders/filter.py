"""The second filter of a data set: a judge's score and the end-point error of optical flow, both with a threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from insvie_lightning.batch import Rejected, Triplet
from insvie_lightning.builders.builder import Builder, Built
from insvie_lightning.errors import InputError
from insvie_lightning.judges import FILTERING, Question, Verdict, VLMJudge, pick_frames
from insvie_lightning.metrics.epe import EPE
from insvie_lightning.metrics.flow import BackendName
from insvie_lightning.metrics.per_sample import EditedSample, PerSample


class FilterTriplets(Builder[Triplet]):
    """Scores triplets by a vision-language judge and by optical flow, and rejects those below or above a threshold.

    The second stage of InsViE's pipeline (paper 3.1 and 7.2): a judge sees three frames of the source and three of the
    edit and scores from 1 to 5 by six criteria; the end-point error between the flows of both clips says whether the
    edit moves as its source does. The paper does not give its thresholds.

    Every triplet gets the scores `judge` and `epe_px`, the rejected ones too, and `lineage["filter"]` says who judged,
    what was replied, and whose flow it was. A triplet without a verdict, or without a finite error, is rejected.

    Args:
        output: Shard folder.
        judge: Who scores; as many questions as its `concurrency` are asked at the same time.
        min_judge: Least score that is accepted, 1 to 5.
        max_epe_px: Largest end-point error that is accepted, in pixels of the clips' own size; `.inf` accepts all.
        flow: Whose flow: `dis` (OpenCV, no weights), `raft` (torchvision) or `gmflow` (the paper's). Their errors are
            not comparable.
        flow_weights: A local file; `gmflow` needs one.
        frames: Frames of each clip that the judge sees, evenly spread.
        metrics: Further scores of each triplet, such as `ClipText`; one that lacks what it needs (a caption) is left
            out, and `lineage["filter"]` says why.
        shard_size: As of `Builder`.
        max_bad_rate: As of `Builder`.

    Raises:
        InputError: A threshold or `frames` is not legal, or flow and weights do not go together.
    """

    takes = Triplet
    step = "filter"

    def __init__(
        self,
        output: Path,
        judge: VLMJudge,
        min_judge: float = 3.0,
        max_epe_px: float = 5.0,
        flow: BackendName = "dis",
        flow_weights: str | None = None,
        frames: int = 3,
        metrics: list[PerSample] | None = None,
        shard_size: int = 256,
        max_bad_rate: float = 0.5,
    ) -> None:
        super().__init__(output, shard_size, max_bad_rate)
        if not 1 <= min_judge <= 5:
            raise InputError(f"min_judge is {min_judge:g}; a judge scores from 1 to 5")
        if not max_epe_px > 0:
            raise InputError(f"max_epe_px is {max_epe_px:g}; legal are pixels above 0, and .inf to accept all")
        if frames < 1:
            raise InputError(f"a judge is shown at least one frame of each clip, not {frames}")
        self.judge, self.min_judge, self.max_epe_px, self.frames = judge, min_judge, max_epe_px, frames
        self.flow, self.flow_weights = flow, flow_weights
        self.epe = EPE(flow, flow_weights)
        self.metrics = list(metrics or ())

    @property
    def settings(self) -> dict[str, Any]:
        """As of `Builder`; of the judge it counts who answers what, not how many questions are asked at a time."""
        return {**super().settings, "judge": self._judged, "max_epe_px": self._limit}

    def configure_model(self) -> None:
        """Reach or load the judge, and load the networks, so that a job stops here if one is absent."""
        self.judge.model.check()
        for metric in (self.epe, *self.metrics):
            metric.prepare()

    def make(self, drafts: Sequence[Triplet]) -> list[Built]:
        """Each triplet with its scores, or rejected.

        Raises:
            Unavailable: The judge's server answers no more.
        """
        made: list[Built] = []
        fit = [triplet for triplet in drafts if not _unfit(triplet)]
        # While the flow of one triplet is computed, the next ones are judged.
        verdicts = self.judge.ask_all(map(self._question, fit))
        for triplet in drafts:
            reason = _unfit(triplet)
            made.append(Rejected(triplet, reason) if reason else self._decide(triplet, next(verdicts)))
        return made

    def _question(self, triplet: Triplet) -> Question:
        source, edited = (pick_frames(clip.frames, self.frames) for clip in (triplet.source, triplet.edited))
        return Question(FILTERING, triplet.instruction, source, edited, triplet.edited_caption)

    @torch.inference_mode()
    def _decide(self, triplet: Triplet, verdict: Verdict[int]) -> Built:
        source, edited = (torch.from_numpy(c.frames).to(self.device) for c in (triplet.source, triplet.edited))
        texts = {name: getattr(triplet, name) for name in ("instruction", "source_caption", "edited_caption")}
        sample = EditedSample(triplet.key, source, edited, **texts)
        (epe_px,) = self.epe.score(sample)
        scores = {"judge": math.nan if verdict.answer is None else float(verdict.answer), "epe_px": epe_px}
        missing: dict[str, str] = {}
        for metric in self.metrics:
            try:
                scores |= dict(zip(metric.names, metric.score(sample), strict=True))
            except InputError as error:
                missing |= dict.fromkeys(metric.names, str(error))
        told = replace(
            triplet,
            scores={**triplet.scores, **scores},
            lineage={**triplet.lineage, self.step: self._lineage(verdict, missing)},
        )
        reasons = [*self._of_judge(verdict), *self._of_flow(epe_px)]
        return Rejected(told, "; ".join(reasons)) if reasons else told

    def _of_judge(self, verdict: Verdict[int]) -> list[str]:
        if verdict.answer is None:
            return [f"no verdict: {verdict.missing}"]
        return [f"judge {verdict.answer} is below {self.min_judge:g}"] if verdict.answer < self.min_judge else []

    def _of_flow(self, epe_px: float) -> list[str]:
        if not math.isfinite(epe_px):
            return [f"epe_px is {epe_px}, no finite number"]
        return [f"epe_px {epe_px:.2f} is above {self.max_epe_px:g}"] if epe_px > self.max_epe_px else []

    def _lineage(self, verdict: Verdict[int], missing: dict[str, str]) -> dict[str, Any]:
        said = {"reason": verdict.reason, "replies": list(verdict.replies)}
        made = {
            "judge": {**self._judged, "frames": self.frames, **said},
            "flow": {"backend": self.flow, "weights": self.flow_weights},
            "min_judge": self.min_judge,
            "max_epe_px": self._limit,
        }
        return {**made, "missing": missing} if missing else made

    @property
    def _judged(self) -> dict[str, Any]:
        return {**self.judge.model.identity, "prompt": FILTERING.name, "version": FILTERING.version}

    @property
    def _limit(self) -> float | str:
        """`max_epe_px` in what JSON can say."""
        return self.max_epe_px if math.isfinite(self.max_epe_px) else "inf"


def _unfit(triplet: Triplet) -> str:
    """Why a triplet cannot be scored at all; empty if it can."""
    if not triplet.instruction.strip():
        return "it has no instruction, by which a judge scores"
    source, edited = triplet.source.frames.shape, triplet.edited.frames.shape
    if source != edited:
        return f"source and edited clip differ in shape F 3 H W: {source} and {edited}"
    return "" if len(triplet.source) > 1 else "a clip of one frame has no flow"
