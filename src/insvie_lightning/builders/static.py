"""The static route: an image and its edit become two clips under one camera move."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from insvie_lightning.batch import Draft, Triplet
from insvie_lightning.builders.builder import Builder, Built
from insvie_lightning.builders.drafts import edited_picture, seed_of, still_picture
from insvie_lightning.camera import MOVES, Move, camera_path, film
from insvie_lightning.errors import InputError, nearest


class BuildStatic(Builder[Draft]):
    """Makes triplets of edited images: source and edited image are filmed by the same moving camera.

    The paper's sections 3.3 and 7.3; sizes and frames are those of its training data (section 5.1, supplement 8). An
    edited image of another size is brought to the source's first.

    Args:
        output: Shard folder.
        frames: Of each clip, two or more.
        fps: Of each clip, frames per second; the paper does not say, 7 is that of its real route.
        size: Height and width of the clips in px; of the images, the largest centred part of that aspect is filmed.
        crop: Side of the smallest crop as a share of the image, above 0 and below 1.
        move: A camera move; `draw` draws one of the six by the key, `all` makes six triplets `KEY-zoom_in` ... of each.
        seed: Of the draw.
        shard_size: As of `Builder`.
        max_bad_rate: As of `Builder`.

    Raises:
        InputError: One of them is not legal.
    """

    takes = Draft

    def __init__(
        self,
        output: Path,
        frames: int = 25,
        fps: float = 7.0,
        size: tuple[int, int] = (576, 1024),
        crop: float = 0.9,
        move: Move | Literal["draw", "all"] = "draw",
        seed: int = 0,
        shard_size: int = 256,
        max_bad_rate: float = 0.5,
    ) -> None:
        super().__init__(output, shard_size, max_bad_rate)
        legal = (*MOVES, "draw", "all")
        if move not in legal:
            raise InputError(f"move is {move!r}; legal are {', '.join(legal)}{nearest(move, legal)}")
        if min(size) < 1 or not 0 < fps < float("inf"):
            raise InputError(f"size is {size}, fps {fps}; legal are 1 px or more, and numbers above 0")
        camera_path(MOVES[0], frames, crop)  # an illegal number is told now, not at the first sample
        self.frames, self.fps, self.size, self.crop, self.move, self.seed = frames, fps, size, crop, move, seed

    def make(self, drafts: Sequence[Draft]) -> list[Built]:
        """A triplet of origin `static` for each edited image, or six.

        Raises:
            InputError: A source is a video, or has no edit.
        """
        pictures = [(draft, still_picture(draft), edited_picture(draft)) for draft in drafts]
        return [self._film(*images, move) for images in pictures for move in self._moves(images[0].key)]

    def _film(self, draft: Draft, source: np.ndarray, edited: np.ndarray, move: Move) -> Triplet:
        path = camera_path(move, self.frames, self.crop)
        key = f"{draft.key}-{move.replace(' ', '_')}" if self.move == "all" else draft.key
        lineage = {**draft.lineage, type(self).__name__: {"move": move, "interpolation": "bilinear"}}
        moved = replace(draft, key=key, origin="static", lineage=lineage)
        return moved.triplet(film(source, path, self.size, self.fps), film(edited, path, self.size, self.fps))

    def _moves(self, key: str) -> tuple[Move, ...]:
        if self.move == "all":
            return MOVES
        if self.move == "draw":
            return (MOVES[np.random.default_rng(seed_of(self.seed, key)).integers(len(MOVES))],)
        return (self.move,)
