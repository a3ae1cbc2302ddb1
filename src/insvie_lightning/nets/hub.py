"""Where pretrained weights are: a local folder, the hub's cache, or the hub."""

import os
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HFValidationError

from insvie_lightning.errors import InputError


def model_folder(name: str, files: Sequence[str], advice: str) -> Path:
    """The folder of a model: a local one, one in the hub's cache, or one fetched from the hub now.

    Args:
        name: A folder, or a hub id such as `zai-org/CogVideoX-2b`.
        files: Patterns of the files that are needed of the hub's.
        advice: What a user may do when there is none, as the end of a sentence.

    Raises:
        InputError: When it is none of these.
    """
    if Path(name).is_dir():
        return Path(name)
    try:
        cached = Path(snapshot_download(name, allow_patterns=list(files), local_files_only=True))
        if _has_weights(cached, files):
            return cached
    except (OSError, HFValidationError):
        pass
    try:
        HfApi().model_info(name, timeout=5)  # asked once; a download would retry for half a minute
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except Exception as error:  # of whichever HTTP library the hub's client is built on
        raise absent(name, advice) from error


def model_file(name: str, files: Sequence[str], advice: str) -> Path:
    """The file that a model is in: a local one, or the first of `files` that a model's folder has.

    Args:
        name: A file, a folder, or a hub id such as `teowu/DOVER`.
        files: What the file may be called in a folder and on the hub.
        advice: As for `model_folder`.

    Raises:
        InputError: When there is none.
    """
    if Path(name).is_file():
        return Path(name)
    names = " or ".join(files)
    if Path(name).suffix in {Path(file).suffix for file in files}:
        raise InputError(f"{name} does not exist; legal is a file such as {names}, its folder, or a hub id")
    folder = model_folder(name, files, advice)
    found = next((folder / file for file in files if (folder / file).is_file()), None)
    if found is None:
        raise InputError(f"{name} has no file {names}: {advice}")
    return found


def absent(name: str, advice: str) -> InputError:
    """The sentence that says that weights are not to be had."""
    offline = " (the hub is switched off by HF_HUB_OFFLINE)" if os.environ.get("HF_HUB_OFFLINE") == "1" else ""
    return InputError(
        f"the weights {name!r} are neither a folder here nor to be had from the hub{offline}: download them "
        f"(`hf download {name}`) and {advice}"
    )


def _has_weights(folder: Path, files: Sequence[str]) -> bool:
    """Whether a cached folder has any of the weights that are asked for; other programs may have left a tokenizer."""
    weights = [pattern for pattern in files if pattern.endswith((".safetensors", ".bin", ".pth"))]
    return not weights or any(any(folder.glob(pattern)) for pattern in weights)
