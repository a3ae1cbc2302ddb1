"""Write a trained editor for other programs, read it back as they would, and compare what both compute."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from insvie_lightning.errors import InputError
from insvie_lightning.nets.source_concat import add_lora, widen_patch_embedding
from insvie_lightning.weights.checks import is_free
from insvie_lightning.weights.components import PARTS, base_folder, part_folder
from insvie_lightning.weights.deliverable import load_deliverable, load_trainable
from insvie_lightning.weights.lora import Lora, for_tools, to_sat
from insvie_lightning.weights.released import LORA_FILE, PATCH_FILE, read_released
from insvie_lightning.weights.sat import PATCH_EDIT, from_diffusers
from insvie_lightning.weights.sat_checkpoint import FILE, TRANSFORMER, find_checkpoint

Layout = Literal["diffusers", "single", "lora", "sat"]
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 1e-1}
"""Relative difference of outputs that rounding the weights explains, the LoRA merged or not."""


@dataclass(frozen=True, slots=True)
class _Editor:
    """A deliverable with one choice of weights, and the folder of its base."""

    origin: str
    model: Path
    weights: dict[str, Tensor]
    lora: Lora | None
    settings: dict[str, Any]

    @property
    def patch(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.weights.items() if name.startswith("patch_embed.proj.")}


def export_editor(
    folder: Path,
    destination: Path,
    layout: Layout = "diffusers",
    use_ema: bool = True,
    dtype: torch.dtype | None = None,
) -> float:
    """Write an editor in the layout of other programs; nothing appears at `destination` unless it computes the same.

    Args:
        folder: A deliverable: the `weights` folder of a run or of an import.
        destination: Where to; of `single` a .safetensors file, else a new or empty folder.
        layout: `diffusers` is a model folder, LoRA merged, transformer of twice the channels; `single` its transformer
            in one file, the configuration in the header; `lora` the LoRA as `load_lora_weights` reads it, and the
            patch embedding beside it; `sat` a checkpoint of the released code, LoRA not merged.
        use_ema: Take the averaged weights when there are any.
        dtype: Of the weights written; None is float32.

    Returns:
        The norm of the difference between the outputs of what was written and of the editor, over the latter's norm.

    Raises:
        InputError: When the folder is no editor, the layout does not fit it, what was written computes otherwise, or
            something is at `destination`.
    """
    if layout == "single" and destination.suffix != ".safetensors":
        raise InputError(f"{destination}: a single file is written as .safetensors only")
    if not is_free(destination):
        kind = "file" if layout == "single" else "or an empty folder"
        raise InputError(f"{destination} is there already and is not overwritten; legal is a new {kind}")
    editor, dtype = _open(folder, use_ema), dtype or torch.float32
    write, read = _LAYOUTS[layout]
    part = destination.with_name(f".{destination.stem}.part{destination.suffix}")
    _remove(part)
    destination.parent.mkdir(parents=True, exist_ok=True)
    expected = _probe(_network(editor))
    try:
        write(editor, part, dtype)
        found = _probe(read(editor, part))
        difference = float((found - expected).norm() / expected.norm())
        if not difference <= _TOLERANCE[dtype]:  # nan, too
            raise InputError(
                f"{folder} written as {layout} in {str(dtype).removeprefix('torch.')} computes something else "
                f"(relative difference {difference:.1e}) and was not kept; legal is a wider --dtype, float32"
            )
        if destination.is_dir():
            destination.rmdir()  # empty
        os.replace(part, destination)
    finally:
        _remove(part)
    return difference


def _open(folder: Path, use_ema: bool) -> _Editor:
    deliverable = load_deliverable(folder)
    settings = deliverable.settings
    weights = deliverable.ema if use_ema and deliverable.ema else deliverable.raw
    matrices = {name: value for name, value in weights.items() if ".lora_" in name}
    lora = Lora(matrices, settings["lora_rank"], settings["lora_alpha"]) if settings["trainable"] == "lora" else None
    return _Editor(str(folder), base_folder(settings["base"]), weights, lora, settings)


def _base(editor: _Editor) -> CogVideoXTransformer3DModel:
    return CogVideoXTransformer3DModel.from_pretrained(part_folder(editor.model, "transformer"))


def _network(editor: _Editor) -> CogVideoXTransformer3DModel:
    network = _base(editor)
    widen_patch_embedding(network)
    if editor.lora:
        add_lora(network, editor.lora.rank, editor.lora.alpha)
    load_trainable(network, editor.weights, editor.origin)
    return network


def _merged(editor: _Editor, dtype: torch.dtype) -> CogVideoXTransformer3DModel:
    """W += alpha / rank * B A in float32, then rounded."""
    network = _network(editor)
    if editor.lora:
        network.fuse_lora()
        network.unload_lora()
    return nn.Module.to(network, dtype)  # diffusers' own warns of layers to be kept in float32, of which it has none


@torch.no_grad()
def _probe(network: CogVideoXTransformer3DModel) -> Tensor:
    """What a transformer computes in float32 for a small fixed input: 5 frames of 4 x 6 patches, and a text."""
    config, draw = network.config, torch.Generator().manual_seed(0)
    frames, side = 2 * (config.patch_size_t or 1), config.patch_size
    latents = torch.randn(1, frames, config.in_channels, 4 * side, 6 * side, generator=draw)
    text = torch.randn(1, config.max_text_seq_length, config.text_embed_dim, generator=draw)
    output: Tensor = network.float().eval()(latents, text, torch.tensor([500]), return_dict=False)[0]
    return output


# ---------------------------------------------------------------- layouts: write, and read as another program would


def _write_diffusers(editor: _Editor, part: Path, dtype: torch.dtype) -> None:
    _merged(editor, dtype).save_pretrained(part / "transformer")
    for name in set(PARTS) - {"transformer"}:
        shutil.copytree(part_folder(editor.model, name), part / name)
    vae = AutoencoderKLCogVideoX.load_config(part / "vae")["_class_name"]
    scheduler = json.loads((part / "scheduler/scheduler_config.json").read_text())["_class_name"]
    tokenizer = json.loads((part / "tokenizer/tokenizer_config.json").read_text())["tokenizer_class"]
    if vae == AutoencoderKLCogVideoX.__name__:  # the toy's autoencoder is ours: diffusers knows no pipeline with it
        index = {
            "_class_name": "CogVideoXImageToVideoPipeline",  # diffusers' pipeline of [noisy, condition] channels
            "transformer": ["diffusers", "CogVideoXTransformer3DModel"],
            "vae": ["diffusers", vae],
            "scheduler": ["diffusers", scheduler],
            "text_encoder": ["transformers", "T5EncoderModel"],
            "tokenizer": ["transformers", tokenizer],
        }
        (part / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def _read_diffusers(editor: _Editor, part: Path) -> CogVideoXTransformer3DModel:
    return CogVideoXTransformer3DModel.from_pretrained(part / "transformer")


def _write_single(editor: _Editor, part: Path, dtype: torch.dtype) -> None:
    network = _merged(editor, dtype)
    _save(network.state_dict(), part, dtype, {"config": network.to_json_string()})


def _read_single(editor: _Editor, part: Path) -> CogVideoXTransformer3DModel:
    with safe_open(part, "pt") as opened:
        config = json.loads(opened.metadata()["config"])
    network: CogVideoXTransformer3DModel = CogVideoXTransformer3DModel.from_config(config)
    network.load_state_dict(load_file(part))
    return network


def _write_lora(editor: _Editor, part: Path, dtype: torch.dtype) -> None:
    part.mkdir()
    _save(for_tools(_lora(editor)), part / LORA_FILE, dtype)
    _save(editor.patch, part / PATCH_FILE, dtype)


def _read_lora(editor: _Editor, part: Path) -> CogVideoXTransformer3DModel:
    network = _base(editor)
    widen_patch_embedding(network)
    network.load_state_dict(load_file(part / PATCH_FILE), strict=False)
    network.load_lora_adapter(load_file(part / LORA_FILE), prefix="transformer")
    return network


def _write_sat(editor: _Editor, part: Path, dtype: torch.dtype) -> None:
    if editor.lora:
        frozen = from_diffusers(_base(editor).state_dict())
        state = {_wrapped(name): value for name, value in frozen.items()} | to_sat(editor.lora)
        state |= {name.replace("patch_embed.proj", PATCH_EDIT): value for name, value in editor.patch.items()}
    else:
        state = from_diffusers(editor.weights)
    module = {TRANSFORMER + name: value.to(dtype).contiguous() for name, value in state.items()}
    (part / "1").mkdir(parents=True)
    torch.save({"module": module}, part / "1" / FILE)
    (part / "latest").write_text("1")


def _read_sat(editor: _Editor, part: Path) -> CogVideoXTransformer3DModel:
    released = read_released(find_checkpoint(part))
    network = _base(editor)
    if released.frozen:
        network.load_state_dict(released.frozen)
    widen_patch_embedding(network)
    if released.lora:
        add_lora(network, released.lora.rank, released.lora.alpha)
    load_trainable(network, released.trained, str(part))
    return network


_LAYOUTS: dict[Layout, tuple[Callable[..., None], Callable[..., CogVideoXTransformer3DModel]]] = {
    "diffusers": (_write_diffusers, _read_diffusers),
    "single": (_write_single, _read_single),
    "lora": (_write_lora, _read_lora),
    "sat": (_write_sat, _read_sat),
}


def _lora(editor: _Editor) -> Lora:
    if editor.lora is None:
        raise InputError(f"{editor.origin} was trained in full and has no LoRA; legal layouts: diffusers, single, sat")
    return editor.lora


def _wrapped(name: str) -> str:
    """SAT's name of a weight under un-merged LoRA."""
    for module in ("query_key_value", "dense"):
        name = name.replace(f".attention.{module}.", f".attention.{module}.original.")
    return name


def _save(weights: dict[str, Tensor], file: Path, dtype: torch.dtype, header: dict[str, str] | None = None) -> None:
    told = {"format": "pt", "written_by": f"insvie-lightning {version('insvie-lightning')}", **(header or {})}
    save_file({name: value.detach().to(dtype).contiguous() for name, value in weights.items()}, file, told)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
