"""Make an editor of released or exported weights: a SAT checkpoint, or a LoRA with its patch embedding."""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from torch import Tensor

from insvie_lightning.errors import InputError
from insvie_lightning.nets.source_concat import add_lora, widen_patch_embedding
from insvie_lightning.weights import lora as loras
from insvie_lightning.weights.checks import is_free, require_fit
from insvie_lightning.weights.components import PARTS, base_folder, part_folder
from insvie_lightning.weights.deliverable import Deliverable, save_deliverable, trainable_weights
from insvie_lightning.weights.lora import Lora
from insvie_lightning.weights.sat import PATCH, PATCH_EDIT, is_table, to_diffusers
from insvie_lightning.weights.sat_checkpoint import FILE, SatCheckpoint, find_checkpoint, read_checkpoint, read_tensors
from insvie_lightning.weights.sat_vae import build_vae, read_vae

LORA_FILE, PATCH_FILE = "pytorch_lora_weights.safetensors", "patch_embedding.safetensors"
"""The LoRA by the file name that diffusers looks for, and beside it what no LoRA file can hold."""
_PATCH_KEY = re.compile(r"(?:transformer\.|diffusion_model\.)?(patch_embed\.proj\.(?:weight|bias))")


@dataclass(frozen=True, slots=True)
class Released:
    """An editor's weights by diffusers' and PEFT's names.

    Args:
        trained: LoRA and patch embedding; the whole transformer when LoRA was merged or never there.
        lora: Rank and scale; None for a whole transformer.
        frozen: The text-to-video base under the LoRA; empty when the file does without.
        iteration: Updates that training had made.
    """

    trained: dict[str, Tensor]
    lora: Lora | None
    frozen: dict[str, Tensor]
    iteration: int


def import_released(
    source: Path,
    folder: Path,
    base: str = "zai-org/CogVideoX-2b",
    vae: Path | None = None,
    lora_alpha: float = 1.0,
) -> Deliverable:
    """Write the deliverable of a released checkpoint, which `InsViE.from_pretrained` and `start_from` read.

    The editor is built around `base`. When the frozen weights of the checkpoint differ from the base's, or `vae` is
    given, `folder/base` is written with them and replaces it. The text encoder is always the base's.

    Args:
        source: A SAT checkpoint (folder with `latest`, folder of a step, or file; averaged weights are those of the
            folder `N-ema` beside the step `N`), a LoRA file with a patch embedding beside it, or the folder of both.
        folder: Where to.
        base: Text-to-video model, as in `load_components`.
        vae: Another autoencoder: `3d-vae.pt`, or a whole checkpoint.
        lora_alpha: Of a SAT checkpoint, which does not hold it; 1 in the released code.

    Raises:
        InputError: When a file is damaged, holds code, does not fit the base, or has values that are not finite.
    """
    is_editor = (folder / "editor.json").exists()
    if not (is_editor or is_free(folder)):
        raise InputError(f"{folder} holds something else than an editor; legal is a new folder, or an editor's")
    source_file = _find(source)
    model = base_folder(base)
    released = read_released(source_file, lora_alpha)
    ema_file = source_file.parent.with_name(f"{source_file.parent.name}-ema") / FILE
    ema = read_released(ema_file, lora_alpha) if source_file.name == FILE and ema_file.is_file() else None
    for each, file in ((released, source_file), *([(ema, ema_file)] if ema else [])):
        _require_fit(each, model, f"{file}, for the base {base},")
    config = AutoencoderKLCogVideoX.load_config(part_folder(model, "vae")) if vae else {}
    autoencoder = build_vae(read_vae(vae), config, str(vae)) if vae else None
    settings = {
        "base": base,
        "lora_rank": released.lora.rank if released.lora else 128,
        "lora_alpha": released.lora.alpha if released.lora else lora_alpha,
        "trainable": "lora" if released.lora else "all",
    }
    # A new editor appears whole: of an interrupted import nothing could tell that it may be overwritten.
    part = folder if is_editor else folder.absolute().with_name(f".{folder.absolute().name}.part")
    if not is_editor:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    if autoencoder or _differs(released.frozen, model):
        _save_base(part / "base", model, released.frozen, autoencoder)
        settings["base"] = "./base"
    deliverable = Deliverable(settings, released.trained, ema.trained if ema else None, ema.iteration if ema else 0)
    save_deliverable(deliverable, part)
    if not is_editor:
        os.replace(part, folder)
    return deliverable


