"""Caption videos, and think up edits of them, by a vision-language model."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from insvie_lightning.batch import Draft, Rejected
from insvie_lightning.builders.builder import Builder, Built
from insvie_lightning.builders.drafts import seed_of
from insvie_lightning.errors import InputError, nearest
from insvie_lightning.judges import TextRequest, Verdict, VLMJudge, pick_frames
from insvie_lightning.judges.captions import EDITS, VERSION, describe_frame, sum_up, think_up
from insvie_lightning.judges.writing import clean

LONGEST_CAPTION = 2000
"""So many characters of a caption that came with a video are read; some are essays."""


Talk = Generator[list[TextRequest], list[Verdict[dict[str, str]]], list[Built]]


class BuildCaptions(Builder):
    """Captions each source and gives it several instructions, by a vision-language model.

    InsViE's supplement 7.1: captions of three key frames, summed up to one, from which instructions with in-context
    examples are made. A draft becomes drafts `KEY-0`, `KEY-1`, ... with instruction, captions of source and edit, and
    edit type. The types are drawn by the key in proportion to their weights, as evenly as can be over the instructions
    of a video and over all videos. Replies that cannot be read, and instructions that a video has already, are rejected
    with the reason.

    Args:
        output: Shard folder.
        writer: Who writes; the class that judges asks for texts, too.
        instructions_per_video: Instructions that are asked for.
        edit_types: Edit type -> weight, not all 0; legal types are those of `judges.captions.EDITS`.
        frames: Key frames, evenly spread from the first to the last.
        seed: Of the draw.
        shard_size: As of `Builder`; counts sources.

    Raises:
        InputError: One of them is not legal.
    """

    def __init__(
        self,
        output: Path,
        writer: VLMJudge,
        instructions_per_video: int = 4,
        edit_types: Mapping[str, float] = dict.fromkeys(EDITS, 1.0),
        frames: int = 3,
        seed: int = 0,
        shard_size: int = 256,
    ) -> None:
        super().__init__(output, shard_size)
        if frames < 1 or instructions_per_video < 1:
            raise InputError(
                f"frames is {frames}, instructions_per_video {instructions_per_video}; both are at least 1"
            )
        for name, weight in edit_types.items():
            if name not in EDITS:
                raise InputError(f"edit_types: no type {name!r}; legal are {', '.join(EDITS)}{nearest(name, EDITS)}")
            if not 0 <= weight < float("inf"):
                raise InputError(f"edit_types: the weight of {name} is {weight}; legal are finite numbers from 0")
        if not any(edit_types.values()):
            raise InputError("edit_types: one weight at least is above 0")
        self.writer, self.instructions_per_video = writer, instructions_per_video
        self.edit_types, self.frames, self.seed = dict(edit_types), frames, seed

    def configure_model(self) -> None:
        """Reach or load the writer, so that a job stops here if it is absent."""
        self.writer.model.check()

    def make(self, drafts: Sequence[Draft]) -> list[Built]:
        """`instructions_per_video` drafts of each, some rejected; or the draft itself, rejected for want of a caption.

        Raises:
            Unavailable: The writer's server answers no more.
        """
        talks = {draft.key: self._write(draft) for draft in drafts}
        asked = {key: next(talk) for key, talk in talks.items()}
        made: dict[str, list[Built]] = {}
        while asked:  # all drafts ask at the same time, as many questions as the writer takes
            verdicts = iter(list(self.writer.ask_all(chain.from_iterable(asked.values()))))
            for key, requests in list(asked.items()):
                try:
                    asked[key] = talks[key].send(list(islice(verdicts, len(requests))))
                except StopIteration as end:
                    made[key] = end.value
                    del asked[key]
        return [built for draft in drafts for built in made[draft.key]]

    def _write(self, draft: Draft) -> Talk:
        """Caption one source, and think up its edits: yields what is to be asked, and is sent the verdicts."""
        initial = clean(draft.source_caption)[:LONGEST_CAPTION]
        described = yield [describe_frame(frame, initial) for frame in pick_frames(draft.source.frames, self.frames)]
        told: dict[str, Any] = {"writer": {**self.writer.model.identity, "prompts": VERSION}}
        told |= {"initial_caption": initial, "frame_captions": [verdict.answer for verdict in described]}
        captions = [verdict.answer["caption"] for verdict in described if verdict.answer]
        if len(captions) < len(described):
            reason = next(verdict.reason for verdict in described if not verdict.answer)
            return [self._rejected(draft, told, described, f"a key frame has no caption: {reason}")]
        (summed,) = yield [sum_up(captions, initial)]
        if not summed.answer:
            return [self._rejected(draft, told, [summed], f"the source has no caption: {summed.reason}")]
        caption = summed.answer["caption"]
        seed = seed_of(self.seed, draft.key)
        types = draw_types(self.edit_types, self.instructions_per_video, seed)
        verdicts = yield [think_up(caption, kind, types[: i + 1].count(kind)) for i, kind in enumerate(types)]
        built: list[Built] = []
        taken = {_bare(caption): "the caption"}
        for number, (kind, verdict) in enumerate(zip(types, verdicts, strict=True)):
            key = f"{draft.key}-{number}"
            edit = replace(draft, key=key, source_caption=caption, edit_type=kind)
            lineage = told | {"caption_replies": list(summed.replies), "seed": seed}
            if not verdict.answer:
                reason = f"no instruction to {kind}: {verdict.reason}"
                built.append(self._rejected(edit, lineage, [verdict], reason))
                continue
            texts = verdict.answer
            edit = replace(edit, instruction=texts["instruction"], edited_caption=texts["edited_caption"])
            if same := taken.get(_bare(edit.instruction)) or taken.get(_bare(edit.edited_caption)):
                reason = f"the instruction or its caption is the same as {same}"
                built.append(self._rejected(edit, lineage, [verdict], reason))
                continue
            taken[_bare(edit.instruction)] = f"that of {key}"
            built.append(self._told(edit, lineage, [verdict]))
        return built

    def _rejected(self, draft: Draft, told: dict[str, Any], verdicts: Sequence[Verdict[Any]], reason: str) -> Rejected:
        return Rejected(self._told(draft, told, verdicts), reason)

    def _told(self, draft: Draft, told: dict[str, Any], verdicts: Sequence[Verdict[Any]]) -> Draft:
        made = told | {"replies": [list(verdict.replies) for verdict in verdicts]}
        return replace(draft, lineage={**draft.lineage, type(self).__name__: made})


def draw_types(weights: Mapping[str, float], count: int, seed: int) -> list[str]:
    """Draw `count` names in proportion to their weights, each as often as its share of `count`, rounded up or down.

    Systematic sampling: points at equal distances on the weights laid end to end in random order, from a random start.
    """
    rng = np.random.default_rng(seed)
    names = rng.permutation([name for name, weight in weights.items() if weight > 0]).tolist()
    ends = np.cumsum([weights[name] for name in names])
    points = (rng.random() + np.arange(count)) / count * ends[-1]
    places = np.minimum(np.searchsorted(ends, points, side="right"), len(names) - 1)
    return [names[place] for place in rng.permutation(places)]


def _bare(text: str) -> str:
    """A text without what does not matter to its meaning."""
    return re.sub(r"\W+", " ", text.casefold()).strip()
