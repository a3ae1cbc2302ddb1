"""The moving average of the trained weights."""

from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor

from insvie_lightning.weights.deliverable import gathered, load_trainable, placed_as, trainable_weights


class LoraEMA(Callback):
    """Average what is trained (LoRA and patch embedding, not the frozen base), and validate with the average.

    The average is handed to the editor as `editor.ema`, from where it is delivered; a run that starts from an earlier
    one carries its average on. Only a copy of the trained weights is kept, not of the network.

    Args:
        decay: Of the average; 0.9999 in the paper (section 8).
        warmup: Use min(decay, (1 + n) / (10 + n)) at update n, so that the start is forgotten (released optimizer).
    """

    def __init__(self, decay: float = 0.9999, warmup: bool = True) -> None:
        self.decay, self.warmup = decay, warmup
        self._restored: dict[str, Any] | None = None
        self._backup: dict[str, Tensor] | None = None
        self._last_step = 0

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Start from the checkpoint's average, else from the one the editor carries, else from the weights."""
        own = trainable_weights(pl_module.transformer)
        start = own
        if self._restored is not None:
            start, pl_module.ema_updates = self._restored["ema"], self._restored["updates"]
            self._restored = None
        elif pl_module.ema is not None:
            start = pl_module.ema
        pl_module.ema = {name: placed_as(start[name], own[name]).to(own[name].dtype).clone() for name in own}

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Count from the step that training resumes at; it is restored only after `on_fit_start`.

        So is the average, where ranks share the weights.
        """
        self._last_step = trainer.global_step
        if self._restored is not None:
            self.on_fit_start(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Update once for every optimizer step."""
        if trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        updates = pl_module.ema_updates
        decay = min(self.decay, (1 + updates) / (10 + updates)) if self.warmup else self.decay
        average = pl_module.ema
        own = trainable_weights(pl_module.transformer)
        torch._foreach_lerp_(list(average.values()), [own[name] for name in average], 1 - decay)
        pl_module.ema_updates = updates + 1

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        """While a fit validates, put the average in."""
        if trainer.state.fn == "fit":
            own = trainable_weights(pl_module.transformer)
            self._backup = {name: value.clone() for name, value in own.items()}
            load_trainable(pl_module.transformer, pl_module.ema, "the average")

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Put the raw weights back."""
        if self._backup is not None:
            load_trainable(pl_module.transformer, self._backup, "the backup")
            self._backup = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Store the average in the resume checkpoint, and the raw weights even while a validation runs."""
        if self._backup is not None:
            weights, whole = checkpoint["state_dict"], gathered(self._backup)
            for name, value in weights.items():
                short = name.removeprefix("transformer.").replace(".default.", ".")
                backup = self._backup if isinstance(value, DTensor) else whole
                weights[name] = backup.get(short, value)
        checkpoint["lora_ema"] = {"ema": gathered(pl_module.ema), "updates": pl_module.ema_updates}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Keep the stored average until the fit starts."""
        self._restored = checkpoint.get("lora_ema")
