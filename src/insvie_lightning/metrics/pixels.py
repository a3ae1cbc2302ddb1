"""PSNR and SSIM of an edit: against its source, against its source where nothing should change, against the truth."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from insvie_lightning.metrics.per_sample import EditedSample, PerSample

MAX_PSNR_DB = 100.0
"""What equal frames are given, whose PSNR is infinite, and no frame exceeds: one value must not decide a mean."""
_RADIUS = 5
"""Of SSIM's Gaussian window of 11 pixels (Wang et al., Image quality assessment, 2004, section III-C)."""


class Pixels(PerSample):
    """How near the pixels of an edit are; each value is the mean over frames.

    `psnr_source_db`, `ssim_source`: to the source, all over. `psnr_outside_db`, `ssim_outside`: to the source, outside
    of the edited region; SSIM only where its window touches no pixel of the region. `psnr_target_db`: to the target,
    and `source_psnr_target_db`: the source to the target, which is what returning the source would reach.

    PSNR is at most 100 dB in each frame, which is what equal frames get. Where the target is unknown, all but the first
    two are nan, which counts as missing. A frame that is edited all over has no value outside; SSIM of frames under 6
    pixels is nan, too.

    Args:
        threshold: The edited region of a frame is where source and target differ by more than this in a channel, of
            255 levels; 16 is above the noise of usual video compression (our choice).
    """

    higher_is_better = True
    names = (
        "psnr_source_db",
        "ssim_source",
        "psnr_outside_db",
        "ssim_outside",
        "psnr_target_db",
        "source_psnr_target_db",
    )

    def __init__(self, threshold: int = 16) -> None:
        # The base keeps what it takes of a source for all edits of it, but these have targets of their own.
        super().__init__(with_source=False)
        self.threshold = threshold

    def score(self, sample: EditedSample) -> tuple[float, ...]:
        """The six values."""
        targets = [None] * len(sample.edited) if sample.target is None else sample.target
        frames = zip(sample.edited, sample.source, targets, strict=True)
        values = [_frame_values(edited, source, target, self.threshold) for edited, source, target in frames]
        return tuple(torch.tensor(values, dtype=torch.float64).nanmean(0).tolist())


def _frame_values(edited: Tensor, source: Tensor, target: Tensor | None, threshold: int) -> tuple[float, ...]:
    """Values of one frame 3 H W, uint8."""
    similarity = ssim_map(edited / 255, source / 255)
    whole = (psnr_db(edited, source), _mean(similarity))
    if target is None:
        return (*whole, *[math.nan] * 4)
    region = (source.int() - target.int()).abs().amax(0) > threshold
    around = F.max_pool2d(region[None].float(), 2 * _RADIUS + 1, 1, _RADIUS)[0].bool()
    outside = (psnr_db(edited[:, ~region], source[:, ~region]), _mean(similarity[:, ~around]))
    return (*whole, *outside, psnr_db(edited, target), psnr_db(source, target))


def psnr_db(one: Tensor, other: Tensor) -> float:
    """PSNR in dB of uint8 values, at most 100; nan of none."""
    if not one.numel():
        return math.nan
    return min(float(peak_signal_noise_ratio(one.float(), other.float(), data_range=255.0)), MAX_PSNR_DB)


def ssim_map(one: Tensor, other: Tensor) -> Tensor:
    """SSIM at each pixel of two frames 3 H W in the unit interval, 3 H W; empty for frames under 6 pixels.

    Wang et al., Image quality assessment, 2004, for each colour; beyond the border, frames are mirrored.
    """
    if min(one.shape[1:]) <= _RADIUS:
        return one[:0]
    # Channels last: torch's convolution for each channel is three times as fast on a CPU.
    first, second = (frame[None].contiguous(memory_format=torch.channels_last) for frame in (one, other))
    return structural_similarity_index_measure(first, second, data_range=1.0, return_full_image=True)[1][0]


def _mean(values: Tensor) -> float:
    return float(values.mean()) if values.numel() else math.nan
