"""A writer of the toy world: it trusts the caption that comes with a scene, and its grammar has the edits."""

from __future__ import annotations

import json
import random
import re
from typing import Any

from insvie_lightning.judges.asked import Asked
from insvie_lightning.judges.reply import Reply
from insvie_lightning.judges.writing import TextRequest
from insvie_lightning.toy.scene import BACKGROUNDS, COLOURS, SHAPES

_NAME = rf"(?:{'|'.join(COLOURS)}) (?:{'|'.join(SHAPES)})"
_CAPTION = re.compile(rf'"({_NAME}(?: and {_NAME})*) on ({"|".join(BACKGROUNDS)})"')


class ToyWriter:
    """Answers what `BuildCaptions` asks about toy scenes whose caption is known (column `caption` of `RawVideos`).

    It stands where a vision-language model does (`judges.judge.VisionLanguageModel`). The toy CLIP cannot tell shapes
    well enough to caption scenes, so that a caption is repeated and never found. Edits are of the types `recolour`,
    `remove` and `background`, drawn by the text of the request.
    """

    @property
    def identity(self) -> dict[str, Any]:
        """Nothing but its name: it has no weights."""
        return {"model": "toy-writer"}

    def check(self) -> None:
        """Nothing can be absent."""

    def reply(self, question: Asked[Any], earlier: tuple[tuple[str, str], ...] = ()) -> Reply:
        """Repeat a caption, or think up an edit of it; a score, and a scene without a caption, are refused."""
        if not isinstance(question, TextRequest):
            return Reply("", fault="the toy writer answers by texts, and was asked for a score")
        known = _CAPTION.findall(question.request)  # the last one is the scene's own, others are of its frames
        if not known:
            return Reply("", fault="the toy writer knows scenes by captions such as 'red circle on night' only")
        shapes, background = known[-1][0].split(" and "), known[-1][1]
        kind = question.name.removeprefix("think_up_")
        if kind == question.name:
            return Reply(json.dumps({"caption": _caption(shapes, background)}))
        draw = random.Random(question.request)  # equal for an equal text, on every machine
        target, background_after, shapes_after = draw.choice(shapes), background, shapes
        colour, shape = target.split()
        if kind == "background":
            background_after = draw.choice([name for name in BACKGROUNDS if name != background])
            instruction = f"change the background to {background_after}"
        elif kind == "remove":
            shapes_after = [name for name in shapes if name != target]
            instruction = f"remove the {target}"
        elif kind == "recolour":
            other = draw.choice([name for name in COLOURS if name != colour and f"{name} {shape}" not in shapes])
            shapes_after = [f"{other} {shape}" if name == target else name for name in shapes]
            instruction = f"make the {target} {other}"
        else:
            return Reply("", fault=f"the toy writer thinks up no edit of the type {kind}")
        edited = _caption(shapes_after, background_after)
        return Reply(json.dumps({"instruction": instruction, "edited_caption": edited}))


def _caption(shapes: list[str], background: str) -> str:
    return f"{' and '.join(shapes) or 'nothing'} on {background}"
