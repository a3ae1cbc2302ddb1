"""Look at a checkpoint of Lightning before it is loaded, so that nothing in it is executed."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from insvie_lightning.errors import InputError, first_line
from insvie_lightning.files import open_regular
from insvie_lightning.weights.sat_checkpoint import load_plain

_META, _INDEX = "meta.pt", ".metadata"
"""In the folder of a sharded checkpoint: Lightning's part, and the index that torch writes as a pickle."""
_PLAIN = {
    "builtins": {"set", "frozenset"},
    "collections": {"OrderedDict"},
    "torch": {"Size"},
    "torch.serialization": {"_get_layout"},
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo", "_StoragePrefix"},
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "pathlib": {"Path", "PosixPath"},
}
"""What an index is made of, beside torch's types of numbers."""


def check_checkpoint(path: Path) -> None:
    """Refuse what is no checkpoint, or holds more than numbers and text.

    Args:
        path: A file, or the folder of a sharded checkpoint.

    Raises:
        InputError: It is damaged, holds code, or is something else.
    """
    content = load_plain(path / _META if path.is_dir() else path)
    if path.is_dir():
        _check_index(path / _INDEX)
    elif not (
        isinstance(content, dict)
        and isinstance(content.get("state_dict"), dict)
        and isinstance(content.get("pytorch-lightning_version"), str)
    ):
        raise InputError(f"{path} is no checkpoint of a run; legal is a .ckpt that `insvie fit` writes, last or best")


class _IndexReader(pickle.Unpickler):
    """Builds nothing but what torch's own index is made of (`torch.distributed.checkpoint.metadata`)."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class that an index may name."""
        number = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if number or name in _PLAIN.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _check_index(path: Path) -> None:
    with open_regular(path, "the index of a sharded checkpoint") as file:
        try:
            _IndexReader(file).load()
        except Exception as error:  # a reader of pickles raises whatever the bytes lead it into
            raise InputError(f"{path} is damaged, or holds code, which is not run: {first_line(error)}") from None
