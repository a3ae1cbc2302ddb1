"""GMFlow: optical flow by global matching of transformer features, under the names of the released weights.

Xu et al., GMFlow, arXiv 2111.13680; the sections below are the paper's. This is the one-scale model (`gmflow_sintel`,
`gmflow_things`, ...: 4.68 million weights in 123 tensors) with what its released code computes where the paper leaves
it open: windows of half the height and width, matching and propagation over the whole picture, the forward flow.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_CHANNELS, _LAYERS, _FACTOR = 128, 6, 8
_SPLITS = 2
"""Windows of attention along each side."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MULTIPLE = _FACTOR * _SPLITS
"""Of which height and width must be multiples."""


class GMFlow(nn.Module):
    """Flow from one frame to another."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = _Encoder()
        self.transformer = _Transformer()
        self.feature_flow_attn = _Propagation()
        self.upsampler = nn.Sequential(
            nn.Conv2d(2 + _CHANNELS, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 9 * _FACTOR**2, 1)
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Flow from `first` to `second`.

        Args:
            first: N 3 H W, RGB in 0..255, float; H and W are multiples of 16.
            second: The same.

        Returns:
            N 2 H W in pixels: how far to the right and how far down a point of `first` has moved.
        """
        return self.match(self.encode(first), self.encode(second))

    def encode(self, frames: Tensor) -> Tensor:
        """Features N 128 H/8 W/8 of frames N 3 H W, which each frame has for itself and which two pairs can share."""
        mean, std = (frames.new_tensor(values)[:, None, None] for values in (_MEAN, _STD))
        return self.backbone((frames / 255 - mean) / std)

    def match(self, first: Tensor, second: Tensor) -> Tensor:
        """Flow N 2 H W in pixels between frames of the features N 128 H/8 W/8."""
        height, width = first.shape[-2:]
        window = sine_position(height // _SPLITS, width // _SPLITS, first)
        position = window.tile(_SPLITS, _SPLITS, 1)
        one, other = self.transformer(first.movedim(1, -1) + position, second.movedim(1, -1) + position)
        points, targets = one.flatten(1, 2), other.flatten(1, 2)
        x, y = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy")
        grid = torch.stack([x, y], -1).flatten(0, 1).to(points).expand(len(points), -1, -1)
        # Section 3.2: where a point is found, on average over the softmax of its correlations, less where it was.
        flow = F.scaled_dot_product_attention(points, targets, grid) - grid
        flow = self.feature_flow_attn(points, flow)
        return self._upsample(flow.mT.unflatten(2, (height, width)), one.movedim(-1, 1))

    def _upsample(self, flow: Tensor, features: Tensor) -> Tensor:
        """Each fine pixel is a convex combination of the 3 x 3 coarse ones around it (Teed and Deng, RAFT, 3.3)."""
        count, _, height, width = flow.shape
        weights = self.upsampler(torch.cat([flow, features], 1))
        weights = weights.view(count, 9, _FACTOR, _FACTOR, height, width).softmax(1)
        around = F.unfold(_FACTOR * flow, 3, padding=1).view(count, 2, 9, height, width)
        fine = torch.einsum("nkijhw,nckhw->nchiwj", weights, around)
        return fine.reshape(count, 2, _FACTOR * height, _FACTOR * width)


def sine_position(height: int, width: int, like: Tensor) -> Tensor:
    """DETR's sine embedding, H W C: half the channels tell the row, half the column, both counted from 1 up to 2 pi."""
    half = _CHANNELS // 2
    periods = 10000 ** (2 * (torch.arange(half, dtype=like.dtype, device=like.device) // 2) / half)

    def embed(size: int) -> Tensor:
        place = torch.arange(1, size + 1, dtype=like.dtype, device=like.device) / (size + 1e-6) * 2 * math.pi
        angles = place[:, None] / periods
        return torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], -1).flatten(1)

    rows, columns = embed(height)[:, None].expand(-1, width, -1), embed(width)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], -1)


