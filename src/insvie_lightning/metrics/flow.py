"""Optical flow of a clip, by one of three backends; flows of different backends are not comparable.

`dis`: OpenCV's dense inverse search (Kroeger et al., arXiv 1603.03590); needs no weights. `raft`: torchvision's
`raft_large` (Teed and Deng, arXiv 2003.12039). `gmflow`: GMFlow (Xu et al., arXiv 2111.13680), as in V2VBench.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from insvie_lightning.errors import InputError, first_line, nearest
from insvie_lightning.nets.frozen import Frozen
from insvie_lightning.nets.gmflow import MULTIPLE, GMFlow
from insvie_lightning.weights.checks import require_fit
from insvie_lightning.weights.sat_checkpoint import read_tensors

BackendName = Literal["dis", "raft", "gmflow"]


class FlowBackend(Protocol):
    """Anything that gives the flow of a clip."""

    def prepare(self) -> None:
        """Load what is needed.

        Raises:
            InputError: Weights are absent, damaged or of another model.
        """

    def __call__(self, clip: Tensor) -> Tensor:
        """Flow from each frame to the next.

        Args:
            clip: F 3 H W, uint8 RGB.

        Returns:
            F-1 2 H W, float32, on the clip's device, in pixels of the clip: how far to the right and how far down a
            point has moved. Pairs of frames are worked on one by one.
        """


def flow_backend(name: BackendName, weights: str | None = None) -> FlowBackend:
    """The backend of a name.

    Args:
        name: `dis`, `raft` or `gmflow`.
        weights: A local file. `gmflow` needs one (`gmflow_sintel-0c07dcb3.pth` for V2VBench's numbers), `raft` takes
            torchvision's own (`Raft_Large_Weights.C_T_SKHT_V2`) without one, `dis` has none.

    Raises:
        InputError: The name is none of these, or name and weights do not go together.
    """
    if name == "dis":
        if weights is not None:
            raise InputError(f"the flow backend 'dis' has no weights, and was given {weights!r}")
        return DisBackend()
    if name == "raft":
        return RaftBackend(weights)
    if name == "gmflow":
        if weights is None:
            raise InputError(
                "the flow backend 'gmflow' needs weights: the file gmflow_sintel-0c07dcb3.pth of the authors' "
                "pretrained.zip (github.com/haofeixu/gmflow)"
            )
        return GMFlowBackend(weights)
    legal = get_args(BackendName)
    raise InputError(f"the flow backend {name!r} is unknown; legal are {', '.join(legal)}{nearest(name, legal)}")


class DisBackend:
    """OpenCV's DIS with its medium preset, on grey frames; runs on the CPU and gives the same on any number of cores.

    Frames are padded by their border to at least 12 pixels, because OpenCV refuses smaller ones.
    """

    def prepare(self) -> None:
        """Nothing is to be loaded."""

    def __call__(self, clip: Tensor) -> Tensor:
        """As `FlowBackend`."""
        import cv2

        search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        frames, inside = pad(clip.cpu(), multiple=1, least=12)
        grey = [cv2.cvtColor(frame.movedim(0, -1).numpy(), cv2.COLOR_RGB2GRAY) for frame in frames]

        def flow(index: int) -> Tensor:
            return torch.from_numpy(search.calc(grey[index], grey[index + 1], None)).movedim(-1, 0)

        return _pair_by_pair(clip, flow, inside)


class RaftBackend:
    """torchvision's `raft_large` with twelve updates.

    Frames are padded on all sides by their border, to multiples of 8 (as RAFT's released code does) and to at least
    128 pixels (torchvision refuses less); they are never scaled, so that a pixel stays a pixel.

    Args:
        weights: A file of `raft_large`'s weights; None takes torchvision's C_T_SKHT_V2 out of its cache, or fetches it.
    """

    def __init__(self, weights: str | None = None) -> None:
        self._net = Frozen(lambda: load_raft(weights))

    def prepare(self) -> None:
        """Load the network."""
        self._net.on("cpu")

    def __call__(self, clip: Tensor) -> Tensor:
        """As `FlowBackend`."""
        net = self._net.on(clip.device)
        frames, inside = pad(clip, multiple=8, least=128)

        def flow(index: int) -> Tensor:
            first, second = frames[index : index + 2].float() / 127.5 - 1
            return net(first[None], second[None])[-1][0]

        return _pair_by_pair(clip, flow, inside)


class GMFlowBackend:
    """GMFlow; frames are padded on all sides by their border to multiples of 16, as its released code does.

    V2VBench's padding has no effect, and refuses other sizes, so that numbers are the same wherever it gives any.

    Args:
        weights: A released checkpoint of the one-scale model (`{"model": ...}`), or its tensors alone.
    """

    def __init__(self, weights: str) -> None:
        self._net = Frozen(lambda: load_gmflow(weights))

    def prepare(self) -> None:
        """Load the network."""
        self._net.on("cpu")

    def __call__(self, clip: Tensor) -> Tensor:
        """As `FlowBackend`."""
        net = self._net.on(clip.device)
        frames, inside = pad(clip, multiple=MULTIPLE, least=MULTIPLE)
        features: dict[int, Tensor] = {}  # of the pair at hand; the second frame of one is the first of the next

        def flow(index: int) -> Tensor:
            first = features.pop(index) if index in features else net.encode(frames[index : index + 1].float())
            features[index + 1] = net.encode(frames[index + 1 : index + 2].float())
            return net.match(first, features[index + 1])[0]

        return _pair_by_pair(clip, flow, inside)


def pad(clip: Tensor, multiple: int, least: int) -> tuple[Tensor, tuple[slice, slice]]:
    """Repeat the border of frames F C H W to a legal size, half on each side, the odd pixel right and below.

    Args:
        clip: Of any type.
        multiple: Of which height and width become multiples.
        least: What they become at least; a multiple of `multiple`.

    Returns:
        The larger frames, and the rows and columns of them that are the given ones.
    """
    places = []
    for dim in (-2, -1):
        size = clip.shape[dim]
        legal = max(-(-size // multiple) * multiple, least)
        before = (legal - size) // 2
        clip = clip.index_select(dim, torch.arange(-before, legal - before, device=clip.device).clamp(0, size - 1))
        places.append(slice(before, before + size))
    return clip, (places[0], places[1])


def load_gmflow(weights: str | Path) -> GMFlow:
    """GMFlow with the weights of a file.

    Raises:
        InputError: The file is absent or damaged, or does not hold exactly the weights of the one-scale model.
    """
    net = GMFlow()
    _load(net, Path(weights))
    return net


def load_raft(weights: str | Path | None = None) -> nn.Module:
    """RAFT (`raft_large`) with the weights of a file, of torchvision's cache, or fetched into it now.

    Raises:
        InputError: The weights are not to be had, damaged, or of another model.
    """
    from torchvision.models.optical_flow import Raft_Large_Weights, raft_large

    if weights is None:
        url = Raft_Large_Weights.C_T_SKHT_V2.url
        file = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                torch.hub.download_url_to_file(url, str(file), hash_prefix=file.stem.rsplit("-", 1)[1], progress=False)
            except (OSError, RuntimeError) as error:  # no network; another file than was asked for
                raise InputError(
                    f"RAFT's weights {file.name} are not in {file.parent} and could not be fetched "
                    f"({first_line(error)}): put them there, give a local file as weights, or take the backend 'dis'"
                ) from error
    else:
        file = Path(weights)
    net = raft_large(weights=None)
    _load(net, file)
    return net


def _load(net: nn.Module, file: Path) -> None:
    weights, _ = read_tensors(file)
    require_fit(weights, net.state_dict(), str(file))
    net.load_state_dict(weights)


def _pair_by_pair(clip: Tensor, flow: Callable[[int], Tensor], inside: tuple[slice, slice]) -> Tensor:
    """Flow of each pair, 2 H W of padded frames by the number of its first frame, cut to the clip's own size."""
    frames, _, height, width = clip.shape
    result = torch.empty(max(frames - 1, 0), 2, height, width, device=clip.device)
    for index in range(frames - 1):
        result[index] = flow(index)[:, *inside]
    return result
