"""How many floating-point operations an editor needs, by formula: for a sample of training, and for an edit."""

import copy
from typing import Any

from insvie_lightning.nets.flops import decode_flops, encode_flops, text_flops, transformer_flops
from insvie_lightning.nets.patch_vae import SPACE, TIME


def training_flops(editor: Any, frames: int, height: int, width: int, cached: bool) -> int:
    """Operations of one training sample: transformer forward and backward, sentence, and both clips unless cached.

    LPIPS is not counted.

    Args:
        editor: An `InsViE` whose model is configured.
        frames: F = 1 + 4k.
        height: In pixels, as the width; of what is trained on, not of the frame that a cached crop was cut from.
        width: See height.
        cached: Whether the latents are given.
    """
    rank = editor.lora_rank if editor.trainable == "lora" else None
    latents = latent_shape(frames, height, width)
    count = transformer_flops(editor.transformer, latents, rank, training=True) + _text(editor)
    return count if cached else count + 2 * encode_flops(editor.vae, frames, height, width)


def edit_flops(editor: Any, frames: int, height: int, width: int, merged: bool = True) -> int:
    """Operations of one edit: source and sentence encoded, the branches of every step that count, one decode.

    Args:
        editor: An `InsViE` whose model is configured; guidance, sampler and steps are its own.
        frames: F = 1 + 4k.
        height: In pixels, as the width.
        width: See height.
        merged: Whether LoRA is merged into the weights.
    """
    rank = editor.lora_rank if editor.trainable == "lora" and not merged else 0
    forward = transformer_flops(editor.transformer, latent_shape(frames, height, width), rank)
    ends = encode_flops(editor.vae, frames, height, width) + decode_flops(editor.vae, frames, height, width)
    return forward * forwards(editor) + ends + _text(editor)


def forwards(editor: Any) -> int:
    """Network evaluations of one edit, a branch of a step counting as one."""
    scheduler, steps = copy.deepcopy(editor.scheduler), editor.num_inference_steps
    scheduler.set_timesteps(steps)
    return sum(len(editor.guidance.branches(int(timestep), steps)) for timestep in scheduler.timesteps)


def latent_shape(frames: int, height: int, width: int) -> tuple[int, int, int]:
    """T, h and w of the latents of a clip."""
    return (frames - 1) // TIME + 1, height // SPACE, width // SPACE


def _text(editor: Any) -> int:
    return text_flops(editor.text_encoder, editor.transformer.config.max_text_seq_length)
