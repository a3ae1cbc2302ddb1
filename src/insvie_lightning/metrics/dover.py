"""DOVER: how good a video looks, technically and aesthetically, without a reference.

Views, constants and their quirks are those of the released code (github.com/VQAssessment/DOVER), which draws its views
without a seed; here a sample's key seeds them, so that values can be had again.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from insvie_lightning.errors import InputError
from insvie_lightning.metrics.per_sample import EditedSample, PerSample
from insvie_lightning.nets.frozen import Frozen

if TYPE_CHECKING:
    from insvie_lightning.nets.dover import DoverNet

WEIGHTS = "teowu/DOVER"

_FILE = "DOVER.pth"
_CLIPS, _FRAMES, _STRIDE = 3, 32, 2
_SIDE, _GRID = 224, 7
_FRAGMENT = _SIDE // _GRID
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class Dover(PerSample):
    """Quality of a video as people see it in natural videos, after DOVER (arXiv 2211.04894); all in 0..1.

    `dover_technical` is about noise, blur and other distortions, `dover_aesthetic` about what is shown and how it is
    composed, `dover_overall` is the fusion of both that published tables give. Generated videos come near the ends of
    the scale, so compare only values of one program at one size and length: the aesthetic view of fewer than 32 frames
    is the first frame alone.

    The weights are not part of this package. They are under the S-Lab License 1.0, which forbids commercial use.

    Args:
        weights: `DOVER.pth`, its folder, or a hub id.
        antialias: Smooth frames when they are made smaller for the aesthetic view. Published values come from releases
            of torchvision that did not, whence False; True is torchvision's default since 0.17, and shifts them.
        samples: Draws of the random views, at least 1; the networks' outputs are averaged before they are fused.
        with_source: Also give the three values of the unedited source.

    Raises:
        InputError: `samples` is below 1.
    """

    names = ("dover_technical", "dover_aesthetic", "dover_overall")
    source_names = names
    higher_is_better = True

    def __init__(
        self, weights: str = WEIGHTS, antialias: bool = False, samples: int = 1, with_source: bool = True
    ) -> None:
        super().__init__(with_source)
        if samples < 1:
            raise InputError(f"samples is {samples}; DOVER needs at least 1")
        self.antialias = antialias
        self.samples = samples
        self._net = Frozen(partial(load_dover, weights))

    def prepare(self) -> None:
        """Load the network.

        Raises:
            InputError: As `load_dover`.
        """
        self._net.on(self.device)

    def score(self, sample: EditedSample) -> tuple[float, ...]:
        """Return technical, aesthetic and overall quality in 0..1.

        Raises:
            InputError: The clip is smaller than 32 x 32.
        """
        clip = sample.edited
        height, width = clip.shape[-2:]
        if min(height, width) < _FRAGMENT:
            raise InputError(
                f"sample {sample.key!r} is {width}x{height}; DOVER looks at pieces of {_FRAGMENT}x{_FRAGMENT} pixels, "
                "which is the smallest size it takes"
            )
        net = self._net.on(clip.device)
        generator = torch.Generator().manual_seed(_seed(sample.key))
        technical = aesthetic = 0.0
        for _ in range(self.samples):
            technical += float(net.technical(technical_view(clip, generator)).mean()) / self.samples
            aesthetic += float(net.aesthetic(aesthetic_view(clip, generator, self.antialias)).mean()) / self.samples
        return fuse(technical, aesthetic)


def fuse(technical: float, aesthetic: float) -> tuple[float, float, float]:
    """Map what the heads give on average to technical, aesthetic and overall quality in 0..1.

    Shifts, scales and shares are those of the released `evaluate_a_set_of_videos.py`.
    """
    t, a = (technical - 0.1107) / 0.07355, (aesthetic + 0.08285) / 0.03774
    scores = torch.tensor([t, a, 0.6104 * t + 0.3896 * a], dtype=torch.float64).sigmoid().tolist()
    return scores[0], scores[1], scores[2]


def technical_view(clip: Tensor, generator: torch.Generator) -> Tensor:
    """Three clips of fragments at the video's own resolution.

    Args:
        clip: F 3 H W, uint8.
        generator: On the CPU; draws frames and fragments.

    Returns:
        3 3 32 224 224, normalised.
    """
    frames = technical_frames(len(clip), generator)
    return torch.cat([_normalise(fragments(clip[indices.to(clip.device)], generator)) for indices in frames])


def aesthetic_view(clip: Tensor, generator: torch.Generator, antialias: bool = False) -> Tensor:
    """One clip of whole frames, squashed to a square.

    Args:
        clip: F 3 H W, uint8.
        generator: On the CPU; draws frames.
        antialias: Smooth frames that are made smaller; see `Dover`.

    Returns:
        1 3 32 224 224, normalised.
    """
    from torchvision.transforms.functional import resize

    frames = clip[aesthetic_frames(len(clip), generator).to(clip.device)]
    return _normalise(resize(frames, [_SIDE, _SIDE], antialias=antialias))


def technical_frames(frames: int, generator: torch.Generator) -> Tensor:
    """Indices 3 x 32 into a video of so many frames: every second frame from each third on, beginning anew at the end.

    Where a third is longer than 64 frames, the start in it is drawn.
    """
    starts = _starts(frames, _CLIPS, _FRAMES * _STRIDE, generator)
    return (starts[:, None] + _STRIDE * torch.arange(_FRAMES)) % frames


def aesthetic_frames(frames: int, generator: torch.Generator) -> Tensor:
    """Indices 32 into a video of so many frames: the first of each 32nd, or one drawn where that has more than 2.

    As released, a video of fewer than 32 frames gives its first one 32 times.
    """
    return _starts(frames, _FRAMES, _STRIDE, generator)


def fragments(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Tile a 7 x 7 grid of pieces of 32 x 32 pixels, one drawn in each cell of the picture, the same in all frames.

    As released, pictures below 224 pixels are enlarged to that, but the pieces are drawn from the grid of the original
    size, so that only the upper left of the enlarged picture is seen.

    Args:
        frames: N 3 H W, uint8, H and W at least 32.
        generator: On the CPU; draws the pieces.

    Returns:
        N 3 224 224, uint8.
    """
    height, width = frames.shape[-2:]
    rows, columns = _places(height, generator), _places(width, generator).mT
    if min(height, width) < _SIDE:
        scale = 1 / min(height / _SIDE, width / _SIDE)
        frames = (interpolate(frames / 255, scale_factor=scale, mode="bilinear") * 255).to(torch.uint8)
    piece = torch.arange(_FRAGMENT)
    rows = (rows[..., None, None] + piece[:, None]).to(frames.device)
    columns = (columns[..., None, None] + piece).to(frames.device)
    pieces = frames[:, :, rows, columns]  # N 3 7 7 32 32
    return pieces.transpose(3, 4).reshape(len(frames), 3, _SIDE, _SIDE)


