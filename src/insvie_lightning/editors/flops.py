"""How many floating-point operations an editor needs, by formula: for a sample of training, and for an edit."""

import copy
from collections.abc import Sequence
from typing import Any

from insvie_lightning.batch import EditBatch
from insvie_lightning.diffusion.guidance import BranchPlan
from insvie_lightning.nets.flops import decode_flops, encode_flops, text_flops, transformer_flops
from insvie_lightning.shards.latents import latent_shape


def training_flops(editor: Any, latents: tuple[int, int, int], encoded: Sequence[tuple[int, int, int]] = ()) -> int:
    """Operations of one training sample: transformer forward and backward, sentence, and what is encoded.

    LPIPS is not counted.

    Args:
        editor: An `InsViE` whose model is configured.
        latents: T, h and w that the transformer sees.
        encoded: F, H and W of every clip that goes through the autoencoder; none with cached latents.
    """
    rank = editor.lora_rank if editor.trainable == "lora" else None
    count = transformer_flops(editor.transformer, latents, rank, training=True) + _text(editor)
    return count + sum(encode_flops(editor.vae, *clip) for clip in encoded)


def flops_per_sample(editor: Any, batch: EditBatch) -> int:
    """Operations of training on one sample of a batch; see `training_flops`.

    Args:
        editor: An `InsViE` whose model is configured.
        batch: Of pixels or cached latents; with `source_noise` on pixels the source is encoded all the same.
    """
    clips = [batch.edited if batch.edited_latents is None else None]
    clips += [batch.source if batch.source_latents is None or editor.source_noise is True else None]
    encoded = [(clip.shape[1], clip.shape[3], clip.shape[4]) for clip in clips if clip is not None]
    if batch.edited_latents is not None:
        frames, _, height, width = batch.edited_latents.shape[1:]
        return training_flops(editor, (frames, height, width), encoded)
    frames, height, width = latent_shape(*encoded[0])
    return training_flops(editor, (frames, *(batch.windows[0][2:] if batch.windows else (height, width))), encoded)


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
    plan = BranchPlan(editor.guidance, steps)
    return sum(len(plan.next(int(timestep))) for timestep in scheduler.timesteps)


def _text(editor: Any) -> int:
    return text_flops(editor.text_encoder, editor.transformer.config.max_text_seq_length)
