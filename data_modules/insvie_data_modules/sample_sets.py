"""Sets of samples by name, each a query over one manifest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from insvie_lightning.errors import InputError
from insvie_lightning.shards.select import Selection


@dataclass
class SampleSet:
    """A query over a manifest.

    Attributes:
        where: WHERE clause.
        static_to_real: Static samples to real ones and pairs, such as '5:1' (in quotes) or 0.5: the set is the largest
            one that holds it. None takes samples as they come.
    """

    where: str = "true"
    static_to_real: str | float | None = None


class SampleSets(LightningDataModule):
    """The sets that queries choose from a data set, for `BuildSets`. All are tried before the first one is written.

    Args:
        shards: The data set.
        sets: Name -> query.
        seed: Chooses the samples that a ratio leaves out.

    Raises:
        InputError: There is no set, or a name cannot name a folder.
    """

    def __init__(self, shards: Path, sets: dict[str, SampleSet], seed: int = 0) -> None:
        super().__init__()
        if not sets:
            raise InputError("there is no set to build; give `sets`, a query by name")
        for name in sets:
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise InputError(f"the set {name!r} names no folder; legal are letters, digits, '_' and '-'")
        self.shards, self.sets, self.seed = Path(shards), sets, seed

    def predict_dataloader(self) -> DataLoader[Selection]:
        """The sets, one by one.

        Raises:
            InputError: A query is illegal, or chooses nothing.
        """
        chosen = [
            Selection(name, self.shards, query.where, query.static_to_real, self.seed)
            for name, query in self.sets.items()
        ]
        for selection in chosen:
            try:
                selection.rows()
            except InputError as error:
                raise InputError(f"set {selection.name!r}: {error}") from error
        return DataLoader(chosen, batch_size=None)  # type: ignore[arg-type]