def read_released(file: Path, lora_alpha: float = 1.0) -> Released:
    """Read the file of a SAT checkpoint, or a LoRA file beside its patch embedding.

    Raises:
        InputError: When the file is damaged, holds code, or is neither.
    """
    if file.suffix == ".safetensors":
        state, header = read_tensors(file)
        if loras.is_tool_lora(state):
            return _from_tool(state, header, file)
    return _from_sat(read_checkpoint(file), str(file), lora_alpha)


def _from_sat(checkpoint: SatCheckpoint, origin: str, alpha: float) -> Released:
    state = dict(checkpoint.transformer)
    if f"{PATCH_EDIT}.weight" not in state:
        raise InputError(
            f"{origin} is a text-to-video model, not an editor: it has no '{PATCH_EDIT}.weight', the patch embedding "
            "that looks at the source"
        )
    if not checkpoint.matrices:
        return Released(to_diffusers(state, origin), None, {}, checkpoint.iteration)
    lora = loras.from_sat(checkpoint.matrices, origin, alpha)
    edit = {end: state.pop(f"{PATCH_EDIT}.{end}", None) for end in ("weight", "bias")}
    if edit["bias"] is None or edit["weight"] is None:
        raise InputError(f"{origin} has no '{PATCH_EDIT}.bias' beside '{PATCH_EDIT}.weight'")
    patch = {f"patch_embed.proj.{end}": value for end, value in edit.items() if value is not None}
    if any(not is_table(key) and not key.startswith(f"{PATCH}.") for key in state):
        half = edit["weight"].shape[1] // 2
        state.setdefault(f"{PATCH}.weight", edit["weight"][:, :half].clone())
        state.setdefault(f"{PATCH}.bias", edit["bias"])
        return Released({**lora.weights, **patch}, lora, to_diffusers(state, origin), checkpoint.iteration)
    return Released({**lora.weights, **patch}, lora, {}, checkpoint.iteration)


def _from_tool(state: dict[str, Tensor], header: Mapping[str, str], file: Path) -> Released:
    beside = file.with_name(PATCH_FILE)
    patch = {found[1]: state.pop(key) for key in list(state) if (found := _PATCH_KEY.fullmatch(key))}
    if not patch and beside.is_file():
        patch = read_tensors(beside)[0]
    if not patch:
        raise InputError(
            f"{file} is a LoRA without the patch embedding that looks at the source; put {PATCH_FILE}, which "
            "`insvie weights export --as lora` writes, beside it"
        )
    lora = loras.from_tool(state, header, str(file))
    return Released({**lora.weights, **patch}, lora, {}, 0)


def _find(source: Path) -> Path:
    return source / LORA_FILE if (source / LORA_FILE).is_file() else find_checkpoint(source)


def _require_fit(released: Released, model: Path, origin: str) -> None:
    """Compare names and shapes with those that an editor on this base has, and look for values that are not finite."""
    with torch.device("meta"):
        network = CogVideoXTransformer3DModel.from_config(_config(model))
        if released.frozen:
            require_fit(released.frozen, network.state_dict(), origin)
        widen_patch_embedding(network)
        if released.lora:
            add_lora(network, released.lora.rank, released.lora.alpha)
    require_fit(released.trained, trainable_weights(network), origin)


def _config(model: Path) -> dict[str, Any]:
    config: dict[str, Any] = CogVideoXTransformer3DModel.load_config(part_folder(model, "transformer"))
    return config


def _differs(frozen: Mapping[str, Tensor], model: Path) -> bool:
    """Whether weights are other than the base's, compared in their own precision."""
    if not frozen:
        return False
    kind = next(iter(frozen.values())).dtype
    base = CogVideoXTransformer3DModel.from_pretrained(model, subfolder="transformer", torch_dtype=kind).state_dict()
    return any(not torch.equal(base[name].to(value.dtype), value) for name, value in frozen.items())


def _save_base(
    folder: Path, model: Path, frozen: dict[str, Tensor], autoencoder: AutoencoderKLCogVideoX | None
) -> None:
    """Write a base whose transformer and autoencoder are these where given, its other parts copied."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    replaced = {name for name, given in (("transformer", frozen), ("vae", autoencoder)) if given}
    for name in set(PARTS) - replaced:
        shutil.copytree(part_folder(model, name), part / name)
    if frozen:
        with torch.device("meta"):
            network = CogVideoXTransformer3DModel.from_config(_config(model))
        network.load_state_dict(frozen, assign=True)
        network.save_pretrained(part / "transformer")
    if autoencoder:
        autoencoder.save_pretrained(part / "vae")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)
