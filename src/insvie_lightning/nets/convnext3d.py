"""ConvNeXt-3D-Tiny: the network that sees DOVER's aesthetic view."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

_EPS = 1e-6
_TEMPORAL_KERNELS = (1, 3, 1)
"""Kernel along time of the blocks of a stage, in turn: the released inflation "131"."""


class ConvNext3d(nn.Module):
    """ConvNeXt (arXiv 2201.03545) inflated along time, as in the released DOVER code.

    Parameters have the names of the released DOVER checkpoint. What only training has, stochastic depth, is left out.

    Args:
        depths: Blocks of the stages.
        widths: Channels of the stages.
    """

    def __init__(self, depths: tuple[int, ...] = (3, 3, 9, 3), widths: tuple[int, ...] = (96, 192, 384, 768)) -> None:
        super().__init__()
        self.downsample_layers = nn.ModuleList(
            [nn.Sequential(nn.Conv3d(3, widths[0], (2, 4, 4), stride=(2, 4, 4)), ChannelNorm(widths[0], _EPS))]
        )
        for before, after in pairwise(widths):
            halve = nn.Conv3d(before, after, (1, 2, 2), stride=(1, 2, 2))
            self.downsample_layers.append(nn.Sequential(ChannelNorm(before, _EPS), halve))
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width, _TEMPORAL_KERNELS[i % len(_TEMPORAL_KERNELS)]) for i in range(depth)))
            for depth, width in zip(depths, widths, strict=True)
        )
        self.norm = ChannelNorm(widths[-1], _EPS)

    def forward(self, clips: Tensor) -> Tensor:
        """Map normalised clips B 3 F H W (F even, H and W multiples of 32) to features B C F/2 H/32 W/32."""
        features = clips
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            features = stage(downsample(features))
        return self.norm(features)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of B C T H W."""

    def forward(self, features: Tensor) -> Tensor:
        """B C T H W -> the same."""
        return super().forward(features.movedim(1, -1)).movedim(-1, 1)


class Block(nn.Module):
    """A depthwise convolution of `frames` x 7 x 7, then two layers on each place, scaled and added."""

    def __init__(self, width: int, frames: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), 1e-6))
        self.dwconv = nn.Conv3d(width, width, (frames, 7, 7), padding=(frames // 2, 3, 3), groups=width)
        self.norm = nn.LayerNorm(width, _EPS)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.pwconv2 = nn.Linear(4 * width, width)

    def forward(self, features: Tensor) -> Tensor:
        """B C T H W -> the same."""
        change = self.norm(self.dwconv(features).movedim(1, -1))
        change = self.gamma * self.pwconv2(gelu(self.pwconv1(change)))
        return features + change.movedim(-1, 1)
