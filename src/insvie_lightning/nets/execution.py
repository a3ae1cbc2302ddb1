"""How the networks of an editor are run: what is recomputed, compiled and fused, and by which kernels.

Left out on purpose, since they do nothing or fail for CogVideoX in diffusers 0.42: `set_attention_backend` (its
processor does not ask), `enable_parallelism` (no plan), FasterCache (two branches only). Fused query, key and value
gain nothing measurable (diffusers-torchao: 96.9 to 96.6 s), fused LoRA does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
from diffusers import CogVideoXTransformer3DModel
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from insvie_lightning.errors import InputError, nearest
from insvie_lightning.nets.attention import Kernel, fastest_kernel, use_attention
from insvie_lightning.nets.hoisting import remember_positions

Checkpointing = Literal["none", "selective", "full"]
Attention = Literal["auto", "torch", "flash", "cudnn", "efficient", "math"]
TimedKernels = dict[tuple[int, int, int, int], Kernel | None]
"""The fastest kernel for every shape of attention, B heads N D, that was timed so far."""


@dataclass(frozen=True)
class Execution:
    """How the networks are run. Nothing of it changes what is computed beyond rounding.

    Attributes:
        checkpointing: Activations that are computed again in the backward pass: `none`; `selective` all but those of
            attention, the dearest ones; `full` all, block by block. CogVideoX-2B at 25 frames saves 16 GB a sample
            without, and computes 1.2 and 1.37 times as much with them (counted).
        compile: Compile the blocks of the transformer, two graphs for all of them; every shape costs time at its start.
        compile_backend: Of `torch.compile`.
        attention: Kernel of attention; `auto` times those of a GPU at the first batch and takes the fastest, `torch`
            leaves it to torch, which is what `auto` does elsewhere. A run that must repeat bit by bit names one.
        fused_lora: Compute the LoRA of query, key and value together.
        channels_last: Keep the autoencoder's weights in the layout that convolutions on GPUs want.
        hoist: In editing, compute what is the same at every step once (`hoisting.hoisted`).
        merge_lora: In an `Editor`, add LoRA to the weights; 2.4 % of the operations of 25 frames. In bfloat16 the sum
            is rounded once more.
        frozen_dtype: Of the weights that are not trained. bfloat16 halves their memory and spares casting them at
            every step, and needs a trainer precision of bf16-mixed.
    """

    checkpointing: Checkpointing = "none"
    compile: bool = False
    compile_backend: str = "inductor"
    attention: Attention = "auto"
    fused_lora: bool = True
    channels_last: bool = True
    hoist: bool = True
    merge_lora: bool = True
    frozen_dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        for name, kind in (("checkpointing", Checkpointing), ("attention", Attention)):
            value, legal = getattr(self, name), get_args(kind)
            if value not in legal:
                raise InputError(f"execution.{name} is {value!r}; legal are {', '.join(legal)}{nearest(value, legal)}")

    @property
    def kernel(self) -> Kernel | None:
        """The kernel that is named; None of `auto` and `torch`."""
        return None if self.attention == "auto" or self.attention == "torch" else self.attention


def prepare_transformer(transformer: CogVideoXTransformer3DModel, execution: Execution) -> None:
    """Let a transformer run as is said, in place; LoRA is there already.

    Raises:
        InputError: As `use_attention`.
    """
    remember_positions(transformer)
    rotary = transformer.config.use_rotary_positional_embeddings
    if execution.kernel or (execution.fused_lora and not rotary):
        use_attention(transformer, execution.kernel, execution.fused_lora)
    if execution.checkpointing != "none":
        transformer.enable_gradient_checkpointing(_recompute(execution))
    if execution.compile:
        compile_blocks(transformer, execution.compile_backend)


def choose_attention(
    transformer: CogVideoXTransformer3DModel,
    execution: Execution,
    latents: tuple[int, ...],
    device: torch.device,
    training: bool,
    timed: TimedKernels,
) -> None:
    """Under `attention: auto` on a GPU, let a transformer attend by the kernel that is fastest for a shape, in place.

    Args:
        transformer: Without rotary embeddings; others stay as they are.
        execution: Says whether to choose.
        latents: Shape of what the transformer is about to see, B T C h w.
        device: That it runs on.
        training: Whether a shape that is new is timed forward and backward.
        timed: What is known; a new shape is timed once and added.
    """
    config = transformer.config
    if execution.attention != "auto" or device.type != "cuda" or config.use_rotary_positional_embeddings:
        return
    batch, frames, _, height, width = latents
    tokens = config.max_text_seq_length + frames * height * width // config.patch_size**2
    shape = (batch, config.num_attention_heads, tokens, config.attention_head_dim)
    if shape not in timed:
        kind = device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else transformer.dtype
        timed[shape] = fastest_kernel(shape, dtype, device, training)
        rank_zero_info(f"attention of {shape}: {timed[shape]}")
    use_attention(transformer, timed[shape], execution.fused_lora)


def compile_blocks(transformer: CogVideoXTransformer3DModel, backend: str = "inductor") -> None:
    """Compile the blocks of a transformer, in place: a graph for the first, on views, and one for the rest."""
    # diffusers' `compile_repeated_blocks` asks for this list, which its CogVideoX model lacks.
    transformer._repeated_blocks = ["CogVideoXBlock"]
    transformer.compile_repeated_blocks(backend=backend, dynamic=False)


def to_channels_last(network: nn.Module) -> None:
    """Keep the weights of all convolutions with channels last, in place; values and names stay."""
    layouts: dict[type[nn.Module], Any] = {nn.Conv3d: torch.channels_last_3d, nn.Conv2d: torch.channels_last}
    for module in network.modules():
        for kind, layout in layouts.items():
            if isinstance(module, kind):
                module.to(memory_format=layout)


def _recompute(execution: Execution) -> Callable[..., Any]:
    """What diffusers calls as (block, *inputs) in place of the block."""
    contexts: dict[str, Any] = {}
    if execution.checkpointing == "selective":
        contexts = {"context_fn": partial(create_selective_checkpoint_contexts, _keep_attention)}

    def run(block: nn.Module, *inputs: Any) -> Any:
        return checkpoint(block, *inputs, use_reentrant=False, **contexts)

    return run


def _keep_attention(context: Any, operation: Any, *_: Any, **__: Any) -> CheckpointPolicy:
    name = str(operation)
    attends = "scaled_dot_product" in name and "backward" not in name
    return CheckpointPolicy.MUST_SAVE if attends else CheckpointPolicy.PREFER_RECOMPUTE
