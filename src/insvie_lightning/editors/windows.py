"""Editing videos of any length with an editor of a fixed one: overlapping windows, n frames in and n frames out."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np


def edit_in_windows(
    edit_window: Callable[[np.ndarray], np.ndarray], frames: Iterable[np.ndarray], length: int, overlap: int
) -> Iterator[np.ndarray]:
    """Edit frames window by window, in the memory of two windows, and yield each frame once and in order.

    Every window but that of a shorter video is `length` long, the last one too, which starts earlier for it. The last
    `overlap` frames of a window fade linearly into the next one.

    Args:
        edit_window: Edits F 3 H W (uint8), F <= `length`, into as many frames of any one size.
        frames: 3 H W each, read as they are needed.
        length: Frames a window.
        overlap: Frames that two windows share at least, at most half of `length`.
    """
    source = iter(frames)
    window = list(islice(source, length))
    if not window:
        return
    edited = edit_window(np.stack(window))
    while ahead := list(islice(source, length - overlap)):
        step = len(ahead)
        window = window[step:] + ahead
        following = edit_window(np.stack(window))
        yield from edited[:step]
        edited = _fade(edited[step:], following, overlap)
    yield from edited


def _fade(old: np.ndarray, new: np.ndarray, overlap: int) -> np.ndarray:
    """The frames of `new`, whose first are those of `old`, which fades out over its last `overlap` frames."""
    certain = len(old) - overlap
    weights = (np.arange(1, overlap + 1, dtype=np.float32) / (overlap + 1))[:, None, None, None]
    faded = (1 - weights) * old[certain:] + weights * new[certain : len(old)]
    return np.concatenate([old[:certain], np.rint(faded).astype(new.dtype), new[len(old) :]])
