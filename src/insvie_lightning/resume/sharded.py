"""Look at the folder of a sharded checkpoint before torch reads it: it is whole, and nothing in it is executed."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from insvie_lightning.errors import InputError, first_line
from insvie_lightning.files import open_regular

META, INDEX = "meta.pt", ".metadata"
"""Lightning's part, and the index that torch writes as a pickle."""
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


def check_folder(folder: Path) -> None:
    """Refuse the folder of a sharded checkpoint that lacks a part, or whose index is more than an index.

    Raises:
        InputError: The index is missing, damaged or holds code, or a part that it names is missing or cut.
    """
    path = folder / INDEX
    with open_regular(path, "the index of a sharded checkpoint") as file:
        try:
            index = _IndexReader(file).load()
            ends = [(part.relative_path, part.offset + part.length) for part in index.storage_data.values()]
        except Exception as error:  # a reader of pickles raises whatever the bytes lead it into
            raise InputError(f"{path} is damaged, or holds code, which is not run: {first_line(error)}") from None
    for name, end in ends:
        part = folder / name
        size = part.stat().st_size if part.is_file() else 0
        if Path(name).name != name or size < end:
            raise InputError(f"{part} is missing or cut: {size} bytes of {end}")


class _IndexReader(pickle.Unpickler):
    """Builds nothing but what torch's own index is made of (`torch.distributed.checkpoint.metadata`)."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class that an index may name."""
        number = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if number or name in _PLAIN.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}")
