"""What a model can be asked, whatever the answer is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import numpy as np

Answer = TypeVar("Answer")
Answer_co = TypeVar("Answer_co", covariant=True)


class Asked(Protocol[Answer_co]):
    """A question with pictures: `prompts.Question` is answered by a number, `writing.TextRequest` by texts."""

    @property
    def system(self) -> str:
        """The system message."""
        ...

    @property
    def content(self) -> tuple[str | np.ndarray, ...]:
        """The user message: texts, and frames 3 H W, uint8."""
        ...

    @property
    def form(self) -> str:
        """The sentence that says what a reply looks like."""
        ...

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of a reply."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """What tells it from all other questions; JSON types."""
        ...

    def read(self, text: str) -> Answer_co:
        """Find the answer in a reply.

        Raises:
            InputError: There is none; the message says why.
        """
        ...
