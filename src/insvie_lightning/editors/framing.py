"""Between a clip's own size and the size that a network works at, there and back."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from insvie_lightning.batch import Clip
from insvie_lightning.video import fit_clip

EditResize = Literal["pad", "aspect", "stretch", "cover"]
"""How a clip is brought to the network's size.

`pad` keeps the aspect and fills the rest by the border pixels, which are cut off again; `aspect` does so at the legal
size of about as many pixels whose aspect is nearest to the clip's; `stretch` does not keep the aspect (the paper's
protocol for square videos); `cover` keeps it, cuts the middle and stays at the network's size (released script).
"""

SIDE_MULTIPLE = 16
"""Height and width are multiples of it: 8 for CogVideoX's autoencoder times 2 for the patches of its transformer."""


@dataclass(frozen=True, slots=True)
class Framing:
    """From a clip's own size to the network's and back.

    Attributes:
        source: Height and width of the clip.
        network: Height and width that the network sees.
        inner: Height and width of the picture in the middle of what the network sees; what is around it is padding.
    """

    source: tuple[int, int]
    network: tuple[int, int]
    inner: tuple[int, int]
    cover: bool = False

    def fit(self, frames: np.ndarray) -> np.ndarray:
        """F 3 H W at the clip's size -> at the network's."""
        clip = fit_clip(Clip(frames, 1.0), self.inner, "cover" if self.cover else "stretch")
        return np.pad(clip.frames, ((0, 0), (0, 0), *self._margins()), mode="edge")

    def restore(self, frames: np.ndarray) -> np.ndarray:
        """F 3 H W at the network's size -> at the clip's; after `cover` it stays as it is."""
        if self.cover:
            return frames
        (top, _), (left, _) = self._margins()
        inner = frames[:, :, top : top + self.inner[0], left : left + self.inner[1]]
        return fit_clip(Clip(inner, 1.0), self.source, "stretch").frames

    def _margins(self) -> tuple[tuple[int, int], tuple[int, int]]:
        free = [whole - part for whole, part in zip(self.network, self.inner, strict=True)]
        return (free[0] // 2, free[0] - free[0] // 2), (free[1] // 2, free[1] - free[1] // 2)


def frame_clip(source: tuple[int, int], network: tuple[int, int], resize: EditResize) -> Framing:
    """How clips of height and width `source` are brought to about `network` and back."""
    if resize == "aspect":
        network = aspect_size(source, network)
    if resize in ("stretch", "cover"):
        return Framing(source, network, network, resize == "cover")
    scale = min(network[0] / source[0], network[1] / source[1])
    return Framing(source, network, (max(1, round(source[0] * scale)), max(1, round(source[1] * scale))))


def aspect_size(source: tuple[int, int], network: tuple[int, int]) -> tuple[int, int]:
    """The height and width, multiples of 16, with about the aspect of `source` and the number of pixels of `network`.

    Aspects beyond 8:1 are taken as 8:1, since thinner pictures give the network nothing to look at.
    """
    aspect = min(8.0, max(1 / 8, source[0] / source[1]))
    pixels = network[0] * network[1]
    return nearest_side(math.sqrt(pixels * aspect)), nearest_side(math.sqrt(pixels / aspect))


def nearest_side(length: float) -> int:
    """The legal height or width nearest to a length in pixels."""
    return max(1, round(length / SIDE_MULTIPLE)) * SIDE_MULTIPLE
