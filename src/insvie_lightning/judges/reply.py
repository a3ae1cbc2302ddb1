"""What a judge replies, and how its answer is found.

A server may accept a schema and ignore it, so that a reply is always read, as leniently as can be without guessing.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from insvie_lightning.errors import InputError

LONGEST = 20_000
"""So many characters of a reply are read, the last ones."""
CURLY_QUOTES = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")
_WHOLE = re.compile(r"[+-]?\d{1,6}(\.0+)?")


class Unavailable(InputError):
    """Nobody answers: no server, no key, no quota; it is the same for every question, so a job stops here."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said to one request.

    Attributes:
        text: Raw.
        prompt_tokens: Of the request, pictures included; 0 where a server does not say.
        completion_tokens: Of the reply; 0 where a server does not say.
        cut: The reply was longer than allowed.
        fault: Why there is no reply, when it is this question's fault; else empty.
    """

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cut: bool = False
    fault: str = ""

    def __post_init__(self) -> None:
        for name in ("text", "fault"):
            object.__setattr__(self, name, mend(getattr(self, name)))


def reply_schema(key: str, legal: Sequence[int]) -> dict[str, Any]:
    """The JSON schema of a reply with one key: an enumeration, since servers differ in what limits they know."""
    return {
        "type": "object",
        "properties": {key: {"type": "integer", "enum": list(legal)}},
        "required": [key],
        "additionalProperties": False,
    }


def parse_reply(text: str, key: str, legal: Sequence[int]) -> int:
    """Find the answer in a reply: as JSON, as a Python dictionary, or else by the key's name.

    What stands before a closing `</think>` is not read. Where several answers are found they must agree.

    Raises:
        InputError: There is none, or it is not legal, or there are several; the message says which.
    """
    text = text[-LONGEST:].rpartition("</think>")[2].translate(CURLY_QUOTES).strip()
    found = list(_in_objects(text, key)) or _by_name(text, key, legal[-1]) or ([text] if _WHOLE.fullmatch(text) else [])
    if not found:
        raise InputError(f"the reply {shorten(text)} has no {key!r}")
    answers = {_whole(value) for value in found}
    if len(answers) > 1:
        raise InputError(f"the reply {shorten(text)} has several values of {key!r}")
    answer = answers.pop()
    if answer is None or answer not in legal:
        raise InputError(
            f"the reply {shorten(text)} has a {key!r} that is no whole number of {legal[0]} to {legal[-1]}"
        )
    return answer


def _in_objects(text: str, key: str) -> Iterator[Any]:
    """Values of the key in the innermost braces of a text."""
    for part in re.findall(r"\{[^{}]*\}", text):
        for read in (json.loads, ast.literal_eval):
            try:
                value = read(part)
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                continue
            if isinstance(value, dict) and key in value:
                yield value[key]
            break


def _by_name(text: str, key: str, top: int) -> list[str]:
    """Numbers that follow the key's name, as in `Score: 4/5`; `3-4`, and `4/10` if 5 is the top, stay as they are."""
    name = key.replace("_", "[ _]")
    number = r"[+-]?\d+(?:[.,]\d+)?(?:\s*(?:/|out of|-|\u2013|to)\s*\d+)?"
    found = re.findall(rf"\b{name}\b[\s\"'*`]*(?:is|of|[:=])?[\s\"'*`]*({number})", text, re.IGNORECASE)
    return [re.sub(rf"\s*(?:/|out of)\s*{top}$", "", value, flags=re.IGNORECASE) for value in found]


def _whole(value: Any) -> int | None:
    """4, 4.0, "4" and "4.0" as 4; all else as None."""
    return int(float(value)) if _WHOLE.fullmatch(str(value).strip()) else None


def shorten(text: str) -> str:
    """A reply as it is quoted in an error."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


def mend(text: str) -> str:
    """Return a text that every file can hold: halves of surrogate pairs, which JSON can say, are joined or replaced."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
