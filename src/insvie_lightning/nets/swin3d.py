"""Swin-3D-Tiny with gated relative position bias: the network that sees DOVER's technical views."""

from collections import OrderedDict
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torchvision.models.swin_transformer import PatchMerging
from torchvision.models.video.swin_transformer import PatchEmbed3d

Box = tuple[int, ...]
"""Lengths along time, height and width."""

_PATCH: Box = (2, 4, 4)
_WINDOW: Box = (8, 7, 7)
_GRID = 7
"""Fragments along each side of a technical view."""


class Swin3d(nn.Module):
    """The Video Swin Transformer (arXiv 2106.13230) with FAST-VQA's gated bias (arXiv 2207.02595, section 3.3).

    Parameters have the names of the released DOVER checkpoint. What only training has, stochastic depth, is left out.

    Args:
        width: Channels of the first stage; they double with each stage.
        depths: Blocks of the stages.
        heads: Attention heads of the stages.
    """

    def __init__(
        self, width: int = 96, depths: tuple[int, ...] = (2, 2, 6, 2), heads: tuple[int, ...] = (3, 6, 12, 24)
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed3d(list(_PATCH), embed_dim=width, norm_layer=nn.LayerNorm)
        self.layers = nn.Sequential()
        for stage, (depth, stage_heads) in enumerate(zip(depths, heads, strict=True)):
            last = stage == len(depths) - 1
            channels = width * 2**stage
            blocks = [Block(channels, stage_heads, shifted=bool(i % 2), gated=not last) for i in range(depth)]
            layer = nn.Sequential(OrderedDict(blocks=nn.Sequential(*blocks)))
            if not last:
                layer.add_module("downsample", PatchMerging(channels))
            self.layers.append(layer)
        self.norm = nn.LayerNorm(channels)

    def forward(self, clips: Tensor) -> Tensor:
        """Map normalised clips B 3 F 224 224, F even and at most 16 or a multiple of 16, to features B C F/2 7 7."""
        return self.norm(self.layers(self.patch_embed(clips))).movedim(-1, 1)


class Block(nn.Module):
    """Attention in windows, then two layers on each token; tokens are B T H W C."""

    def __init__(self, channels: int, heads: int, shifted: bool, gated: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads, shifted, gated)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            OrderedDict(fc1=nn.Linear(channels, 4 * channels), gelu=nn.GELU(), fc2=nn.Linear(4 * channels, channels))
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """B T H W C -> the same."""
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class WindowAttention(nn.Module):
    """Attention among the tokens of one window, with a bias for each pair of places.

    Args:
        channels: Of a token.
        heads: Of attention.
        shifted: Move the windows by half their size.
        gated: Two tokens take their bias from the fragment table when they are of one fragment, and from the relative
            table in proportion to the distance of their fragments otherwise.
    """

    relative_position_index: Tensor
    fragment_position_bias_table: nn.Parameter | None

    def __init__(self, channels: int, heads: int, shifted: bool, gated: bool) -> None:
        super().__init__()
        self.heads, self.shifted = heads, shifted
        distances = prod(2 * side - 1 for side in _WINDOW)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(distances, heads))
        table = nn.Parameter(torch.zeros(distances, heads)) if gated else None
        self.register_parameter("fragment_position_bias_table", table)
        self.register_buffer("relative_position_index", _distance_index())
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """B T H W C -> the same; T, H and W are multiples of the window's sides, or shorter than them."""
        size = tuple(tokens.shape[1:4])
        window = tuple(map(min, size, _WINDOW))
        # Windows do not move along an axis that one of them spans.
        shift = tuple(part // 2 * (self.shifted and part < side) for part, side in zip(window, size, strict=True))
        bias = self._bias(size, window, shift)

        parts = _split(tokens.roll([-step for step in shift], (1, 2, 3)), window)
        q, k, v = self.qkv(parts).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5).flatten(2, 3)
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=bias.flatten(0, 1)[None])
        mixed = mixed.unflatten(1, (-1, self.heads)).transpose(2, 3).flatten(3)
        return _merge(self.proj(mixed), size, window).roll(shift, (1, 2, 3))

    def _bias(self, size: Box, window: Box, shift: Box) -> Tensor:
        """What is added to the logits, windows x heads x N x N."""
        index = self.relative_position_index[: prod(window), : prod(window)]
        bias = self.relative_position_bias_table[index].movedim(-1, 0)
        axes = [torch.arange(side, device=index.device).roll(-step) for side, step in zip(size, shift, strict=True)]
        places = _split(torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)[None], window)[0]  # windows N 3
        if self.fragment_position_bias_table is not None:
            fragments = (places[..., 1:] * _GRID // places.new_tensor(size[1:])).float()
            # As released, the gate counts fragments and is not cut at 1.
            gate = torch.cdist(fragments, fragments, p=1)[:, None]
            within = self.fragment_position_bias_table[index].movedim(-1, 0)
            bias = within + gate * (bias - within)
        if any(shift):
            # Rolling has brought the first places behind the last ones, which are no neighbours.
            wrapped = (places < places.new_tensor(shift)).float()
            bias = bias - 100 * torch.cdist(wrapped, wrapped, p=1).clamp(max=1)[:, None]
        return bias.expand(len(places), -1, -1, -1)


def _distance_index() -> Tensor:
    """Row in the bias tables for each pair of places in a window, N N: 3-D distance, counted row by row."""
    places = torch.cartesian_prod(*(torch.arange(side) for side in _WINDOW))
    distance = places[:, None] - places[None] + torch.tensor(_WINDOW) - 1
    _, h, w = (2 * side - 1 for side in _WINDOW)
    return distance @ torch.tensor([h * w, w, 1])


def _split(tokens: Tensor, window: Box) -> Tensor:
    """B T H W C -> B windows N C."""
    b, t, h, w, c = tokens.shape
    dt, dh, dw = window
    grid = tokens.reshape(b, t // dt, dt, h // dh, dh, w // dw, dw, c)
    return grid.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(b, -1, dt * dh * dw, c)


def _merge(parts: Tensor, size: Box, window: Box) -> Tensor:
    """B windows N C -> B T H W C."""
    (t, h, w), (dt, dh, dw) = size, window
    grid = parts.reshape(len(parts), t // dt, h // dh, w // dw, dt, dh, dw, -1)
    return grid.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(len(parts), t, h, w, -1)