def load_dover(weights: str = WEIGHTS) -> DoverNet:
    """Load the released network.

    Args:
        weights: `DOVER.pth`, its folder, or a hub id.

    Raises:
        InputError: It is none of these, or the file is damaged or of another model.
    """
    from insvie_lightning.nets.dover import DoverNet
    from insvie_lightning.nets.hub import model_file
    from insvie_lightning.weights.checks import require_fit
    from insvie_lightning.weights.sat_checkpoint import read_tensors

    advice = f"put {_FILE} (github.com/VQAssessment/DOVER, non-commercial) into a folder and name that as `weights`"
    file = model_file(weights, [_FILE], advice)
    tensors, _ = read_tensors(file)
    with torch.device("meta"):
        net = DoverNet()
    require_fit(tensors, net.state_dict(), str(file))
    net.load_state_dict(tensors, assign=True)
    return net.float()


def _starts(frames: int, cells: int, length: int, generator: torch.Generator) -> Tensor:
    """Where to begin in each of so many equal parts of a video, drawn where a part is longer than `length`."""
    part = frames // cells
    return part * torch.arange(cells) + _draw(part - length, (cells,), generator)


def _places(side: int, generator: torch.Generator) -> Tensor:
    """Where the pieces begin along one side of the picture, cells along it x cells across it."""
    cell = side // _GRID
    first = (cell * torch.arange(_GRID)).clamp(max=side - _FRAGMENT)
    return first[:, None] + _draw(cell - _FRAGMENT, (_GRID, _GRID), generator)


def _draw(spare: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Whole numbers in [0, spare), as released: the last place is never drawn; 0 where nothing is to spare."""
    return torch.randint(spare, shape, generator=generator) if spare > 0 else torch.zeros(shape, dtype=torch.int64)


def _normalise(frames: Tensor) -> Tensor:
    """F 3 H W uint8 -> 1 3 F H W with the mean and deviation of ImageNet's colours."""
    mean, std = frames.new_tensor(_MEAN, dtype=torch.float32), frames.new_tensor(_STD, dtype=torch.float32)
    return ((frames - mean[:, None, None]) / std[:, None, None]).transpose(0, 1)[None]


def _seed(key: str) -> int:
    """63 bits of a key's hash."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1
