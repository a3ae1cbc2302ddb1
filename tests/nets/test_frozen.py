"""Networks outside of module trees."""

import torch
from torch import nn

from insvie_lightning.nets.frozen import Frozen


def test_a_network_is_loaded_once_when_it_is_needed_and_cannot_be_trained() -> None:
    made: list[nn.Module] = []

    def load() -> nn.Module:
        made.append(nn.Dropout())
        return nn.Sequential(nn.Linear(2, 2), made[-1])

    frozen = Frozen(load)
    assert not made
    net = frozen.on("cpu")
    assert frozen.on("cpu") is net and len(made) == 1
    assert not net.training and not any(weight.requires_grad for weight in net.parameters())
    assert next(frozen.on("meta").parameters()).is_meta


def test_what_inference_mode_loads_serves_outside_of_it() -> None:
    frozen = Frozen(lambda: nn.Linear(2, 2))
    with torch.inference_mode():
        frozen.on("cpu")
    inputs = torch.ones(1, 2, requires_grad=True)
    frozen.on("cpu")(inputs).sum().backward()
    assert inputs.grad is not None
