"""Clips inside the page: small previews as data URIs, within a budget of bytes."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from insvie_lightning.errors import InputError
from insvie_lightning.video import encode_clip, fit_clip, read_clip

PREVIEW_SIDE = 360
"""A clip with a longer side is shrunk to this many pixels."""
PREVIEW_FRAMES = 81
"""A longer clip is shown up to here."""


@dataclass
class Budget:
    """Bytes of the page that clips may still take; the rest of a page below 15 MB is for everything else."""

    bytes: int = 11_000_000

    def take(self, samples: Iterable[Sample]) -> tuple[Sample, ...]:
        """Return the samples from the first on that fit into what is left, and count them."""
        taken = []
        for sample in samples:
            size = sum(map(len, sample.clips.values()))
            if size > self.bytes:
                break
            self.bytes -= size
            taken.append(sample)
        return tuple(taken)


@dataclass(frozen=True, slots=True)
class Sample:
    """Clips beside one another under their instruction.

    Attributes:
        clips: Label -> data URI, or the sentence that says why the clip cannot be shown.
        tags: Short facts, such as the origin.
        scores: Name -> value as shown.
    """

    key: str
    instruction: str
    clips: Mapping[str, str]
    tags: tuple[str, ...] = ()
    scores: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Gallery:
    """The samples of one place that are shown, of `total` that there are."""

    name: str
    samples: tuple[Sample, ...]
    total: int


def preview(source: bytes | Path, name: str) -> str:
    """Return a clip as a data URI of H.264 in 4:2:0, which every browser plays; or why it cannot be read."""
    try:
        clip = read_clip(source, max_frames=PREVIEW_FRAMES, name=name)
    except InputError as error:
        return str(error)
    scale = min(1.0, PREVIEW_SIDE / max(clip.size))
    height, width = (max(2, round(side * scale / 2) * 2) for side in clip.size)
    if (height, width) != clip.size:
        clip = fit_clip(clip, (height, width), "stretch")
    return "data:video/mp4;base64," + base64.b64encode(encode_clip(clip, crf=20)).decode()
