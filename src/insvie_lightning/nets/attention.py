"""Attention of the diffusion transformer by a chosen kernel, with the LoRA of its three inputs computed together."""

import time
from collections.abc import Callable
from typing import Any, Literal

import torch
from diffusers import CogVideoXTransformer3DModel
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from insvie_lightning.errors import InputError

Kernel = Literal["flash", "cudnn", "efficient", "math"]
KERNELS: dict[Kernel, SDPBackend] = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
_ADAPTER = "default"


class ChosenAttention:
    """Attention processor for `CogVideoXTransformer3DModel` without rotary embedding, as CogVideoX-2B is.

    diffusers' switch `set_attention_backend` does nothing for this model, whose processor calls torch's attention.

    Args:
        kernel: That is tried first; None leaves the choice to torch.
        fused: Compute the first halves of the LoRA of query, key and value as one product, where these have LoRA that
            is neither merged nor switched off.
    """

    def __init__(self, kernel: Kernel | None = None, fused: bool = True) -> None:
        self.kernel, self.fused = kernel, fused

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> tuple[Tensor, Tensor]:
        """Attend over text and video tokens, B N D each; returns video and text."""
        assert attention_mask is None and image_rotary_emb is None
        words = encoder_hidden_states.shape[1]
        tokens = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        layers = (attn.to_q, attn.to_k, attn.to_v)
        projected = (
            _together(layers, tokens) if self.fused and all(map(_has_lora, layers)) else [f(tokens) for f in layers]
        )
        query, key, value = (x.unflatten(2, (attn.heads, -1)).transpose(1, 2) for x in projected)
        if attn.norm_q is not None:
            query, key = attn.norm_q(query), attn.norm_k(key)
        attended = self._attend(query, key, value).transpose(1, 2).flatten(2)
        for layer in attn.to_out:
            attended = layer(attended)
        return attended[:, words:], attended[:, :words]

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if self.kernel is None:
            return F.scaled_dot_product_attention(query, key, value)
        with sdpa_kernel([KERNELS[self.kernel], SDPBackend.MATH], set_priority=True):
            return F.scaled_dot_product_attention(query, key, value)


def use_attention(transformer: CogVideoXTransformer3DModel, kernel: Kernel | None, fused: bool) -> None:
    """Let every attention of a transformer work by `ChosenAttention`, in place.

    Raises:
        InputError: The transformer has rotary embeddings, as CogVideoX-5B has.
    """
    if transformer.config.use_rotary_positional_embeddings:
        raise InputError(
            "a chosen attention kernel and fused LoRA are for transformers without rotary embeddings; set "
            "--model.execution.attention=torch and --model.execution.fused_lora=false"
        )
    current = transformer.transformer_blocks[0].attn1.processor
    if not isinstance(current, ChosenAttention) or (current.kernel, current.fused) != (kernel, fused):
        transformer.set_attn_processor(ChosenAttention(kernel, fused))  # another object would be compiled anew


def time_kernels(
    shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device, training: bool, repeats: int = 5
) -> dict[Kernel, float]:
    """Seconds that one attention of B heads N D takes by each kernel that the device has.

    Args:
        shape: Of query, key and value.
        dtype: Theirs.
        device: Where.
        training: Forward and backward, or forward only.
        repeats: Calls that are averaged, after two that are not.
    """
    candidates: tuple[Kernel, ...] = ("flash", "cudnn", "efficient") if device.type == "cuda" else ("flash", "math")
    seconds: dict[Kernel, float] = {}
    query, key, value = (torch.randn(shape, dtype=dtype, device=device, requires_grad=training) for _ in range(3))

    def attend() -> None:
        with torch.set_grad_enabled(training):
            attended = F.scaled_dot_product_attention(query, key, value)
        if training:
            torch.autograd.grad(attended, (query, key, value), attended)

    for kernel in candidates:
        try:
            with sdpa_kernel(KERNELS[kernel]):
                seconds[kernel] = _seconds(attend, device, repeats)
        except RuntimeError:  # torch has it not, or not for this shape
            continue
    return seconds


def fastest_kernel(
    shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device, training: bool
) -> Kernel | None:
    """The kernel that takes the least time; None leaves it to torch, where no kernel can do it."""
    seconds = time_kernels(shape, dtype, device, training)
    return min(seconds.items(), key=lambda item: item[1])[0] if seconds else None


def _seconds(call: Callable[[], None], device: torch.device, repeats: int) -> float:
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    for _ in range(2):
        call()
    wait()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    wait()
    return (time.perf_counter() - start) / repeats


def _has_lora(layer: nn.Module) -> bool:
    """Whether a layer is a base layer with plain LoRA at work beside it."""
    return (
        isinstance(layer, LoraLinear)
        and not layer.merged
        and not layer.disable_adapters
        and list(layer.active_adapters) == [_ADAPTER]
        and not layer.use_dora.get(_ADAPTER, False)
        and isinstance(layer.lora_dropout[_ADAPTER], nn.Identity)
    )


def _together(layers: tuple[Any, ...], tokens: Tensor) -> list[Tensor]:
    """W x + scale B A x of layers that see the same x, with one product for all A x."""
    halves = torch.cat([layer.lora_A[_ADAPTER].weight for layer in layers])
    within = F.linear(tokens.to(halves.dtype), halves).chunk(len(layers), dim=-1)
    added = (layer.lora_B[_ADAPTER](half) * layer.scaling[_ADAPTER] for layer, half in zip(layers, within, strict=True))
    base = (layer.base_layer(tokens) for layer in layers)
    return [one + other.to(one.dtype) for one, other in zip(base, added, strict=True)]
