"""Overlapping windows: every frame once, in order, and faded where two windows meet."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from insvie_lightning.editors.windows import edit_in_windows


def numbered(frames: int) -> np.ndarray:
    """Frames of one pixel whose value is their number."""
    return np.arange(frames, dtype=np.int32)[:, None, None, None].repeat(3, axis=1)


@pytest.mark.parametrize(("length", "overlap"), [(49, 8), (49, 0), (49, 24), (9, 1), (1, 0), (5, 2)])
def test_every_frame_comes_back_once_and_in_order(length: int, overlap: int) -> None:
    for frames in [*range(1, 121), 2000]:
        seen: list[np.ndarray] = []

        def edit(window: np.ndarray, seen: list[np.ndarray] = seen) -> np.ndarray:
            seen.append(window[:, 0, 0, 0])
            return window + 10_000

        edited = list(edit_in_windows(edit, iter(numbered(frames)), length, overlap))
        assert [int(frame[0, 0, 0]) for frame in edited] == [10_000 + i for i in range(frames)]
        assert [len(window) for window in seen] == [min(length, frames)] * len(seen)
        assert all((np.diff(window) == 1).all() for window in seen)
        assert len(seen) == 1 + -(-max(0, frames - length) // (length - overlap))
        assert seen[0][0] == 0 and seen[-1][-1] == frames - 1
        assert all(old[-1] - new[0] + 1 >= overlap for old, new in pairwise(seen))


def test_windows_fade_into_one_another() -> None:
    """Window n is all 100 n."""
    calls: Iterator[int] = iter(range(100))
    edited = edit_in_windows(lambda window: np.full_like(window, 100 * next(calls)), numbered(13), 9, 3)
    values = [int(frame[0, 0, 0]) for frame in edited]
    assert values == [0, 0, 0, 0, 0, 0, 25, 50, 75, 100, 100, 100, 100]


def test_long_videos_are_read_and_given_back_as_they_are_edited() -> None:
    read = 0

    def frames() -> Iterator[np.ndarray]:
        nonlocal read
        for read in range(1, 2001):  # noqa: B007 (counts)
            yield np.zeros((3, 1, 1), np.uint8)

    edited = 0
    for edited, _ in enumerate(edit_in_windows(lambda window: window, frames(), 49, 8), 1):
        assert read - edited < 2 * 49
    assert edited == read == 2000


def test_no_frames_make_no_frames() -> None:
    assert list(edit_in_windows(lambda window: window, [], 9, 1)) == []


def test_the_size_may_change() -> None:
    edited = list(edit_in_windows(lambda window: window.repeat(2, axis=3), numbered(20), 9, 2))
    assert len(edited) == 20 and edited[0].shape == (3, 1, 2)
