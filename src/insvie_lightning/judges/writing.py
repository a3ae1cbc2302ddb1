"""Questions that are answered by texts: what is asked, and how the texts are found in a reply."""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from insvie_lightning.errors import InputError
from insvie_lightning.judges.cache import hash_frames
from insvie_lightning.judges.reply import CURLY_QUOTES, LONGEST, mend, shorten

NO_FRAMES = np.zeros((0, 3, 1, 1), np.uint8)


@dataclass(frozen=True, slots=True)
class TextRequest:
    """A question that is answered by a JSON object of English texts.

    Attributes:
        name: What is asked for.
        version: Changes with the wording of `system` and of all that `request` is made of but the facts in it.
        system: The system message.
        request: What is asked.
        keys: Of the reply's texts.
        frames: What is shown, N 3 H W, uint8; may be none.
        longest: Characters of a text, at most.
    """

    name: str
    version: str
    system: str
    request: str
    keys: tuple[str, ...]
    frames: np.ndarray = field(default_factory=lambda: NO_FRAMES)
    longest: int = 600

    @property
    def content(self) -> tuple[str | np.ndarray, ...]:
        """See `Asked`."""
        return (f"{self.request} {self.form}", *self.frames)

    @property
    def form(self) -> str:
        """See `Asked`."""
        example = json.dumps(dict.fromkeys(self.keys, "..."))
        return f"Reply in English with one JSON object of this form and nothing else: {example}"

    @property
    def schema(self) -> dict[str, Any]:
        """See `Asked`."""
        return {
            "type": "object",
            "properties": {key: {"type": "string"} for key in self.keys},
            "required": list(self.keys),
            "additionalProperties": False,
        }

    @property
    def facts(self) -> dict[str, Any]:
        """See `Asked`."""
        return {
            "prompt": self.name,
            "version": self.version,
            "request": self.request,
            "frames_sha256": hash_frames(self.frames),
        }

    def read(self, text: str) -> dict[str, str]:
        """Find the texts in a reply: in JSON, or in a Python dictionary, with or without talk around it.

        White space becomes single spaces. What stands before a closing `</think>` is not read. Where several objects
        are found they must agree.

        Raises:
            InputError: There is none, a text is missing, empty, too long or not in Latin letters, or there are several.
        """
        text = text[-LONGEST:].rpartition("</think>")[2]
        found = [value for value in _objects(text) if any(key in value for key in self.keys)]
        if not found:
            raise InputError(f"the reply {shorten(text)} is no JSON object with {' and '.join(map(repr, self.keys))}")
        texts = [{key: self._text(value.get(key), key, text) for key in self.keys} for value in found]
        if any(other != texts[0] for other in texts):
            raise InputError(f"the reply {shorten(text)} has several different objects")
        return texts[0]

    def _text(self, value: Any, key: str, reply: str) -> str:
        text = clean(value) if isinstance(value, str) else ""
        if not any(character.isalpha() for character in text):
            raise InputError(f"the reply {shorten(reply)} has no text as {key!r}")
        if len(text) > self.longest:
            raise InputError(f"the reply's {key!r} has {len(text)} characters; at most {self.longest} are legal")
        if not is_latin(text):
            raise InputError(f"the reply's {key!r} is not in Latin letters: {shorten(text)}")
        return text


def clean(text: str) -> str:
    """Return a text on one line: white space and control characters become single spaces."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", mend(text)).strip()


def is_latin(text: str) -> bool:
    """Tell whether most letters of a text are Latin."""
    letters = [character for character in text if character.isalpha()]
    return 2 * sum(unicodedata.name(letter, "").startswith("LATIN") for letter in letters) > len(letters)


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Objects in a text, from left to right; an object inside another is not looked for."""
    decoder = json.JSONDecoder(strict=False)  # real line breaks inside strings are taken, too
    start = text.find("{")
    while start >= 0:
        value, end = None, start + 1
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            value, end = _python_object(text, start)
        if isinstance(value, dict):
            yield value
        start = text.find("{", end)


def _python_object(text: str, start: int) -> tuple[Any, int]:
    """A Python dictionary, or JSON in curly quotes, that starts at a brace; and where it ends."""
    ends = [found.end() for found in re.finditer("}", text[start:])]
    for end in ends[:8]:
        part = text[start : start + end]
        for read in (ast.literal_eval, lambda part: json.loads(part.translate(CURLY_QUOTES), strict=False)):
            try:
                return read(part), start + end
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                continue
    return None, start + 1
