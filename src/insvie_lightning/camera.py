"""Camera moves over a still picture: where the camera looks in every frame, what it films, and the flow that is known.

The moves are those of the InsViE paper (arXiv 2503.20287, sections 3.3 and 7.3): two zooms and four moves of a crop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from insvie_lightning.batch import Clip
from insvie_lightning.errors import InputError, nearest

Move = Literal["zoom in", "zoom out", "move left", "move right", "move down", "move up"]
MOVES: tuple[Move, ...] = get_args(Move)
_DIRECTIONS = {"move left": (-1, 0), "move right": (1, 0), "move down": (0, 1), "move up": (0, -1)}


@dataclass(frozen=True, slots=True)
class View:
    """What the camera sees of a picture, in shares of its width and height.

    Attributes:
        side: Of the crop; 1 is the whole picture.
        x: Of the crop's centre, 0 left to 1 right.
        y: Of the crop's centre, 0 top to 1 bottom.
    """

    side: float
    x: float = 0.5
    y: float = 0.5

    @property
    def left(self) -> float:
        """The crop's left border."""
        return self.x - self.side / 2

    @property
    def top(self) -> float:
        """The crop's top border."""
        return self.y - self.side / 2


def camera_path(move: Move, frames: int, crop: float = 0.9) -> tuple[View, ...]:
    """The views of a move, in equal steps.

    A zoom changes the side between 1 and `crop` around the middle; the others slide a crop of that side from one
    border of the picture to the other, in the direction of their name, as the paper's section 7.3 has it.

    Args:
        move: One of `MOVES`.
        frames: Two or more.
        crop: Side of the smallest crop as a share of the picture, above 0 and below 1; the paper's is 0.9.

    Raises:
        InputError: One of them is not legal.
    """
    if move not in MOVES:
        raise InputError(f"the camera move is {move!r}; legal are {', '.join(MOVES)}{nearest(move, MOVES)}")
    if not 0 < crop < 1:
        raise InputError(f"the crop of the camera move is {crop}; legal are shares above 0 and below 1")
    if frames < 2:
        raise InputError(f"a camera move of {frames} frames is no move; legal are 2 or more")
    times = np.linspace(0, 1, frames).tolist()
    if move in _DIRECTIONS:
        right, down = _DIRECTIONS[move]
        slides = [(1 - crop) * (time - 0.5) for time in times]
        return tuple(View(crop, 0.5 + right * slide, 0.5 + down * slide) for slide in slides)
    if move == "zoom out":
        times = times[::-1]
    return tuple(View(1 - (1 - crop) * time) for time in times)


def film(picture: np.ndarray, path: tuple[View, ...], size: tuple[int, int], fps: float) -> Clip:
    """Film a picture along a path, bilinear and exact to the sub-pixel.

    The largest centred part of the frames' aspect is filmed. Each frame is one resampling of the picture itself; where
    that makes it smaller, the kernel widens with it, so that nothing flickers.

    Args:
        picture: 3 H W, uint8, of any size.
        path: From `camera_path`; the same path moves two pictures of one size alike.
        size: Height and width of the frames in px.
        fps: Of the clip, frames per second.
    """
    from PIL import Image

    height, width = picture.shape[1:]
    scale = max(size[0] / height, size[1] / width)
    part_height, part_width = size[0] / scale, size[1] / scale
    top, left = (height - part_height) / 2, (width - part_width) / 2
    image = Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))
    frames = np.empty((len(path), 3, *size), np.uint8)
    for index, view in enumerate(path):
        x, y = left + view.left * part_width, top + view.top * part_height
        # Rounding must not push the box over the border by some 1e-13.
        right = min(x + view.side * part_width, width)
        bottom = min(y + view.side * part_height, height)
        box = (max(x, 0), max(y, 0), right, bottom)
        resized = image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box)
        frames[index] = np.asarray(resized).transpose(2, 0, 1)
    return Clip(frames, fps)


def flow_px(start: View, end: View, size: tuple[int, int]) -> np.ndarray:
    """The true optical flow between two frames of a filmed picture.

    Args:
        start: View of the first frame.
        end: View of the other.
        size: Height and width of the frames in px.

    Returns:
        2 H W, float64: how many px to the right and down each pixel of the first frame is found in the other.
    """
    height, width = size
    across, down = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    x = (start.left + start.side * across - end.left) / end.side - across
    y = (start.top + start.side * down - end.top) / end.side - down
    return np.stack([np.broadcast_to(x * width, size), np.broadcast_to(y[:, None] * height, size)])
