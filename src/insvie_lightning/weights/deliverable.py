"""What a trained editor delivers: its trained weights, raw and averaged, and how to build the editor around them.

A folder of `editor.json`, `raw.safetensors` and, when an average was kept, `ema.safetensors`. It holds neither the
frozen base nor anything that only resuming needs; that is the business of Lightning's checkpoints.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from insvie_lightning.errors import InputError, first_line
from insvie_lightning.files import open_regular, read_json


@dataclass(frozen=True, slots=True)
class Deliverable:
    """Trained weights by parameter name, raw and averaged, and the number of updates that the average has seen."""

    settings: dict[str, Any]
    raw: dict[str, Tensor]
    ema: dict[str, Tensor] | None = None
    ema_updates: int = 0


def trainable_weights(module: nn.Module) -> dict[str, Tensor]:
    """The parameters of a module that are trained, detached, by name; PEFT's adapter name is left out."""
    return {
        name.replace(".default.", "."): parameter.detach()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


@torch.no_grad()
def load_trainable(module: nn.Module, weights: Mapping[str, Tensor], origin: str) -> None:
    """Copy weights into the trainable parameters of a module.

    Raises:
        InputError: When a name or shape does not fit; names the first misfits.
    """
    own = trainable_weights(module)
    missing, extra = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if missing or extra:
        lists = [f"{len(n)} {what}, e.g. {n[0]}" for what, n in (("missing", missing), ("unknown", extra)) if n]
        raise InputError(f"the weights in {origin} are of another editor: {'; '.join(lists)}")
    for name, parameter in own.items():
        if parameter.shape != weights[name].shape:
            raise InputError(
                f"the weights in {origin} are of another editor: {name} has shape {tuple(weights[name].shape)}, "
                f"this editor needs {tuple(parameter.shape)}"
            )
        parameter.copy_(placed_as(weights[name], parameter))


def placed_as(weight: Tensor, own: Tensor) -> Tensor:
    """A weight on the device of another; this rank's share of it where ranks share the other."""
    if isinstance(own, DTensor) and not isinstance(weight, DTensor):
        return distribute_tensor(weight.to(own.device), own.device_mesh, own.placements, src_data_rank=None)
    return weight.to(own.device)


def gathered(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole weights where ranks share them; all ranks gather together."""
    return {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in weights.items()}


def save_deliverable(deliverable: Deliverable, folder: Path) -> None:
    """Write a deliverable; every file appears whole or not at all, `editor.json` last."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, weights in (("raw", deliverable.raw), ("ema", deliverable.ema)):
        if weights is not None:
            part = folder / f".{name}.safetensors.part"
            save_file({key: value.cpu().contiguous() for key, value in weights.items()}, part)
            os.replace(part, folder / f"{name}.safetensors")
        else:
            (folder / f"{name}.safetensors").unlink(missing_ok=True)  # of an earlier run
    text = json.dumps({**deliverable.settings, "ema_updates": deliverable.ema_updates}, indent=2)
    part = folder / ".editor.json.part"
    part.write_text(text + "\n")
    os.replace(part, folder / "editor.json")


def load_deliverable(folder: Path) -> Deliverable:
    """Read a deliverable.

    Raises:
        InputError: When the folder is not one, or a file of it is damaged.
    """
    settings = read_settings(folder)
    raw = _load(folder, "raw.safetensors")
    ema = _load(folder, "ema.safetensors") if (folder / "ema.safetensors").exists() else None
    return Deliverable(settings, raw, ema, int(settings.pop("ema_updates", 0)))


def read_settings(folder: Path) -> dict[str, Any]:
    """Read only how to build the editor: its class under `editor`, where it names one, and the class's arguments.

    A `base` that lies in the folder is found from wherever it is read.

    Raises:
        InputError: When the folder is no deliverable, or the file is damaged.
    """
    _require(folder, "editor.json")
    try:
        settings: dict[str, Any] = read_json(folder / "editor.json")
    except InputError as error:
        raise InputError(f"a file of the trained editor in {folder} is damaged: {error}") from error
    if not isinstance(base := settings.get("base", ""), str) or not isinstance(settings.get("ema_updates", 0), int):
        raise InputError(f"{folder / 'editor.json'} is damaged: its base is no text, or its ema_updates no number")
    if base and os.path.isdir(folder / base):
        settings["base"] = str(folder / base)
    return settings


def check_settings(made: dict[str, Any], own: dict[str, Any], base: str, folder: Path) -> None:
    """Refuse to train on with settings that give the weights another meaning.

    Args:
        made: Settings of the deliverable.
        own: Those of this run that must agree, by name.
        base: Base of this run; it must be the deliverable's where that brought its own.
        folder: Of the deliverable.

    Raises:
        InputError: One differs.
    """
    made_on = Path(made.get("base", "")).resolve()
    if folder.resolve() in made_on.parents and made_on != Path(base).resolve():
        own = {**own, "base": base}
    for name, value in own.items():
        if (before := made.get(name, value)) != value:
            raise InputError(
                f"the weights in {folder} were made with {name} {before!r}, this run has {value!r}: "
                f"set --model.{name}={before}"
            )


def _load(folder: Path, name: str) -> dict[str, Tensor]:
    _require(folder, name)
    open_regular(folder / name, "a file of weights").close()
    try:
        weights = load_file(folder / name)
    except (SafetensorError, OSError) as error:
        raise InputError(f"a file of the trained editor in {folder} is damaged: {name}: {first_line(error)}") from error
    if broken := [key for key, value in weights.items() if not bool(torch.isfinite(value).all())]:
        raise InputError(f"{folder / name} is spoilt: {broken[0]} has values that are nan or infinite")
    return weights


def _require(folder: Path, name: str) -> None:
    if not (folder / name).exists():
        raise InputError(
            f"{folder} is not a trained editor: {name} is missing; legal is the `weights` folder that `insvie fit` "
            "writes"
        )
