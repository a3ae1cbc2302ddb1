"""Frozen networks that belong to nobody: loaded when first used, shared, and never saved or trained with a user."""

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import nn

Net = TypeVar("Net", bound=nn.Module)


class Frozen(Generic[Net]):
    """A network outside the module tree of whoever holds it, so that it enters no checkpoint and no optimizer.

    Args:
        load: Makes the network; called once, by the first `on`.
    """

    def __init__(self, load: Callable[[], Net]) -> None:
        self._load = load
        self._net: Net | None = None

    def on(self, device: torch.device | str) -> Net:
        """The network in evaluation mode and float32 on a device, to which it is moved when it is elsewhere."""
        with torch.inference_mode(False), torch.no_grad():  # what inference mode makes is of no use outside of it
            if self._net is None:
                self._net = self._load().eval().requires_grad_(False)
            return self._net.to(device)
