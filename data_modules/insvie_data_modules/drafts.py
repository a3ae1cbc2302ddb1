"""What an earlier step built, as the input of the next one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from lightning.pytorch import LightningDataModule

from insvie_data_modules.listing import feed, unread
from insvie_lightning.errors import InputError
from insvie_lightning.shards.drafts import decode_sample
from insvie_lightning.shards.job import check_finished
from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.read import read_members
from insvie_lightning.shards.record import to_record

if TYPE_CHECKING:
    from insvie_lightning.builders.units import Input, UnitLoader


class Drafts(LightningDataModule):
    """Every accepted sample of a shard folder for builders: drafts to go on with, or triplets to filter.

    Args:
        shards: The folder; if a step built it, that step must be finished.
        where: WHERE clause over the manifest.
        limit: At most so many samples, the first ones.
        batch_size: Samples that a step is given at once.
        num_workers: Worker processes that read.
    """

    def __init__(
        self,
        shards: str | os.PathLike[str],
        where: str = "true",
        limit: int | None = None,
        batch_size: int = 1,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        if limit is not None and limit < 1:
            raise InputError(f"limit is {limit}; legal are 1 or more, and null for all")
        self.shards = Path(shards)
        self.where = where
        self.limit = limit
        self.batch_size = batch_size
        self.num_workers = num_workers

    def inputs(self) -> RowInputs:
        """All samples, in the manifest's order.

        Raises:
            InputError: There are none, the clause is illegal, or the folder is still being built.
        """
        return RowInputs(self.shards, self.where, self.limit)

    def predict_dataloader(self) -> UnitLoader:
        """Units of drafts or triplets, for a builder."""
        return feed(self, self.inputs(), self.batch_size, self.num_workers)


class RowInputs:
    """Drafts or triplets of manifest rows; the arguments are those of `Drafts`."""

    def __init__(self, shards: Path, where: str, limit: int | None) -> None:
        check_finished(shards)
        self.folder = shards
        self.rows: pa.Table = open_manifest(shards).query(where)[:limit]
        if not len(self.rows):
            raise InputError(f"no accepted sample of {shards} matches `{where}`; `insvie shards stats` counts them")
        tars = "\n".join(self.rows["tar_sha256"].unique().to_pylist())
        content = hashlib.sha256(tars.encode()).hexdigest()
        told = {"data": "Drafts", "where": where, "limit": limit, "sha256_of_tars": content}
        self.reading: Mapping[str, Any] = {**told, "at": str(shards)}

    @property
    def keys(self) -> pa.ChunkedArray:
        """The key of every sample."""
        return self.rows["key"]

    def __getitem__(self, index: int) -> Input:
        """Read one sample, or find out why it cannot be used."""
        from insvie_lightning.builders.units import Input

        row = self.rows.slice(index, 1).to_pylist()[0]
        try:
            members = read_members(self.folder, row)
            return Input(decode_sample(row, members), members)
        except InputError as error:
            return Input(unread(row, row["origin"], row["dataset"], to_record(row)["lineage"]), bad=str(error))
