"""LightningModules that edit videos, and the one that reads edits made elsewhere."""

from insvie_lightning.editors.given import GivenEdits
from insvie_lightning.editors.insvie import InsViE

__all__ = ["GivenEdits", "InsViE"]
