"""DOVER: technical and aesthetic quality of a video by two networks, each with a head."""

from collections import OrderedDict

from torch import Tensor, nn

from insvie_lightning.nets.convnext3d import ConvNext3d
from insvie_lightning.nets.swin3d import Swin3d

_FEATURES = 768


class DoverNet(nn.Module):
    """The network of DOVER (arXiv 2211.04894), as released; parameters have the names of `DOVER.pth`.

    It is for evaluation: what only training has, dropout and stochastic depth, is left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.technical_backbone = Swin3d()
        self.aesthetic_backbone = ConvNext3d()
        self.technical_head = _head()
        self.aesthetic_head = _head()

    def technical(self, clips: Tensor) -> Tensor:
        """Map fragment clips B 3 32 224 224 (normalised) to local qualities B 1 16 7 7, unbounded."""
        return self.technical_head(self.technical_backbone(clips))

    def aesthetic(self, clips: Tensor) -> Tensor:
        """Map resized clips B 3 32 224 224 (normalised) to local qualities B 1 16 7 7, unbounded."""
        return self.aesthetic_head(self.aesthetic_backbone(clips))


def _head() -> nn.Sequential:
    hidden, last = nn.Conv3d(_FEATURES, 64, 1), nn.Conv3d(64, 1, 1)
    return nn.Sequential(OrderedDict(fc_hid=hidden, gelu=nn.GELU(), fc_last=last))
