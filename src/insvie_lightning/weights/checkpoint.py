"""Look at a checkpoint of Lightning before it is loaded, so that nothing in it is executed."""

from __future__ import annotations

from pathlib import Path

from insvie_lightning.errors import InputError
from insvie_lightning.resume.sharded import META, check_folder
from insvie_lightning.weights.sat_checkpoint import load_plain


def check_checkpoint(path: Path) -> None:
    """Refuse what is no checkpoint, or holds more than numbers and text.

    Args:
        path: A file, or the folder of a sharded checkpoint.

    Raises:
        InputError: It is damaged, holds code, or is something else.
    """
    content = load_plain(path / META if path.is_dir() else path)
    if path.is_dir():
        check_folder(path)
    elif not (
        isinstance(content, dict)
        and isinstance(content.get("state_dict"), dict)
        and isinstance(content.get("pytorch-lightning_version"), str)
    ):
        raise InputError(f"{path} is no checkpoint of a run; legal is a .ckpt that `insvie fit` writes, last or best")
