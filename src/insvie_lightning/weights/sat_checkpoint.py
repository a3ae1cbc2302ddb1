"""Read the files of SwissArmyTransformer: a folder of steps or a bare file, with or without what is frozen."""

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from insvie_lightning.errors import InputError, first_line
from insvie_lightning.files import open_regular

FILE = "mp_rank_00_model_states.pt"
TRANSFORMER, VAE = "model.diffusion_model.", "first_stage_model."
_PASSED_OVER = (VAE, "conditioner.", "lpips.", "loss_fn.", "denoiser.", "sampler.")
_WRAPPERS = ("module", "model", "state_dict")
_ARRAYS: list[Any] = [
    np.ndarray,
    np.dtype,
    *{type(np.dtype(kind)) for kind in ("uint8", "uint32", "int64", "float32", "float64")},
    *((np.empty(0).__reduce__()[0], f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
]
"""Makers of plain arrays: SAT keeps NumPy's random state beside the weights."""


@dataclass(frozen=True, slots=True)
class SatCheckpoint:
    """What a checkpoint holds, by SAT's names without their common prefix.

    Args:
        transformer: Weights of the network itself, also under un-merged LoRA (there named `.original.`, here plainly).
        matrices: Un-merged LoRA; empty when merged or never there.
        iteration: Updates that training had made; 0 when not told.
    """

    transformer: dict[str, Tensor]
    matrices: dict[str, Tensor]
    iteration: int


def find_checkpoint(path: Path) -> Path:
    """The file that a checkpoint is in.

    Args:
        path: A folder with `latest`, one with `mp_rank_00_model_states.pt`, or a file.

    Raises:
        InputError: When there is none.
    """
    if (path / "latest").is_file():
        step = (path / "latest").read_text(errors="replace").strip()
        if not re.fullmatch(r"[1-9]\d*|release", step):
            raise InputError(f"{path / 'latest'} says {step[:40]!r}; legal is the number of a step, or 'release'")
        path = path / step
    file = path / FILE if path.is_dir() else path
    if file.is_file():
        if file.name == FILE and file.with_name(FILE.replace("00", "01")).exists():
            raise InputError(f"{file.parent} is split over several model-parallel ranks; legal is {FILE} alone")
        return file
    near = next((folder.parent for pattern in ("*/latest", f"*/{FILE}") for folder in path.glob(pattern)), None)
    hint = f"; did you mean {str(near)!r}?" if near else ""
    raise InputError(f"{file} does not exist; legal is a folder with `latest`, one with `{FILE}`, or a file{hint}")


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a .safetensors or torch file, its wrapper taken off, and what else it holds. Nothing is executed.

    Raises:
        InputError: When the file is damaged, holds code, or no tensors by name.
    """
    if not file.is_file():
        raise InputError(f"{file} does not exist; legal is a file of weights")
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, "pt") as opened:
                return {key: opened.get_tensor(key) for key in opened.keys()}, dict(opened.metadata() or {})  # noqa: SIM118
        except Exception as error:
            raise InputError(f"{file} is damaged, cut off, or no file of weights: {first_line(error)}") from error
    content = load_plain(file)
    rest = content if isinstance(content, dict) else {}
    state = next((rest[name] for name in _WRAPPERS if isinstance(rest.get(name), Mapping)), rest)
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise InputError(f"{file} holds no tensors by name, neither at its top nor under {', '.join(_WRAPPERS)}")
    return tensors, {key: value for key, value in rest.items() if value is not state}


def load_plain(file: Path) -> Any:
    """The content of a torch file of tensors, numbers and text; tensors stay on the disk until they are used.

    Raises:
        InputError: When the file is damaged, or holds code, which is not run.
    """
    open_regular(file, "a file of weights").close()
    try:
        with torch.serialization.safe_globals(_ARRAYS):
            return torch.load(file, "cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:  # torch's reader of pickles raises whatever the bytes lead it into
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            raise InputError(f"{file} holds code ({code[1]}), which is not run; legal is a file of tensors") from error
        raise InputError(f"{file} is damaged, cut off, or no file of weights: {first_line(error)}") from error


def read_checkpoint(file: Path) -> SatCheckpoint:
    """Read a SAT checkpoint of CogVideoX.

    The autoencoder (`read_vae`), the text encoder, LPIPS and what the engine registers besides are passed over; every
    other key is returned.

    Raises:
        InputError: When the file is damaged, holds code, or is no such checkpoint.
    """
    state, rest = read_tensors(file)
    prefix = TRANSFORMER if any(key.startswith(TRANSFORMER) for key in state) else ""
    if not any(key.startswith(f"{prefix}transformer.layers.") for key in state):
        raise InputError(
            f"{file} is no SAT checkpoint of CogVideoX: of its {len(state)} keys none begins with "
            f"'{prefix}transformer.layers.', the first is {next(iter(state))!r}"
        )
    transformer, matrices = {}, {}
    for key, value in state.items():
        name = key.removeprefix(prefix)
        if ".matrix_" in name:
            matrices[name] = value
        elif not key.startswith(_PASSED_OVER):
            transformer[name] = value
    wrapped = [name for name in transformer if ".original." in name]
    if matrices and not wrapped and any(".query_key_value." in name for name in transformer):
        raise InputError(
            f"{file} has LoRA matrices beside '.query_key_value.weight' instead of '.query_key_value.original.weight': "
            "it does not tell whether they are merged; remove either"
        )
    for name in wrapped:
        transformer[name.replace(".original.", ".")] = transformer.pop(name)
    return SatCheckpoint(transformer, matrices, int(rest.get("iteration", 0)))
