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
    of the edited region; SSIM only where its window touches no pixel of the region. `psnr_target_db`: to the target.
    The last three are nan, which counts as missing, where the target is unknown; those outside also where the region is
    the whole clip, and frames of which it is the whole are left out. SSIM needs frames of at least 11 pixels, else it
    is nan. PSNR is at most 100 dB in each frame, which is what equal frames get.

    Args:
        threshold: The edited region of a frame is where source and target differ by more than this in a channel, of
            255 levels; 16 is above the noise of usual video compression (our choice).
        with_source: Also give `source_psnr_target_db`: what returning the source would reach.
    """

    higher_is_better = True
    names = ("psnr_source_db", "ssim_source", "psnr_outside_db", "ssim_outside", "psnr_target_db")
    source_names = ("psnr_target_db",)

    def __init__(self, threshold: int = 16, with_source: bool = True) -> None:
        super().__init__(with_source)
        self.threshold = threshold

    def score(self, sample: EditedSample) -> tuple[float, ...]:
        """The five values."""
        values = [
            _frame_values(
                sample.edited[index] / 255,
                sample.source[index] / 255,
                None if sample.target is None else sample.target[index] / 255,
                self.threshold / 255,
            )
            for index in range(len(sample.edited))
        ]
        return tuple(torch.tensor(values, dtype=torch.float64).nanmean(0).tolist())


def _frame_values(edited: Tensor, source: Tensor, target: Tensor | None, threshold: float) -> tuple[float, ...]:
    """Values of one frame 3 H W in the unit interval."""
    similarity = ssim_map(edited, source)
    whole = (psnr_db(edited, source), _mean(similarity))
    if target is None:
        return (*whole, math.nan, math.nan, math.nan)
    region = (source - target).abs().amax(0) > threshold
    around = F.max_pool2d(region[None].float(), 2 * _RADIUS + 1, 1, _RADIUS)[0].bool()
    clear = ~around[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]
    outside = (psnr_db(edited[:, ~region], source[:, ~region]), _mean(similarity[:, clear]))
    return (*whole, *outside, psnr_db(edited, target))


def psnr_db(one: Tensor, other: Tensor) -> float:
    """PSNR in dB of values in the unit interval, at most 100; nan of none."""
    if not one.numel():
        return math.nan
    return min(float(peak_signal_noise_ratio(one, other, data_range=1.0)), MAX_PSNR_DB)


def ssim_map(one: Tensor, other: Tensor) -> Tensor:
    """SSIM of two frames 3 H W in the unit interval, 3 H-10 W-10: at each pixel whose window is inside of the picture.

    Its mean is the SSIM of Wang et al. (Image quality assessment, 2004) over colour channels. Empty for smaller frames.
    """
    if min(one.shape[1:]) <= 2 * _RADIUS:
        return one[:, :0, :0]
    _, full = structural_similarity_index_measure(one[None], other[None], data_range=1.0, return_full_image=True)
    return full[0, :, _RADIUS:-_RADIUS, _RADIUS:-_RADIUS]


def _mean(values: Tensor) -> float:
    return float(values.mean()) if values.numel() else math.nan
