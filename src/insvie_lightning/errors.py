"""The one exception for input that a user can mend, and the sentence it carries."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Something from outside (config, file, clip, shard, reply) is not legal.

    The message is one sentence: what was wrong, where, what is legal. The command line prints it without a traceback
    and exits with status 2; data jobs quarantine the sample with it as the reason.
    """


class Stopped(SystemExit):
    """A run was told to stop, saved what it has, and stops.

    Args:
        message: What stopped it, and how to go on.
        status: The exit status of the process.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(status)
        self.message = message

    def __str__(self) -> str:
        return self.message


def nearest(value: str, legal: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the legal value closest to `value`, or an empty string when none is close."""
    close = get_close_matches(value, list(legal), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def first_line(error: Exception) -> str:
    """Return the first line of what another library says, at most 160 characters; the kind of error if it is silent."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def shortened(name: object, longest: int = 200) -> str:
    """A name from outside, or a list of names, as a sentence can carry it: of a very long one its two ends."""
    text, end = str(name), longest // 2 - 10
    return text if len(text) <= longest else f"{text[:end]}...{text[-end:]}"
