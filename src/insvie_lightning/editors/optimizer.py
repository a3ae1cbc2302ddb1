"""The optimizer that editors are trained with, stage by stage of a curriculum."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from diffusers.optimization import get_scheduler
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

LRSchedule = Literal["constant_with_warmup", "cosine", "linear"]


def adamw(
    module: LightningModule,
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
    lr_schedule: LRSchedule,
    warmup_steps: int,
    stage_index: int,
) -> OptimizerLRScheduler:
    """AdamW over what is trained of a module, with the schedule of one stage, stepped every step.

    Args:
        module: What is trained; its trainer knows precision and stages.
        lr: Peak learning rate.
        betas: Of Adam.
        weight_decay: Decoupled.
        lr_schedule: A schedule name of diffusers.
        warmup_steps: Linear warm-up of the stage.
        stage_index: Number of the stage, from 0.
    """
    trainer = module.trainer
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    fused = trainer.precision != "16-mixed"  # which scales gradients, and unscales them apart
    optimizer = torch.optim.AdamW(parameters, lr, betas=betas, weight_decay=weight_decay, fused=fused)
    steps = stage_steps(trainer, stage_index)
    schedule = get_scheduler(lr_schedule, optimizer, num_warmup_steps=warmup_steps, num_training_steps=steps)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def stage_steps(trainer: Any, stage_index: int) -> int:
    """Optimizer steps of a stage of a curriculum, cut by the run's `max_steps`; of the whole run without stages."""
    stages: Sequence[Any] = getattr(getattr(trainer, "datamodule", None), "stages", ())
    if not stages:
        return int(trainer.estimated_stepping_batches)
    earlier, limit = sum(stage.steps for stage in stages[:stage_index]), trainer.max_steps
    steps = int(stages[stage_index].steps)
    return min(steps, limit - earlier) if limit > earlier else steps


def clip_gradients(module: LightningModule, optimizer: Any, limit: float | None, algorithm: str | None) -> None:
    """As Lightning does, which under bf16-mixed refuses to clip for a fused optimizer, though nothing is scaled.

    Args:
        module: Whose trainer says the precision.
        optimizer: Of the parameters.
        limit: Of the norm or the values; None or 0 clips nothing.
        algorithm: `value` or `norm`; None is `norm`.
    """
    if module.trainer.precision != "bf16-mixed":
        module.clip_gradients(optimizer, limit, algorithm)
    elif limit:
        clip = clip_grad_value_ if algorithm == "value" else clip_grad_norm_
        clip([parameter for group in optimizer.param_groups for parameter in group["params"]], limit)
