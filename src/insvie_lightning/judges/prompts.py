"""What judges are asked: the criteria of InsViE's supplement (7.2 and 8) in this project's own words.

The paper asks for a Python dictionary; these prompts ask for JSON, which servers can enforce. Whoever changes a word
gives the prompt a new `version`: answers to the old one stay in the cache under the old version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from insvie_lightning.judges.cache import hash_frames
from insvie_lightning.judges.reply import parse_reply, reply_schema

NONE_GOOD = -1
"""The answer that rejects all candidates."""

_CRITERIA = {
    "adherence": "Adherence: the edit does what the instruction says, all of it and nothing besides.",
    "integration": "Integration: what was changed blends into its surroundings; colour, tone and balance fit.",
    "artifacts": "Artifacts: the pictures look natural, without blur, seams, flicker or broken shapes.",
    "subject": "Subject: people and things keep their identity and shape, and light and shadow agree with them.",
    "composition": "Composition: the layout of the picture holds together from frame to frame.",
    "content": "Content: what the instruction does not mention is as in the source, in every frame.",
}

_SCREENING = ("adherence", "integration", "artifacts", "subject")
_FILTERING = (*_SCREENING, "composition", "content")
_TEMPORAL = ("composition", "content")
_TEXT = ("adherence", "integration")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One kind of question.

    Attributes:
        name: The aspect that is judged.
        version: Changes with the wording.
        criteria: What the judge is told to look at, one line each.
        request: What it is asked; `{instruction}`, `{source}`, `{edited}` and `{last}` stand for the instruction, the
            numbers of source and edited frames, and the number of the last edited one.
        key: The reply's only key.
        scale: The legal answers; None are the numbers of the edited frames, from 0, and `NONE_GOOD`.
    """

    name: str
    version: str
    criteria: tuple[str, ...]
    request: str
    key: str = "score"
    scale: tuple[int, ...] | None = (1, 2, 3, 4, 5)

    @property
    def system(self) -> str:
        """The system message."""
        lines = "\n".join(f"- {criterion}" for criterion in self.criteria)
        return f"You are a strict and fair judge of edited pictures and videos. Look at these points only:\n{lines}"


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt about one edit.

    Attributes:
        prompt: What is asked.
        instruction: The sentence by which the edit was made.
        source: Frames before the edit, N 3 H W, uint8.
        edited: Frames after it, or candidates of one frame, M 3 H W, uint8.
        caption: What the edit should show, for models that compare pictures with captions; the others are not told.
    """

    prompt: Prompt
    instruction: str
    source: np.ndarray
    edited: np.ndarray
    caption: str = ""

    @property
    def legal(self) -> tuple[int, ...]:
        """The legal answers."""
        return (NONE_GOOD, *range(len(self.edited))) if self.prompt.scale is None else self.prompt.scale

    @property
    def system(self) -> str:
        """See `Asked`."""
        return self.prompt.system

    @property
    def content(self) -> tuple[str | np.ndarray, ...]:
        """The user message: texts, and frames 3 H W."""
        request = self.prompt.request.format(
            instruction=self.instruction, source=len(self.source), edited=len(self.edited), last=len(self.edited) - 1
        )
        return (f"{request} {self.form}", "Source:", *self.source, "Edited:", *self.edited)

    @property
    def form(self) -> str:
        """The sentence that says what a reply looks like."""
        middle = self.legal[len(self.legal) // 2]
        return f'Reply with one JSON object and nothing else, for example {{"{self.prompt.key}": {middle}}}'

    @property
    def schema(self) -> dict[str, Any]:
        """See `Asked`."""
        return reply_schema(self.prompt.key, self.legal)

    @property
    def facts(self) -> dict[str, Any]:
        """See `Asked`; frames are told apart by SHA-256 of their shape and pixels."""
        return {
            "prompt": self.prompt.name,
            "version": self.prompt.version,
            "instruction": self.instruction,
            "source_sha256": hash_frames(self.source),
            "edited_sha256": hash_frames(self.edited),
            **({"caption": self.caption} if self.caption else {}),
        }

    def read(self, text: str) -> int:
        """See `Asked`."""
        return parse_reply(text, self.prompt.key, self.legal)


def _video_request(ask: str) -> str:
    return (
        "First come {source} frames of a source video, then {edited} frames of its edited version, both in the order "
        'of time. The instruction of the edit: "{instruction}"\n' + ask + " Answer with a whole number from 1 to 5; "
    )


_OVERALL = _video_request("How good is the edit, by all points together?") + "5 is a faultless edit."


def _lines(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_CRITERIA[name] for name in names)


TEMPORAL = Prompt(
    "temporal",
    "1",
    _lines(_TEMPORAL),
    _video_request("How consistent is the edited video over time, and with the source?") + "5 is perfectly consistent.",
)
"""Temporal consistency at test, all frames of both videos [supplement 8]."""

TEXT = Prompt(
    "text",
    "1",
    _lines(_TEXT),
    _video_request("How well does the edited video follow the instruction?") + "5 follows it to the letter.",
)
"""Textual alignment at test, all frames of both videos [supplement 8]."""

QUALITY = Prompt("quality", "1", _lines(_FILTERING), _OVERALL)
"""Quality at test, all frames of both videos: the prompt of filtering [supplement 8]."""

FILTERING = Prompt("filtering", "1", _lines(_FILTERING), _OVERALL)
"""The second stage of building data: three frames of the source and of the edit, six criteria [supplement 7.2]."""

SCREENING = Prompt(
    "screening",
    "2",
    _lines(_SCREENING),
    "First comes a source picture, then {edited} candidates of its edited version, numbered from 0 to {last}. "
    'The instruction of the edit: "{instruction}"\n'
    "Which candidate does best what is asked and looks the most natural? Answer -1 if none is fit to be shown: none "
    "does what is asked, or all are broken.",
    key="best_image",
    scale=None,
)
"""The first stage of building data: one source frame and six candidates [supplement 7.2].

The paper's prompt announces five candidates and numbers six, 0 to 5; this one says how many there are. The paper's
judge has to choose one; this one may reject all, and what is done about it is left to who asks.
"""


def pick_frames(frames: np.ndarray, count: int | None) -> np.ndarray:
    """Return `count` of F frames, evenly spread from the first to the last; all for None, or where there are fewer.

    The paper takes three for filtering, and does not say which (3.1).
    """
    if count is None or count >= len(frames):
        return frames
    return frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]
