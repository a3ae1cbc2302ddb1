"""All accepted samples of a shard folder, once and in order: for validating, scoring and building on top."""

from __future__ import annotations

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from insvie_data_modules.samples import Folders, Form, RowSamples, Sample, check_cache, fill_form, load_rows, stack
from insvie_data_modules.workers import outlast_signals
from insvie_lightning.errors import InputError
from insvie_lightning.video import Resize


class ShardSet(LightningDataModule):
    """Every accepted sample of shard folders in the manifest's order, for validate, test and predict.

    A sample that cannot be read stops the run: a score over fewer samples would not be comparable.

    Args:
        shards: Shard folder, or several.
        batch_size: Samples per batch and process.
        frames: Number of frames, at the widest even stride; None is what the trainer's model was made for, without a
            trainer each clip's own.
        size: Height and width in pixels; None as of `frames`.
        resize: `cover` scales to cover and cuts the middle, `crop` cuts the middle, `stretch` scales.
        pad_short: Repeat the last frame of a clip that is shorter than `frames`.
        scale_small: Scale both clips of a sample that is too small for the window of `crop` until they cover it.
        limit: At most so many samples, the first ones.
        where: WHERE clause over the manifest.
        num_workers: Worker processes.
    """

    def __init__(
        self,
        shards: Folders,
        batch_size: int = 1,
        frames: int | None = None,
        size: tuple[int, int] | None = None,
        resize: Resize = "cover",
        pad_short: bool = False,
        scale_small: bool = False,
        limit: int | None = None,
        where: str = "true",
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.shards = shards
        self.batch_size = batch_size
        self.form = Form(frames, size, resize, pad_short, scale_small)
        self.limit = limit
        self.where = where
        self.num_workers = num_workers

    def val_dataloader(self) -> DataLoader[Sample]:
        """Batches of `EditBatch` with a target."""
        rows = load_rows(self.shards, self.where)[: self.limit]
        if not len(rows):
            raise InputError(
                f"no accepted sample of {self.shards} matches `{self.where}`; `insvie shards stats` counts them"
            )
        form = fill_form(self.form, self.trainer)
        check_cache(rows, form, self.trainer)
        return DataLoader(
            RowSamples(rows, form),
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            worker_init_fn=outlast_signals,
            collate_fn=stack,
        )

    def test_dataloader(self) -> DataLoader[Sample]:
        """Batches of `EditBatch` with a target."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[Sample]:
        """Batches of `EditBatch` with a target."""
        return self.val_dataloader()