class _Block(nn.Module):
    """Two convolutions around a short cut."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.InstanceNorm2d(channels)
        self.downsample = (
            nn.Identity()
            if channels_in == channels and stride == 1
            else nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride), nn.InstanceNorm2d(channels))
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv1(x)).relu()
        y = self.norm(self.conv2(y)).relu()  # a second one, inside of the last
        return (self.downsample(x) + y).relu()


class _Encoder(nn.Module):
    """RAFT's residual network down to an eighth."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.norm1 = nn.InstanceNorm2d(64)
        self.layer1 = nn.Sequential(_Block(64, 64, 1), _Block(64, 64, 1))
        self.layer2 = nn.Sequential(_Block(64, 96, 2), _Block(96, 96, 1))
        self.layer3 = nn.Sequential(_Block(96, 128, 2), _Block(128, 128, 1))
        self.conv2 = nn.Conv2d(128, _CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.conv1(x)).relu()
        return self.conv2(self.layer3(self.layer2(self.layer1(x))))


class _Attention(nn.Module):
    """Attention of one head inside of windows; with `feed_forward`, a network over its result and its input follows."""

    def __init__(self, feed_forward: bool) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.merge = (
            nn.Linear(_CHANNELS, _CHANNELS, bias=False) for _ in range(4)
        )
        self.norm1 = nn.LayerNorm(_CHANNELS)
        self.feed_forward = feed_forward
        if feed_forward:
            wide = 2 * _CHANNELS
            self.mlp = nn.Sequential(
                nn.Linear(wide, 4 * wide, bias=False), nn.GELU(), nn.Linear(4 * wide, _CHANNELS, bias=False)
            )
            self.norm2 = nn.LayerNorm(_CHANNELS)

    def forward(self, x: Tensor, other: Tensor, mask: Tensor | None) -> Tensor:
        """What N H W C becomes by what it finds in `other`; with a mask, windows are shifted by half their size."""
        size = (x.shape[1], x.shape[2])
        shift = [0, 0] if mask is None else [side // _SPLITS // 2 for side in size]
        query, key, value = (
            _split(project(each).roll([-step for step in shift], (1, 2)))
            for project, each in ((self.q_proj, x), (self.k_proj, other), (self.v_proj, other))
        )
        found = _join(F.scaled_dot_product_attention(query, key, value, mask), size).roll(shift, (1, 2))
        message = self.norm1(self.merge(found))
        if self.feed_forward:
            message = self.norm2(self.mlp(torch.cat([x, message], -1)))
        return x + message


class _Layer(nn.Module):
    """Section 3.1: a frame looks at itself, then at the other."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn = _Attention(feed_forward=False)
        self.cross_attn_ffn = _Attention(feed_forward=True)

    def forward(self, x: Tensor, other: Tensor, mask: Tensor | None) -> Tensor:
        return self.cross_attn_ffn(self.self_attn(x, x, mask), other, mask)


class _Transformer(nn.Module):
    """Six layers, of which every second has shifted windows; both frames go through them side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer() for _ in range(_LAYERS))

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([first, second])
        mask = _shift_mask(first.shape[1], first.shape[2]).to(both)
        for number, layer in enumerate(self.layers):
            both = layer(both, both.roll(len(first), 0), mask if number % 2 else None)
        return both[: len(first)], both[len(first) :]


class _Propagation(nn.Module):
    """Section 3.3: where matching fails, flow comes from points that look alike."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(_CHANNELS, _CHANNELS)
        self.k_proj = nn.Linear(_CHANNELS, _CHANNELS)

    def forward(self, features: Tensor, flow: Tensor) -> Tensor:
        query = self.q_proj(features)
        # The released weights were trained so: the key is a projection of the query, not of the features.
        return F.scaled_dot_product_attention(query, self.k_proj(query), flow)


def _split(x: Tensor) -> Tensor:
    """N H W C -> N, windows, points of a window, C."""
    x = x.unflatten(2, (_SPLITS, -1)).unflatten(1, (_SPLITS, -1))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _join(windows: Tensor, size: tuple[int, int]) -> Tensor:
    """Undo `_split` for height and width."""
    x = windows.unflatten(2, (size[0] // _SPLITS, -1)).unflatten(1, (_SPLITS, _SPLITS))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _shift_mask(height: int, width: int) -> Tensor:
    """-100 between points that share a shifted window without being neighbours in the picture, else 0 (Swin, 3.2)."""

    def parts(size: int) -> Tensor:
        window, place = size // _SPLITS, torch.arange(size)
        return (place >= size - window).long() + (place >= size - window // 2)

    part = _split((3 * parts(height)[:, None] + parts(width))[None, ..., None])[0]
    return -100.0 * (part != part.mT)
