"""How a video is edited: frames, size, windows, scales, steps and seed."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from insvie_lightning.diffusion.guidance import Guidance
from insvie_lightning.diffusion.schedule import NUM_TRAIN_TIMESTEPS
from insvie_lightning.editors.framing import SIDE_MULTIPLE, EditResize, nearest_side
from insvie_lightning.errors import InputError

SETTINGS = ("guidance", "num_inference_steps", "seed")
"""Options that stand for attributes of a model; the others say what the network is given to see."""


@dataclass(frozen=True)
class EditOptions:
    """How a video is edited; None takes the editor's own value.

    The released script is `frame_rule="release", resize="cover", fps=7`.

    Attributes:
        frame_rule: `keep` gives every frame back; `release` the first 8k + 1, at most 49 (`video.release_frames`).
        resize: `pad`, `aspect`, `stretch` or `cover`; all but `cover` give the video back at its own size.
        size: Height and width that the network works at, multiples of 16; None is the size that the base was made for.
        fps: Frame rate of the result; None keeps the source's, uneven times too.
        max_frames: Longer videos are edited in overlapping windows of the largest 4k + 1 up to so many frames; None is
            the length that the base was made for.
        overlap: Frames by which windows overlap and fade into one another, at most half a window; None is a sixth.
        guidance: Scales of sampling.
        num_inference_steps: Sampler steps.
        seed: Of the noise. All windows and all videos of one shape start from the same noise, which keeps them alike.
    """

    frame_rule: Literal["keep", "release"] = "keep"
    resize: EditResize = "pad"
    size: tuple[int, int] | None = None
    fps: float | None = None
    max_frames: int | None = None
    overlap: int | None = None
    guidance: Guidance | None = None
    num_inference_steps: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is not legal."""
        if self.size and any(side <= 0 or side % SIDE_MULTIPLE for side in self.size):
            near = tuple(nearest_side(side) for side in self.size)
            raise InputError(
                f"size {self.size}: height and width are multiples of {SIDE_MULTIPLE}; did you mean {near}?"
            )
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise InputError(f"fps {self.fps}: legal are rates above 0 and up to 1000")
        for name in ("max_frames", "num_inference_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} {value}: legal are 1 and more")
        if (self.num_inference_steps or 1) > NUM_TRAIN_TIMESTEPS:
            raise InputError(f"num_inference_steps {self.num_inference_steps}: legal are 1 to {NUM_TRAIN_TIMESTEPS}")

    def windows(self, frames: int) -> tuple[int, int]:
        """Length and overlap of the windows of a base made for `frames` frames.

        Raises:
            InputError: The overlap is longer than half a window.
        """
        length = ((self.max_frames or frames) - 1) // 4 * 4 + 1
        overlap = length // 6 if self.overlap is None else self.overlap
        if not 0 <= overlap <= length // 2:
            raise InputError(f"overlap {overlap}: legal are 0 to {length // 2}, half a window of {length} frames")
        return length, overlap

    def settings(self) -> dict[str, Any]:
        """Those options that stand for attributes of the model."""
        return {name: getattr(self, name) for name in SETTINGS}

    @property
    def shows_all(self) -> bool:
        """Whether nothing is said of frames and pixels, so that what is legal may go to the network as it is."""
        return replace(self, fps=None, guidance=None, num_inference_steps=None, seed=None) == EditOptions()
