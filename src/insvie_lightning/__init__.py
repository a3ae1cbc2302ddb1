"""Instruction-based video editing: build the data, train the editor, edit and score videos.

The public names load on first use, so that importing the package costs nothing.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from insvie_lightning.batch import Clip, EditBatch, Triplet
    from insvie_lightning.editors.editor import Editor
    from insvie_lightning.editors.insvie import InsViE
    from insvie_lightning.editors.options import EditOptions

    __version__: str

__all__ = ["Clip", "EditBatch", "EditOptions", "Editor", "InsViE", "Triplet", "__version__"]

_HOMES = {
    "Clip": "insvie_lightning.batch",
    "EditBatch": "insvie_lightning.batch",
    "EditOptions": "insvie_lightning.editors.options",
    "Editor": "insvie_lightning.editors.editor",
    "InsViE": "insvie_lightning.editors.insvie",
    "Triplet": "insvie_lightning.batch",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("insvie-lightning")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
