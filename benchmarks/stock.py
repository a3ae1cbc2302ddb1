"""Networks, a loss and a loop of sampling as released and as diffusers have them. No benchmark by itself.

Written from what the release and its paper say; `train.py` and `edit.py` compare ours with them.
"""

from __future__ import annotations

import copy
import zlib
from typing import Any

import torch
from diffusers import CogVideoXDPMScheduler, CogVideoXTransformer3DModel
from diffusers.models.attention_processor import CogVideoXAttnProcessor2_0
from real_size import Setting
from torch import Tensor, nn

from insvie_lightning.batch import EditBatch
from insvie_lightning.diffusion.guidance import Guidance
from insvie_lightning.editors import InsViE
from insvie_lightning.nets.latents import decode_latents, encode_pixels, encode_prompts, to_device_pixels
from insvie_lightning.nets.source_concat import add_lora, widen_patch_embedding
from insvie_lightning.weights.components import Components
from insvie_lightning.weights.deliverable import load_trainable, trainable_weights


def stock_transformer(parts: Components, editor: InsViE, setting: Setting) -> CogVideoXTransformer3DModel:
    """The transformer of diffusers and PEFT's LoRA as they are, with the weights of an editor that is not merged."""
    transformer = copy.deepcopy(parts.transformer)
    widen_patch_embedding(transformer)
    add_lora(transformer, setting.size.lora_rank, editor.lora_alpha)
    for parameter in transformer.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    load_trainable(transformer, trainable_weights(editor.transformer), "an editor")
    return transformer


class AskingAttention(CogVideoXAttnProcessor2_0):
    """Attention of diffusers that first asks the device twice whether its mask masks anything, as the released one."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> Any:
        """Ask, and attend."""
        mask = hidden_states.new_ones(1, 1)
        for _ in range(2):
            assert bool((mask > 0).all())
        return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb)


def released_loss(
    transformer: nn.Module,
    z_source: Tensor,
    z_edited: Tensor,
    prompts: Tensor,
    abar: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """The released loss in its own terms, w |x0_hat - x0|^2 weighted by frames, and x0_hat."""
    t = torch.randint(1000, (len(z_edited),), generator=generator, device=z_edited.device)
    noise = torch.randn(z_edited.shape, generator=generator, device=z_edited.device)
    squared = abar[t].reshape(-1, 1, 1, 1, 1)
    noisy = squared.sqrt() * z_edited + (1 - squared).sqrt() * noise
    stacked = torch.cat([noisy, z_source], 2).to(prompts.dtype)
    predicted = transformer(stacked, prompts, t, return_dict=False)[0].float()
    clean = squared.sqrt() * noisy - (1 - squared).sqrt() * predicted
    errors = ((clean - z_edited).square() / (1 - squared)).mean((2, 3, 4))
    place = torch.arange(errors.shape[1], device=errors.device) / errors.shape[1]
    return (errors * (0.5 + 0.5 * (1 - place) ** 2)).mean(), clean


@torch.no_grad()
def stock_edit(
    transformer: Any,
    parts: Any,
    vae: Any,
    clips: EditBatch,
    guidance: Guidance,
    steps: int,
    setting: Setting,
    released: bool = False,
) -> Tensor:
    """Edit one clip by a plain loop: three branches as one batch, sampled in float32; `released` as described above."""
    assert clips.source is not None
    tokenizer, text_encoder, length = parts.tokenizer, parts.text_encoder, transformer.config.max_text_seq_length
    pixels = to_device_pixels(clips.source.to(setting.device))
    source = encode_pixels(vae, pixels)
    words = encode_prompts(tokenizer, text_encoder, clips.instructions, length)
    nothing = encode_prompts(tokenizer, text_encoder, ("",), length) * 0 if released else torch.zeros_like(words)
    scheduler = CogVideoXDPMScheduler.from_config(parts.scheduler.config)
    scheduler.set_timesteps(steps, device=setting.device)
    generator = torch.Generator(setting.device).manual_seed(zlib.crc32(f"0/{clips.keys[0]}".encode()))
    latents = torch.randn(source.shape[1:], generator=generator, device=setting.device)[None]
    conditions = torch.cat([source * 0, source, source]), torch.cat([nothing, nothing, words])
    old, before = None, None
    for timestep in scheduler.timesteps:
        if released:
            conditions = torch.cat([source * 0, source, source]), torch.cat([nothing, nothing, words])
        text_scale, video_scale = guidance.scales(int(timestep), steps)
        stacked = torch.cat([latents] * 3)
        inputs = torch.cat([stacked, conditions[0]], 2).to(words.dtype)
        velocity = transformer(inputs, conditions[1], timestep.expand(3), return_dict=False)[0].float()
        if released:  # guidance on what is clean, which is the same
            abar = scheduler.alphas_cumprod.to(setting.device)[int(timestep)]
            clean = abar.sqrt() * stacked - (1 - abar).sqrt() * velocity
            guided = guide(clean, text_scale, video_scale)
            velocity = (abar.sqrt() * latents - guided) / (1 - abar).sqrt()
        else:
            velocity = guide(velocity, text_scale, video_scale)
        latents, old = scheduler.step(velocity, old, timestep, before, latents, generator=generator, return_dict=False)
        before = timestep
    return decode_latents(vae, latents).clamp(-1, 1)


def guide(branches: Tensor, text: float, video: float) -> Tensor:
    """Mix the three branches of a batch."""
    nothing, source, both = branches.chunk(3)
    return nothing + video * (source - nothing) + text * (both - source)
