"""The data contracts: the one place where layouts, ranges and units are defined.

Legend, used in every docstring of the project:

    B batch, F frames, C channels, H height, W width, T latent frames, L text tokens, D width of the network
    pixels   (B) F C H W, uint8 0..255 on disk and across processes; float in [-1, 1] only on the device
    latents  B T C H W, already multiplied by the VAE's scaling factor
    flow     px at the size it was computed; names carry the unit (`flow_px`, `epe_px`, `clip_seconds`)

This module imports torch only when a tensor is made, so that the data commands start without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    import torch

Origin = Literal["real", "pair", "static"]
"""Where a triplet's source came from: a real video, an image pair animated, or a still image under a camera move."""
ORIGINS: tuple[str, ...] = get_args(Origin)


PIXELS_PER_LATENT, FRAMES_PER_LATENT = 8, 4
"""Pixels a side, and frames, that one latent stands for; the first frame has one of its own: F = 1 + 4 (T - 1)."""
Window = tuple[int, int, int, int]
"""Top, left, height and width in latents."""
NOISE_STRENGTHS = (0.025, 0.05, 0.1, 0.2)
"""Standard deviations of noise on a source's pixels, on the -1..1 scale, whose effect on its latents is measured; those
of a training are exp(N(-3, 0.5^2)) as released: 0.018 to 0.135 within two standard deviations."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A decoded video: `frames` uint8 of shape F 3 H W (RGB), `fps` in frames per second."""

    frames: np.ndarray
    fps: float

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.frames.shape[2], self.frames.shape[3]

    def __len__(self) -> int:
        """Number of frames."""
        return self.frames.shape[0]

    def __repr__(self) -> str:
        """Its shape and rate, not its pixels."""
        return f"Clip({' x '.join(map(str, self.frames.shape))}, {self.fps:g} fps)"


@dataclass(frozen=True, slots=True)
class Triplet:
    """One training sample: a source clip, its edited version and the sentence between them.

    Attributes:
        key: Unique name inside a data set; letters, digits, `_` and `-` only (it names members of a tar).
        source: The clip before the edit.
        edited: The clip after it, of the same size and number of frames.
        instruction: The sentence a user would type.
        source_caption: What the source shows; empty if unknown.
        edited_caption: What the edited clip shows; empty if unknown.
        origin: `real`, `pair` or `static`.
        dataset: Name of the data set that the sample came from.
        edit_type: `recolour`, `remove`, `style`, ...; empty if unknown.
        scores: Name -> value. Each becomes a column of the manifest (`judge` in 1..5, `epe_px` in pixels, ...).
        lineage: Everything that made the sample; JSON types only.
    """

    key: str
    source: Clip
    edited: Clip
    instruction: str
    source_caption: str = ""
    edited_caption: str = ""
    origin: Origin = "real"
    dataset: str = ""
    edit_type: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Draft:
    """A triplet in the making: what the steps that build a data set know of it so far.

    Attributes:
        key: As of `Triplet`.
        source: The clip to be edited; one frame if it is an image.
        edited_frame: The first frame after the edit, 3 H W, uint8, of any size; None before that step.
        instruction: As of `Triplet`; empty before that step.
        source_caption: As of `Triplet`.
        edited_caption: As of `Triplet`.
        origin: As of `Triplet`.
        dataset: As of `Triplet`.
        edit_type: As of `Triplet`.
        scores: As of `Triplet`.
        lineage: What every step so far did: the step's name -> what made its part; JSON types only.
    """

    key: str
    source: Clip
    edited_frame: np.ndarray | None = None
    instruction: str = ""
    source_caption: str = ""
    edited_caption: str = ""
    origin: Origin = "real"
    dataset: str = ""
    edit_type: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)

    def triplet(self, source: Clip, edited: Clip) -> Triplet:
        """The finished sample."""
        names = ("instruction", "source_caption", "edited_caption", "origin", "dataset", "edit_type")
        texts = {name: getattr(self, name) for name in names}
        return Triplet(self.key, source, edited, **texts, scores=self.scores, lineage=self.lineage)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A draft or triplet that a step gives up, and the reason in one sentence."""

    sample: Draft | Triplet
    reason: str


@dataclass(frozen=True, slots=True)
class Position:
    """Where in a curriculum a batch stands: the stage's name and number, and the micro-batch in it, both from 0."""

    stage: str
    index: int
    step: int


TENSORS = (
    *("source", "edited", "source_latents", "edited_latents"),
    *("source_log_variance", "edited_log_variance", "noise_shift"),
)
"""The tensors of an `EditBatch`."""


