"""The optimizer of an editor: how long a stage is, and how fused optimizers are clipped."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from insvie_lightning.editors.optimizer import clip_gradients, stage_steps


@pytest.mark.parametrize(
    ("stage", "max_steps", "steps"), [(0, -1, 4), (1, -1, 6), (0, 10, 4), (1, 10, 6), (1, 7, 3), (0, 3, 3)]
)
def test_a_stage_has_its_own_steps_up_to_the_end_of_the_run(stage: int, max_steps: int, steps: int) -> None:
    data = SimpleNamespace(stages=[SimpleNamespace(steps=4), SimpleNamespace(steps=6)])
    trainer = SimpleNamespace(datamodule=data, max_steps=max_steps, estimated_stepping_batches=99)
    assert stage_steps(trainer, stage) == steps


@pytest.mark.parametrize("data", [{}, {"datamodule": None}, {"datamodule": SimpleNamespace()}])
def test_without_stages_it_is_the_whole_run(data: dict[str, Any]) -> None:
    assert stage_steps(SimpleNamespace(max_steps=10, estimated_stepping_batches=7.0, **data), 0) == 7


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_fused_optimizers_are_clipped_as_others(algorithm: str) -> None:
    weight = torch.nn.Parameter(torch.zeros(8, 4))
    optimizer = torch.optim.AdamW([weight], fused=True)
    module: Any = SimpleNamespace(trainer=SimpleNamespace(precision="bf16-mixed"))
    weight.grad = torch.full_like(weight, 3.0)
    clip_gradients(module, optimizer, None, algorithm)
    assert (weight.grad == 3).all()
    clip_gradients(module, optimizer, 0.5, algorithm)
    found = weight.grad.norm() if algorithm == "norm" else weight.grad.max()
    assert float(found) == pytest.approx(0.5, rel=1e-4)
