"""FSDP2 over all processes of a run, as a strategy for Lightning's trainer."""

from __future__ import annotations

import io
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed import checkpoint as sharded
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.constants import default_pg_timeout
from torch.distributed.tensor import DTensor

from insvie_lightning.errors import InputError, first_line
from insvie_lightning.resume.sharded import META, check_folder


class FullySharded(ModelParallelStrategy):
    """Every process holds an equal share of the weights, the gradients and the optimizer's state (`-c fsdp`).

    Lightning's `ModelParallelStrategy` with all processes in the data-parallel dimension. The model shards its networks
    in `configure_model` (`nets.sharing`). Checkpoints leave out what is not trained.

    Args:
        save_distributed_checkpoint: Write a checkpoint as a folder, to which every process adds its share, for states
            that are too large for the first process; False writes one file, which other strategies read, too. Both
            resume.
        process_group_backend: `nccl` or `gloo`; None is the device's own.
        timeout: After so long a wait for another process, this one stops.
    """

    def __init__(
        self,
        save_distributed_checkpoint: bool = False,
        process_group_backend: str | None = None,
        timeout: timedelta | None = default_pg_timeout,
    ) -> None:
        super().__init__("auto", 1, save_distributed_checkpoint, process_group_backend, timeout)

    def setup_environment(self) -> None:
        """Take all processes into the data-parallel dimension, now that their number is known."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Place the model.

        Raises:
            InputError: It does not share what it trains, so that every process would train weights of its own.
        """
        super().setup(trainer)
        assert self.model is not None
        for name, parameter in self.model.named_parameters():
            if trainer.training and parameter.requires_grad and not isinstance(parameter, DTensor):
                raise InputError(
                    f"{type(self.lightning_module).__name__} does not share {name!r}, which it trains; legal is "
                    "InsViE, or --trainer.strategy=ddp"
                )

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """What is trained: each process's share, or all of it on the first process."""
        assert self.model is not None
        full = not self._save_distributed_checkpoint
        options = StateDictOptions(full_state_dict=full, cpu_offload=True, ignore_frozen_params=True)
        return get_model_state_dict(self.model, options=options)

    def load_checkpoint(
        self, checkpoint_path: str | os.PathLike[str], weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint of either form; of a folder, Lightning would ask for what is not trained, too.

        Raises:
            InputError: See `sharded.check_folder`; or it is of another model, or holds code, which is not run.
        """
        path = Path(self.broadcast(checkpoint_path))
        if path.is_file():
            return super().load_checkpoint(path, weights_only)
        check_folder(path)
        assert self.model is not None
        options = StateDictOptions(ignore_frozen_params=True, strict=False)
        model, optimizer = get_state_dict(self.model, self.optimizers, options=options)
        state = {"state_dict": model, "optimizer_0": optimizer} if self.optimizers else {"state_dict": model}
        assert self.lightning_module is not None
        planner = _PlainPlanner(allow_partial_load=not self.lightning_module.strict_loading)
        try:
            sharded.load(state, checkpoint_id=path, planner=planner)
        except CheckpointException as error:  # a BaseException, by which torch names every rank that failed
            causes = [cause for cause, _ in error.failures.values()]
            raise InputError(f"{path} cannot be resumed from: {first_line(Exception(causes[0]))}") from error
        set_state_dict(self.model, self.optimizers, model_state_dict=model, optim_state_dict=optimizer, options=options)
        return torch.load(path / META, weights_only=True)


class _PlainPlanner(sharded.DefaultLoadPlanner):
    """Reads what is no tensor as plain types only; torch's own unpickles it."""

    def load_bytes(self, read_item: Any, value: io.BytesIO) -> None:
        """Refuse code before torch reads it."""
        torch.load(value, weights_only=True)
        value.seek(0)
        super().load_bytes(read_item, value)
