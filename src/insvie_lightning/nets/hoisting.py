"""What is the same at every step, computed once: of sampling, and the position embedding of any clip."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models.normalization import AdaLayerNorm, CogVideoXLayerNormZero
from torch import Tensor, nn

SetStep = Callable[[Tensor], None]
"""Says which timestep (a scalar) comes next."""


class _Remembered(nn.Module):
    """A layer that gives its last output again when it is given the very same tensor."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self._input: Tensor | None = None
        self._output: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self._output is None or x is not self._input:
            self._input, self._output = x, self.layer(x)
        return self._output


class _Now(nn.Module):
    """Stands for a layer whose output at the current timestep is known, 1 D."""

    def __init__(self, now: Tensor) -> None:
        super().__init__()
        self.now = now

    def forward(self, x: Tensor) -> Tensor:
        return self.now.expand(len(x), -1)


def remember_positions(transformer: CogVideoXTransformer3DModel) -> None:
    """Keep the position embeddings of the last few sizes of clips, in place.

    diffusers keeps that of the base's own size, and computes every other one again in every forward pass.
    """
    embed = transformer.patch_embed
    embed._get_positional_embeddings = lru_cache(maxsize=4)(embed._get_positional_embeddings)


@contextmanager
def hoisted(transformer: CogVideoXTransformer3DModel, timesteps: Tensor) -> Iterator[SetStep]:
    """Compute the modulation of all layers at all timesteps, and the projection of a sentence only once, for a while.

    Within, every call of the transformer must be at the timestep that was set last, for the whole batch. Modulation is
    0.7 of the 3.4 GB of weights that a step of CogVideoX-2B reads otherwise.

    Args:
        transformer: On the device that it runs on.
        timesteps: All that will come, N.
    """
    with torch.no_grad():
        times = transformer.time_embedding(transformer.time_proj(timesteps).to(transformer.dtype))
        norms = [m for m in transformer.modules() if isinstance(m, CogVideoXLayerNormZero | AdaLayerNorm)]
        layers = [norm.linear for norm in norms]
        table = torch.cat([norm.linear(norm.silu(times)) for norm in norms], dim=1)
    now = table[:1].clone()  # blocks see one row, so that another number of steps does not compile them anew
    for norm, part in zip(norms, now.split([layer.out_features for layer in layers], dim=1), strict=True):
        norm.linear = _Now(part)
    words = transformer.patch_embed.text_proj
    transformer.patch_embed.text_proj = _Remembered(words)

    def set_step(timestep: Tensor) -> None:
        now.copy_(table.index_select(0, (timesteps == timestep).long().argmax().reshape(1)))

    try:
        yield set_step
    finally:
        transformer.patch_embed.text_proj = words
        for norm, layer in zip(norms, layers, strict=True):
            norm.linear = layer
