"""What a step of building data makes of its inputs, and which result is of which input."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from insvie_lightning.batch import Draft, Rejected, Triplet
from insvie_lightning.errors import InputError


@dataclass(frozen=True, slots=True)
class Packed:
    """A finished sample that is stored as files of its own, and not as its clips.

    Attributes:
        sample: What is known of it; its clips are not stored.
        members: The files by name.
        kept: Names of the input's files that are stored with them, as they are.
    """

    sample: Triplet
    members: Mapping[str, bytes]
    kept: tuple[str, ...] = ()


Built = Draft | Triplet | Packed | Rejected
"""What a step makes of a draft: a further draft, a finished triplet, files of it, or a reason why not."""


def by_key(
    step: str, samples: Sequence[str], built: Sequence[Built], taken_by_input: pa.ChunkedArray
) -> dict[str, list[Built]]:
    """Sort results by the samples that they were made of.

    Args:
        step: Name of the step, for messages.
        samples: Keys of what the step was given.
        built: What it made of that: results of the same keys, or of `KEY-WORD`.
        taken_by_input: The keys of the whole input, which no new sample may have.

    Returns:
        Key of a sample -> its results in order, one or more.

    Raises:
        InputError: The key of a new sample is one of the input.
        RuntimeError: The step is at fault: a result has an illegal key, or a sample has no result.
    """
    made: dict[str, list[Built]] = {key: [] for key in samples}
    taken: set[str] = set()
    for result in built:
        key = (result.sample if isinstance(result, Rejected | Packed) else result).key
        parent = key if key in made else key.rpartition("-")[0]
        if parent not in made or key in taken or not re.fullmatch(r"[A-Za-z0-9_-]+", key):
            raise RuntimeError(
                f"{step} made a sample of the key {key!r} out of {', '.join(map(repr, made))}; legal are "
                "these keys, and KEY-WORD where WORD is of letters, digits and '_', each once"
            )
        if parent != key and pc.index(taken_by_input, key).as_py() >= 0:
            raise InputError(f"{step} makes {key!r} of {parent!r}, but the input has it already; rename one")
        taken.add(key)
        made[parent].append(result)
    if empty := next((key for key, results in made.items() if not results), None):
        raise RuntimeError(f"{step} made nothing of {empty!r}; what it gives up is Rejected with a reason")
    return made
