"""Caption videos, and think up edits of them, by a vision-language model."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from insvie_lightning.batch import Draft, Rejected
from insvie_lightning.builders.builder import Builder, Built
from insvie_lightning.builders.drafts import seed_of
from insvie_lightning.errors import InputError, nearest
from insvie_lightning.judges import Spent, TextRequest, Verdict, VLMJudge, pick_frames
from insvie_lightning.judges.captions import EDITS, VERSION, describe_frame, sum_up, think_up
from insvie_lightning.judges.writing import clean

LONGEST_CAPTION = 2000
"""So many characters of a caption that came with a video are read; some are essays."""


Result = TypeVar("Result")
Talk = Generator[list[TextRequest], list[Verdict[dict[str, str]]], Result]


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
        max_bad_rate: As of `Builder`.

    Raises:
        InputError: One of them is not legal.
    """

    elsewhere = Builder.elsewhere | {"writer"}

    def __init__(
        self,
        output: Path,
        writer: VLMJudge,
        instructions_per_video: int = 4,
        edit_types: Mapping[str, float] = dict.fromkeys(EDITS, 1.0),
        frames: int = 3,
        seed: int = 0,
        shard_size: int = 256,
        max_bad_rate: float = 0.5,
    ) -> None:
        super().__init__(output, shard_size, max_bad_rate)
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

    @property
    def settings(self) -> dict[str, Any]:
        """As of `Builder`; of the writer, what changes its answers."""
        return {**super().settings, "writer": {**self.writer.model.identity, "prompts": VERSION}}

    @property
    def spent(self) -> Spent:
        """What the writer has used up in this process."""
        return self.writer.spent

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

    def _write(self, draft: Draft) -> Talk[list[Built]]:
        """Caption one source, and think up its edits: yields what is to be asked, and is sent the verdicts."""
        captioned = yield from self._caption(draft)
        if isinstance(captioned, Rejected):
            return [captioned]
        return (yield from self._think_up(captioned))

    def _caption(self, draft: Draft) -> Talk[Draft | Rejected]:
        initial = clean(draft.source_caption)[:LONGEST_CAPTION]
        described = yield [describe_frame(frame, initial) for frame in pick_frames(draft.source.frames, self.frames)]
        draft = self._tell(draft, initial_caption=initial, frames=[verdict.facts for verdict in described])
        captions = [verdict.answer["caption"] for verdict in described if verdict.answer]
        if len(captions) < len(described):
            missing = next(verdict.missing for verdict in described if not verdict.answer)
            return Rejected(draft, f"the writer gave a key frame no caption: {missing}")
        if len(captions) == 1 and not initial:
            return replace(draft, source_caption=captions[0])
        (summed,) = yield [sum_up(captions, initial)]
        draft = self._tell(draft, caption=summed.facts)
        if not summed.answer:
            return Rejected(draft, f"the writer gave the source no caption: {summed.missing}")
        return replace(draft, source_caption=summed.answer["caption"])

    def _think_up(self, draft: Draft) -> Talk[list[Built]]:
        caption = draft.source_caption
        types = draw_types(self.edit_types, self.instructions_per_video, seed_of(self.seed, draft.key))
        verdicts = yield [think_up(caption, kind, types[: i + 1].count(kind)) for i, kind in enumerate(types)]
        built: list[Built] = []
        taken: set[str] = set()
        for number, (kind, verdict) in enumerate(zip(types, verdicts, strict=True)):
            edit = replace(draft, key=f"{draft.key}-{number}", edit_type=kind)
            edit = self._tell(edit, instruction=verdict.facts)
            if not verdict.answer:
                built.append(Rejected(edit, f"the writer gave no instruction: {verdict.missing}"))
                continue
            texts = verdict.answer
            edit = replace(edit, instruction=texts["instruction"], edited_caption=texts["edited_caption"])
            if _bare(edit.instruction) in taken:
                built.append(Rejected(edit, "the source has this instruction already"))
            elif _bare(edit.edited_caption) == _bare(caption):
                built.append(Rejected(edit, "the caption of the edit is that of the source"))
            else:
                built.append(edit)
            taken.add(_bare(edit.instruction))
        return built

    def _tell(self, draft: Draft, **facts: Any) -> Draft:
        step = type(self).__name__
        return replace(draft, lineage={**draft.lineage, step: {**draft.lineage.get(step, {}), **facts}})


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
