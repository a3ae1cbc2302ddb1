"""The optimizer that the small models are trained with."""

from collections.abc import Iterable

import torch
from diffusers.optimization import get_scheduler
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.nn import Parameter


def adamw_cosine(
    module: LightningModule,
    parameters: Iterable[Parameter],
    lr: float,
    warmup_steps: int,
    betas: tuple[float, float] = (0.9, 0.99),
    weight_decay: float = 0.0,
) -> OptimizerLRScheduler:
    """AdamW with a linear warm-up and a cosine to zero over the run of `module`'s trainer, stepped every step.

    Args:
        module: What is trained; its trainer knows the length of the run.
        parameters: What the optimizer gets.
        lr: Peak learning rate.
        warmup_steps: Steps of the warm-up.
        betas: Of Adam.
        weight_decay: Decoupled.
    """
    optimizer = torch.optim.AdamW(parameters, lr, betas=betas, weight_decay=weight_decay)
    steps = int(module.trainer.estimated_stepping_batches)
    schedule = get_scheduler("cosine", optimizer, num_warmup_steps=warmup_steps, num_training_steps=steps)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
