"""A CLIP of open_clip's classes in any size, with the toy world's tokenizer."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from open_clip import CLIP
from safetensors.torch import load_file, save_file


@dataclass(frozen=True)
class ClipSize:
    """Sizes of a small CLIP; images are `height` x `width` pixels, sentences `tokens` long."""

    height: int = 64
    width: int = 96
    patch: int = 8
    tokens: int = 16
    vocabulary: int = 64
    features: int = 64
    hidden: int = 96
    layers: int = 3
    heads: int = 4


def build_clip(size: ClipSize) -> CLIP:
    """Build a CLIP with random weights; its text is pooled at the last token, which sees all others."""
    vision = {
        "image_size": (size.height, size.width),
        "layers": size.layers,
        "width": size.hidden,
        "head_width": size.hidden // size.heads,
        "patch_size": size.patch,
    }
    text = {
        "context_length": size.tokens,
        "vocab_size": size.vocabulary,
        "width": size.hidden,
        "heads": size.heads,
        "layers": size.layers,
        "pool_type": "last",
        "no_causal_mask": True,
    }
    return CLIP(size.features, vision, text)


def save_clip(model: CLIP, size: ClipSize, folder: Path) -> None:
    """Write `config.json` and the weights in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().to(torch.float16).contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(asdict(size), indent=2) + "\n")


def load_clip(folder: Path) -> CLIP:
    """Read what `save_clip` wrote, in float32 and evaluation mode."""
    model = build_clip(ClipSize(**json.loads((folder / "config.json").read_text())))
    model.load_state_dict({name: value.float() for name, value in load_file(folder / "model.safetensors").items()})
    return model.eval()
