"""What was computed last, by the content of what it was computed from, so that several users compute it once."""

import hashlib
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from torch import Tensor

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """The values of the last few keys.

    Args:
        kept: How many; the one that was not asked for the longest goes first.
    """

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self._values: dict[Hashable, Value] = {}

    def get(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """The value of a key, computed when it is not among the last."""
        value = self._values.pop(key) if key in self._values else compute()
        self._values[key] = value
        if len(self._values) > self.kept:
            del self._values[next(iter(self._values))]
        return value


def fingerprint(clip: Tensor) -> str:
    """Equal for clips (uint8, any device) of equal shape and content, and for those only."""
    content = hashlib.sha1(clip.cpu().contiguous().numpy().data, usedforsecurity=False).hexdigest()
    return f"{content} {tuple(clip.shape)}"
