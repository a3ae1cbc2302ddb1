"""Open files from outside: regular ones only, and one sentence about what cannot be read."""

from __future__ import annotations

import io
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from insvie_lightning.errors import InputError, first_line, shortened

_NON_BLOCKING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_regular(path: Path | str, needed: str = "a file", name: str | None = None) -> io.BufferedReader:
    """Open a regular file to read bytes.

    Neither a pipe, which would be waited for, nor a device, which may never end, nor a folder is one; a link is
    followed.

    Args:
        path: The file.
        needed: What should be there, for the sentence.
        name: What to call the file in it; the path by default.

    Raises:
        InputError: It cannot be opened, or is no regular file.
    """
    told = shortened(name or path)
    try:
        # What is opened is what is looked at: nobody can put something else there in between.
        descriptor = os.open(path, os.O_RDONLY | _NON_BLOCKING)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                what = "is a directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "no regular file"
                raise InputError(f"{told}: {what}, but {needed} is needed")
        except BaseException:
            os.close(descriptor)
            raise
        return os.fdopen(descriptor, "rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if isinstance(error, InputError):
            raise
        said = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{told}: {said.lower()}, but {needed} is needed") from None


@contextmanager
def open_text(path: Path, kind: str = "CSV") -> Iterator[TextIO]:
    """Open a regular file to read text in UTF-8, with a byte-order mark or without, its line ends as they are.

    Args:
        path: The file.
        kind: What should be there, for the sentence.

    Raises:
        InputError: As `open_regular`; or, in the body, the file is no UTF-8 or the disk fails.
    """
    with open_regular(path, f"a {kind}") as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        try:
            yield text
        except (OSError, UnicodeError) as error:
            raise InputError(f"{path} is no readable {kind}: {first_line(error)}") from None


def read_bytes(path: Path, needed: str = "a file", name: str | None = None) -> bytes:
    """Read a regular file whole.

    Raises:
        InputError: As `open_regular`; or the disk fails.
    """
    with open_regular(path, needed, name) as file:
        try:
            return file.read()
        except OSError as error:
            raise InputError(
                f"{name or path}: {(error.strerror or str(error)).lower()}, but {needed} is needed"
            ) from None


def read_json(path: Path, kind: type = dict) -> Any:
    """Read a JSON object (`dict`) or list (`list`).

    Raises:
        InputError: As `read_bytes`; or it is no JSON, another type, or holds text that is none.
    """
    data = read_bytes(path, "a JSON file")
    try:
        value = json.loads(data)
        if b"\\ud" in data.lower():
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair can be written nowhere
    except RecursionError:
        raise InputError(f"{path} is no readable JSON: it is nested too deeply") from None
    except ValueError as error:
        raise InputError(f"{path} is no readable JSON: {first_line(error)}") from None
    if not isinstance(value, kind):
        raise InputError(
            f"{path} holds a {type(value).__name__}, but a JSON {'object' if kind is dict else 'list'} is needed"
        )
    return value
