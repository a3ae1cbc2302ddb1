"""What the steps read off a draft, and the numbers they draw for it."""

from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b

import numpy as np

from insvie_lightning.batch import Clip, Draft, Rejected
from insvie_lightning.builders.builder import Built
from insvie_lightning.errors import InputError
from insvie_lightning.video import fit_clip


def build_each(drafts: Sequence[Draft], build: Callable[[Draft], Iterator[Built]]) -> list[Built]:
    """Build drafts one by one; one that is bad input is rejected, with the sentence that says so."""
    built: list[Built] = []
    for draft in drafts:
        try:
            built += build(draft)
        except InputError as error:
            built.append(Rejected(draft, str(error)))
    return built


def edited_picture(draft: Draft) -> np.ndarray:
    """The first frame after the edit, brought to the source's size (bicubic, both axes on their own): 3 H W, uint8.

    Raises:
        InputError: The draft has none.
    """
    if draft.edited_frame is None:
        raise InputError(
            f"{draft.key}: has no edited first frame; run the step that edits first frames before this one"
        )
    return fit_clip(Clip(draft.edited_frame[None], draft.source.fps), draft.source.size, "stretch").frames[0]


def still_picture(draft: Draft) -> np.ndarray:
    """The source of a draft that is an image: 3 H W, uint8.

    Raises:
        InputError: It is a video.
    """
    if len(draft.source) != 1:
        raise InputError(f"{draft.key}: the source is a video of {len(draft.source)} frames, but an image is needed")
    return draft.source.frames[0]


def seed_of(*parts: object) -> int:
    """A seed of 63 bits that depends on nothing but the text of the parts, such as a seed and a key."""
    return int.from_bytes(blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest(), "big") >> 1
