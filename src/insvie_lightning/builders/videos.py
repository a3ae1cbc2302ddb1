"""The real route's second half: an edited first frame becomes an edited clip."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from insvie_lightning.batch import Clip, Draft, Triplet
from insvie_lightning.builders.builder import Builder, Built
from insvie_lightning.builders.drafts import edited_picture
from insvie_lightning.builders.propagation import Propagation, Propagator
from insvie_lightning.errors import InputError
from insvie_lightning.nets.stable_video import SVD, Precision, StableVideo
from insvie_lightning.video import fit_clip


class BuildVideos(Builder[Draft]):
    """Makes triplets of clips whose first frame was edited, by Stable Video Diffusion (paper, section 3.1).

    The source is inverted into noise once for all edits of it that follow one another, and regenerated with the edited
    frame as condition; see `Propagation`.

    Args:
        output: Shard folder.
        base: Stable Video Diffusion: a folder in diffusers' layout, or a hub id.
        propagation: How the edit is carried through the clip.
        frames: Of each clip, two or more. Of a longer source every n-th from the first on is taken, so that its frame
            rate comes near to `propagation.fps`; n is smaller where the source is too short for that.
        size: Height and width of the clips in px, multiples of 8; a source of another shape is cut.
        seed: Of the noise on the first frames.
        dtype: Of the weights; the latents themselves stay float32.
        low_memory: Keep only the network at work on the GPU.
        shard_size: As of `Builder`.
        max_bad_rate: As of `Builder`.

    Raises:
        InputError: One of them is not legal.
    """

    takes = Draft
    elsewhere = Builder.elsewhere | {"low_memory"}

    def __init__(
        self,
        output: Path,
        base: str = SVD,
        propagation: Propagation = Propagation(),  # noqa: B008 (frozen)
        frames: int = 25,
        size: tuple[int, int] = (576, 1024),
        seed: int = 0,
        dtype: Precision = "bfloat16",
        low_memory: bool = False,
        shard_size: int = 64,
        max_bad_rate: float = 0.5,
    ) -> None:
        super().__init__(output, shard_size, max_bad_rate)
        if frames < 2:
            raise InputError(f"frames is {frames}; legal are 2 or more")
        self.propagation = propagation
        self.base, self.frames, self.size, self.seed = base, frames, size, seed
        self.base_dtype, self.low_memory = dtype, low_memory
        self._propagator: Propagator | None = None

    def configure_model(self) -> None:
        """Load the model."""
        if self._propagator is None:
            model = StableVideo.load(self.base, self.base_dtype)
            check_size(self.size, model.factor)
            if self.sharing is not None:  # by all ranks, also by those that will have nothing to do
                model.to(self.trainer.strategy.root_device, self.low_memory)
            self._propagator = Propagator(model, self.propagation, self.seed)

    def make(self, drafts: Sequence[Draft]) -> list[Built]:
        """A triplet for each draft; its source clip is what was edited, at the size and rate that were edited.

        Raises:
            InputError: A source is too short, or has no edited first frame.
        """
        prepared = [(draft, *self._prepare(draft)) for draft in drafts]
        return [self._propagate(*parts) for parts in prepared]

    def _prepare(self, draft: Draft) -> tuple[Clip, Clip]:
        """The clip to be edited, and its edited first frame, both at the network's size."""
        clip = thin_out(draft.source, self.frames, self.propagation.fps, draft.key)
        edited = Clip(edited_picture(draft)[None], clip.fps)
        return fit_clip(clip, self.size), fit_clip(edited, self.size)

    def _propagate(self, draft: Draft, source: Clip, edited: Clip) -> Triplet:
        assert self._propagator is not None
        self._propagator.model.to(torch.device(self.device), self.low_memory)
        frames = self._propagator.edit(source.frames, edited.frames[0])
        made = {"source_fps": draft.source.fps, "stride": round(draft.source.fps / source.fps)}
        lineage = {**draft.lineage, type(self).__name__: made}
        return replace(draft, lineage=lineage).triplet(source, replace(source, frames=frames))


def thin_out(clip: Clip, frames: int, fps: float, key: str) -> Clip:
    """Take `frames` frames from the first on, every n-th, with the rate nearest to `fps` that the length allows.

    Raises:
        InputError: The clip is too short; the sentence names `key`.
    """
    if len(clip) < frames:
        raise InputError(f"{key}: the source has {len(clip)} frames, but {frames} are needed")
    stride = min(max(round(clip.fps / fps), 1), (len(clip) - 1) // (frames - 1))
    return Clip(clip.frames[: (frames - 1) * stride + 1 : stride], clip.fps / stride)


def check_size(size: tuple[int, int], factor: int) -> None:
    """Refuse sizes that the model's autoencoder cannot halve often enough.

    Raises:
        InputError: One side is no multiple of `factor`; the nearest legal size is named.
    """
    near = tuple(max(round(side / factor), 1) * factor for side in size)
    if near != tuple(size):
        raise InputError(
            f"size is {size[0]} x {size[1]}; legal are multiples of {factor}, such as {near[0]} x {near[1]}"
        )
