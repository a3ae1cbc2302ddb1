"""Samples that cannot be used: set aside with key and reason, counted, and too many of them stop the job."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from insvie_lightning.errors import InputError
from insvie_lightning.files import open_regular

ENOUGH = 200
"""A rate over fewer samples is taken over so many: of a large job's many workers some meet bad samples early."""


class Quarantine:
    """Counts the samples that one process reads, and writes the bad ones to a file of JSON lines, each key once.

    Args:
        path: The file; several workers may append to one.
        max_rate: Share of bad samples above which the job stops.
    """

    def __init__(self, path: Path, max_rate: float) -> None:
        self.path = path
        self.max_rate = max_rate
        self._seen = 0
        self._reasons: Counter[str] = Counter()
        self._written = set(read_quarantine(path))

    def accept(self) -> None:
        """Count a good sample."""
        self._seen += 1

    def add(self, key: str, reason: str) -> None:
        """Set a bad sample aside.

        Raises:
            InputError: More than `max_rate` of the samples, or of 200 if there were fewer, were bad; or the file
                cannot be written.
        """
        self._seen += 1
        self._reasons[reason.replace(key, "KEY")] += 1
        if key not in self._written:
            self._written.add(key)
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "reason": reason}, ensure_ascii=False) + "\n")
            except OSError as error:
                said = f"{self.path}: {(error.strerror or str(error)).lower()}"
                raise InputError(f"{said}, but bad samples such as {key!r} are noted there") from None
        bad = self._reasons.total()
        if bad > self.max_rate * max(self._seen, ENOUGH):
            commonest = "; ".join(f"{count} x {reason}" for reason, count in self._reasons.most_common(3))
            raise InputError(
                f"{bad} of {self._seen} samples are bad, more than max_bad_rate {self.max_rate} ({self.path} has the "
                f"keys); the commonest reasons: {commonest}"
            )


def _lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    try:
        yield from file
    except OSError as error:
        raise InputError(f"{path}: {(error.strerror or str(error)).lower()}, but bad samples are noted there") from None


def read_quarantine(path: Path) -> dict[str, str]:
    """Read key -> reason; empty where nothing was ever bad. A line that is damaged is passed over.

    Raises:
        InputError: It cannot be read, or is no regular file.
    """
    if not path.exists():
        return {}
    found = {}
    with open_regular(path, "a file of bad samples") as file:
        for line in _lines(file, path):
            try:
                record = json.loads(line)
                found[str(record["key"])] = str(record["reason"])
            except (ValueError, LookupError, TypeError, RecursionError):
                continue  # cut while it was written, or mended by hand: what it said will be found out again
    return found