@dataclass(frozen=True, slots=True)
class EditBatch:
    """What an editor is fed: B samples of one shape.

    Attributes:
        keys: B sample keys.
        instructions: B sentences.
        source: B F C H W, uint8; None where only latents are known.
        edited: B F C H W, uint8; None when editing without a target, or where only latents are known.
        source_latents: B T C h w, cached; None when they are to be encoded from `source`.
        edited_latents: B T C h w, cached; None when they are to be encoded from `edited`.
        source_log_variance: B T C h w: the log-variance of the posterior whose mean `source_latents` are; None takes
            these as they are.
        edited_log_variance: B T C h w, likewise of `edited_latents`.
        noise_shift: B K 2 2 C: by how much noise of each of the K `NOISE_STRENGTHS` on the source's pixels moves its
            latents, as mean and standard deviation, of the first latent frame and of later ones, in each channel; None
            where that was not measured.
        source_captions: B descriptions of the sources; empty where none is known.
        edited_captions: B descriptions of the edited clips; empty where none is known.
        origins: B origins.
        edit_types: B edit types, empty where none is known: what tables of scores are grouped by.
        fps: B frame rates in frames per second.
        position: Where the curriculum stands; None outside training.
        windows: B windows, all of one size, that are cut out of the latents of `source` and `edited` once these are
            encoded; empty takes the whole. Given latents have been cut already.
    """

    keys: tuple[str, ...]
    instructions: tuple[str, ...]
    source: torch.Tensor | None = None
    edited: torch.Tensor | None = None
    source_latents: torch.Tensor | None = None
    edited_latents: torch.Tensor | None = None
    source_log_variance: torch.Tensor | None = None
    edited_log_variance: torch.Tensor | None = None
    noise_shift: torch.Tensor | None = None
    source_captions: tuple[str, ...] = ()
    edited_captions: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    edit_types: tuple[str, ...] = ()
    fps: tuple[float, ...] = ()
    position: Position | None = None
    windows: tuple[Window, ...] = ()

    def __len__(self) -> int:
        """Number of samples B."""
        return len(self.keys)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> EditBatch:
        """Move every tensor; Lightning calls this to put a batch on the device.

        Pinned tensors are always moved while the host goes on, which Lightning asks for with plain tensors only.
        """
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking or tensor.is_pinned()))

    def pin_memory(self) -> EditBatch:
        """Pin every tensor; the DataLoader calls this when `pin_memory` is on."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Any) -> EditBatch:
        tensors = {name: getattr(self, name) for name in TENSORS}
        return replace(self, **{name: function(value) for name, value in tensors.items() if value is not None})


@dataclass(frozen=True, slots=True)
class EditedVideos:
    """What an editor returns from validation, test and predict steps.

    Attributes:
        edited: B F 3 H W, float in [-1, 1] or uint8.
        source: What the edits are to be compared with, B F 3 H W, uint8: the batch's source cut to the frames and the
            picture that were edited; None where that is the whole of it.
        target: The batch's `edited`, cut likewise; None where that is the whole of it.
        missing: Keys of samples that have no edit; what stands in their place in `edited` says nothing.
    """

    edited: torch.Tensor
    source: torch.Tensor | None = None
    target: torch.Tensor | None = None
    missing: frozenset[str] = frozenset()

    def to(self, device: torch.device | str) -> EditedVideos:
        """Move the videos; Lightning calls this to collect predictions."""
        names = ("edited", "source", "target")
        tensors = {name: getattr(self, name) for name in names}
        return replace(self, **{name: value.to(device) for name, value in tensors.items() if value is not None})


def collate(triplets: Sequence[Triplet]) -> EditBatch:
    """Stack triplets of one shape into an `EditBatch` of uint8 pixels."""
    import torch

    return EditBatch(
        keys=tuple(triplet.key for triplet in triplets),
        instructions=tuple(triplet.instruction for triplet in triplets),
        source=torch.from_numpy(np.stack([triplet.source.frames for triplet in triplets])),
        edited=torch.from_numpy(np.stack([triplet.edited.frames for triplet in triplets])),
        source_captions=tuple(triplet.source_caption for triplet in triplets),
        edited_captions=tuple(triplet.edited_caption for triplet in triplets),
        origins=tuple(triplet.origin for triplet in triplets),
        edit_types=tuple(triplet.edit_type for triplet in triplets),
        fps=tuple(triplet.source.fps for triplet in triplets),
    )
