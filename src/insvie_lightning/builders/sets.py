"""The training sets of a data set, each a query over its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.utilities import rank_zero_info

from insvie_lightning.errors import InputError
from insvie_lightning.shards.composition import Part, as_table, compose, read_composition, write_composition
from insvie_lightning.shards.select import Selection, select


class BuildSets(LightningModule):
    """Writes the sets of `SampleSets`, each as shards of its own or as a list of keys.

    A rerun continues after the last finished shard. What the sets are composed of is printed, and written to
    `composition.csv` in the output folder, as InsViE's Tables 2 and 3.

    A curriculum needs no such sets: its stages are queries themselves. They are for training elsewhere, for handing
    on, and for looking at.

    Args:
        output: A folder for each set is made in it.
        keys_only: Write `keys.txt` instead of shards.
        shard_size: Samples a shard.
    """

    def __init__(self, output: Path, keys_only: bool = False, shard_size: int = 1000) -> None:
        super().__init__()
        self.output, self.keys_only, self.shard_size = Path(output), keys_only, shard_size
        self._composed: dict[str, tuple[Part, ...]] = {}

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Selections stay as they are."""
        return batch

    def on_predict_start(self) -> None:
        """Begin to count."""
        if self.trainer.world_size > 1:
            raise InputError("sets are written by one process: set --trainer.devices=1")
        self._composed = {}

    def predict_step(self, batch: Selection, batch_idx: int) -> None:
        """Write one set."""
        folder = self.output / batch.name
        count = select(
            batch.folder,
            folder,
            batch.where,
            self.keys_only,
            static_to_real=batch.static_to_real,
            seed=batch.seed,
            shard_size=self.shard_size,
        )
        self._composed[batch.name] = compose(batch.rows()) if self.keys_only else read_composition(folder)
        rank_zero_info(f"{count} samples in {folder}")

    def on_predict_end(self) -> None:
        """Say what the sets are composed of."""
        from rich.console import Console

        write_composition(self._composed, self.output / "composition.csv")
        Console().print(as_table(self._composed))
