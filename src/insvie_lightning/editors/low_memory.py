"""Editing in little device memory: one network at a time is on the device, and the autoencoder works in tiles."""

from typing import Any

import torch
from accelerate import cpu_offload_with_hook
from lightning import LightningModule

PARTS = ("text_encoder", "transformer", "vae")
"""An editor's networks; each one sends the one before it in this circle off the device when it is used."""


def save_memory(model: LightningModule, device: torch.device) -> None:
    """Keep an editor's networks on the CPU and bring each to `device` only while it is used; in place.

    The device then holds at most the largest one (T5-XXL: 9.5 GB in half precision) with its activations. The
    autoencoder encodes and decodes tile by tile and sample by sample where it can (`AutoencoderKLCogVideoX`); its
    normalisation then sees one tile at a time, so that source latents and pixels change somewhat.
    """
    parts: dict[str, Any] = {name: getattr(model, name) for name in PARTS}
    for name in PARTS:
        setattr(model, name, None)
    model.to(device)  # what is left, and where the editor draws its noise
    for name, part in parts.items():
        setattr(model, name, part)
    hooks = {name: cpu_offload_with_hook(part, device)[1] for name, part in parts.items()}
    for name, before in zip(PARTS, PARTS[-1:] + PARTS[:-1], strict=True):
        hooks[name].hook.prev_module_hook = hooks[before]
    for switch in ("enable_tiling", "enable_slicing"):
        if hasattr(parts["vae"], switch):
            getattr(parts["vae"], switch)()
