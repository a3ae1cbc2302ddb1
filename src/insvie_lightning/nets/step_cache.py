"""Blocks of the transformer that are left out at steps which change little."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from diffusers import CogVideoXTransformer3DModel, FirstBlockCacheConfig
from torch import Tensor

Seen = Callable[[Tensor], AbstractContextManager[None]]
"""Says what source latents the next call sees; it is made within."""


@contextmanager
def step_cache(transformer: CogVideoXTransformer3DModel, threshold: float) -> Iterator[Seen]:
    """Leave out all blocks but the first where what that one adds has hardly changed, for one run of sampling.

    diffusers' First Block Cache (after ParaAttention): what the other blocks added at the last step that computed them
    is added again. A batch is decided on as a whole. Calls that see other conditions are kept apart by the very tensor
    of their source, which must be the same one at every step.

    Args:
        transformer: Compiled or not.
        threshold: Share of its mean magnitude by which what the first block adds may differ; 0 computes everything.
    """
    if threshold == 0 or len(transformer.transformer_blocks) == 1:
        yield lambda source: nullcontext()
        return
    names: dict[int, str] = {}  # numbers, since compiled blocks are compiled anew for a name that they have not seen
    transformer.enable_cache(FirstBlockCacheConfig(threshold))
    try:
        yield lambda source: transformer.cache_context(names.setdefault(id(source), str(len(names))))
    finally:
        transformer.disable_cache()
