"""The doors of weights: a trained editor, a base model, checkpoints of others."""

import shutil
from pathlib import Path

from door import Between, Door, Found, command


def editor(folder: Path) -> None:
    from insvie_lightning.editors import InsViE
    from insvie_lightning.weights.deliverable import save_deliverable

    model = InsViE(base="toy", lora_rank=1, num_inference_steps=1, sampler="ddim")
    model.configure_model()
    save_deliverable(model.deliverable(), folder)


def base(folder: Path) -> None:
    from insvie_lightning.weights.components import TOY

    shutil.copytree(TOY, folder)


def released_checkpoint(folder: Path) -> None:
    from insvie_lightning.weights.export import export_editor

    editor(folder / "editor")
    export_editor(folder / "editor", folder / "sat", "sat")
    next((folder / "sat").rglob("*.pt")).rename(folder / "b.pt")


def lora_file(folder: Path) -> None:
    from insvie_lightning.weights.export import export_editor

    editor(folder / "editor")
    export_editor(folder / "editor", folder / "lora", "lora")


def load_editor(folder: Path, between: Between) -> Found:
    from insvie_lightning.editors.editor import Editor

    between()
    Editor.from_pretrained(folder)
    return Found(set())


def load_base(folder: Path, between: Between) -> Found:
    from insvie_lightning.weights.components import load_components

    between()
    load_components(str(folder))
    return Found(set())


def import_weights(folder: Path, between: Between) -> Found:
    between()
    return command("weights", "import", str(folder / "b.pt"), str(folder / "out"), "--base", "toy")


def import_lora(folder: Path, between: Between) -> Found:
    between()
    return command("weights", "import", str(folder / "lora"), str(folder / "out"), "--base", "toy")


DOORS = (
    Door("JSON", "a trained editor, settings", editor, "editor.json", load_editor, shared=True),
    Door("JSON", "a base, a config", base, "vae/config.json", load_base, shared=True),
    Door("JSON", "a base, the tokenizer", base, "tokenizer/tokenizer.json", load_base, shared=True),
    Door("safetensors", "a trained editor", editor, "raw.safetensors", load_editor, shared=True),
    Door("safetensors", "a base, transformer", base, "transformer/diffusion_pytorch_model.safetensors", load_base,
         shared=True),
    Door("safetensors", "a base, text encoder", base, "text_encoder/model.safetensors", load_base, shared=True),
    Door("safetensors", "insvie weights import, LoRA", lora_file, "lora/pytorch_lora_weights.safetensors", import_lora,
         shared=True),
    Door("checkpoint", "insvie weights import", released_checkpoint, "b.pt", import_weights, shared=True),
)  # fmt: skip
