"""Steps whose loss or gradients are not finite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor

from insvie_lightning.errors import InputError


class SkipBadSteps(Callback):
    """Skip optimizer steps with a gradient that is NaN or infinite, count them, and stop after too many in a row.

    A loss that is not finite makes such gradients. They are looked at once a step, accumulated and reduced over the
    processes, so that all of them skip together: weights and moments stay as they were; the learning-rate schedule goes
    on, and so does the average, towards the same weights. The look is the one time in a step that the host waits for
    the device. The keys and the losses of the step's batches are added to
    `skipped_steps-rank0.jsonl` in the run folder, a file of each process; `skipped_steps` is logged.

    Args:
        max_in_a_row: So many skipped steps in a row stop the run.
    """

    def __init__(self, max_in_a_row: int = 10) -> None:
        if max_in_a_row < 1:
            raise InputError(f"max_in_a_row is {max_in_a_row}; legal is 1 or more")
        self.max_in_a_row = max_in_a_row
        self.skipped = 0
        self._in_a_row = 0
        self._keys: tuple[str, ...] = ()
        self._batches: list[tuple[tuple[str, ...], Tensor]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note whose batch it is."""
        self._keys = tuple(getattr(batch, "keys", ()))

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Note its loss."""
        self._batches.append((self._keys, loss.detach() * trainer.accumulate_grad_batches))

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Drop the gradients, without which an optimizer does nothing, if one of them is not finite.

        Raises:
            InputError: It was the last of too many.
        """
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        batches, self._batches = self._batches, []
        if not parameters or _finite([p.grad for p in parameters]):
            self._in_a_row = 0
            return
        for parameter in parameters:
            parameter.grad = None
        self.skipped += 1
        self._in_a_row += 1
        path = Path(trainer.default_root_dir) / f"skipped_steps-rank{trainer.global_rank}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        told = [{"keys": list(keys), "loss": str(float(loss))} for keys, loss in batches]
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": trainer.global_step, "batches": told}) + "\n")
        pl_module.log("skipped_steps", float(self.skipped))
        if self._in_a_row >= self.max_in_a_row:
            raise InputError(
                f"the gradients of {self._in_a_row} steps in a row were not finite, the last at step "
                f"{trainer.global_step}; {path} has the keys and losses of their batches. A lower learning rate or a "
                "gradient_clip_val may help, if it is not these samples"
            )

    def state_dict(self) -> dict[str, Any]:
        """How many were skipped so far."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on."""
        self.skipped = state_dict["skipped"]


def _finite(gradients: list[Any]) -> bool:
    """Whether the norm of all gradients is finite; of shared ones on all ranks together."""
    norm = torch.nn.utils.get_total_norm(gradients)
    return bool((norm.full_tensor() if isinstance(norm, DTensor) else norm).isfinite())
