"""CogVideoX with the source video beside the noise: a patch embedding of twice the channels, and LoRA."""

import torch
from diffusers import CogVideoXTransformer3DModel
from peft import LoraConfig
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""The four projections of every attention, as the released InsViE adapts them."""


def widen_patch_embedding(transformer: CogVideoXTransformer3DModel) -> None:
    """Let the patch embedding take [noisy, source] on the channel axis (16 -> 32), in place.

    The first half keeps its weights, the new half starts at zero and the bias stays, so that the network computes
    what the text-to-video base computed until it has learned to look at the source (released InsViE, `double_ch`).
    """
    old = transformer.patch_embed.proj
    new = nn.Conv2d(2 * old.in_channels, old.out_channels, old.kernel_size, old.stride, bias=True)
    new = new.to(old.weight.device, old.weight.dtype)
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, : old.in_channels] = old.weight
        new.bias.copy_(old.bias)  # type: ignore[union-attr]
    transformer.patch_embed.proj = new
    transformer.register_to_config(in_channels=new.in_channels)


def looks_at_source(transformer: CogVideoXTransformer3DModel) -> bool:
    """Tell whether a widened patch embedding has learned anything of the source: its half is not all zeros."""
    weight = transformer.patch_embed.proj.weight
    if isinstance(weight, DTensor):
        weight = weight.full_tensor()
    return bool(weight[:, weight.shape[1] // 2 :].any())


def add_lora(transformer: CogVideoXTransformer3DModel, rank: int, alpha: float) -> None:
    """Freeze the network, add LoRA on `LORA_TARGETS` (scale alpha / rank) and free the patch embedding, in place."""
    transformer.requires_grad_(False)
    transformer.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(LORA_TARGETS)))  # type: ignore[arg-type]
    transformer.patch_embed.proj.requires_grad_(True)


def is_merged(transformer: nn.Module) -> bool:
    """Whether LoRA is added to the weights (`fuse_lora`)."""
    return any(getattr(module, "merged", False) for module in transformer.modules())


def concat_source(
    transformer: nn.Module, noisy: Tensor, source_latents: Tensor, prompt_embeds: Tensor, timesteps: Tensor
) -> Tensor:
    """Velocity of noisy latents: B T C H W each -> B T C H W; the noisy half comes first."""
    stacked = torch.cat([noisy, source_latents], dim=2).to(prompt_embeds.dtype)
    return transformer(stacked, prompt_embeds, timesteps, return_dict=False)[0]
