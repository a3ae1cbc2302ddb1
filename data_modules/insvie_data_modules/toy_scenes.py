"""Toy scenes drawn on the fly, with disjoint seeds for training, validation and test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from insvie_data_modules.listing import feed
from insvie_lightning.batch import EditBatch, Triplet, collate
from insvie_lightning.toy.edits import example, indices, key_of, to_triplet

if TYPE_CHECKING:
    from insvie_lightning.builders.units import Input, UnitLoader


class _Scenes(Dataset[Triplet]):
    def __init__(self, split: str, indices: list[int], size: tuple[int, int], frames: int) -> None:
        self.split, self.indices, self.size, self.frames = split, indices, size, frames

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> Triplet:
        return to_triplet(example(self.split, self.indices[item]), self.frames, *self.size)


class _Drawn:
    def __init__(self, scenes: _Scenes) -> None:
        self.scenes = scenes
        self.keys = pa.chunked_array([[key_of(scenes.split, index) for index in scenes.indices]], pa.string())
        self.reading = {"data": "ToyScenes", "size": list(scenes.size), "frames": scenes.frames}

    def __getitem__(self, index: int) -> Input:
        from insvie_lightning.builders.units import Input

        return Input(self.scenes[index])


class ToyScenes(LightningDataModule):
    """Triplets of the toy world, drawn while training; every split has seeds of its own.

    Args:
        batch_size: Samples per rank and step.
        samples: Training samples; the epoch's length.
        val_samples: Validation samples.
        test_samples: Test samples.
        size: Height and width in pixels; 64 x 96 is the size the world is described in.
        frames: Frames of a clip; 1 + 4k.
        resize: Taken for the sake of one interface; scenes are drawn at the asked size.
        edit_types: Only these in training and validation; empty means all.
        test_edit_types: Only these at test; empty means all.
        test_origins: Only these at test; empty means all. `real` are the scenes whose shapes move on their own.
        num_workers: Worker processes that draw.
    """

    def __init__(
        self,
        batch_size: int = 16,
        samples: int = 4096,
        val_samples: int = 64,
        test_samples: int = 256,
        size: tuple[int, int] = (64, 96),
        frames: int = 9,
        resize: Literal["crop", "cover", "stretch"] = "stretch",
        edit_types: tuple[str, ...] = (),
        test_edit_types: tuple[str, ...] = (),
        test_origins: tuple[str, ...] = (),
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.batch_size, self.size, self.frames, self.num_workers = batch_size, size, frames, num_workers
        self.samples = {"train": samples, "val": val_samples, "test": test_samples}
        self.edit_types = {"train": edit_types, "val": edit_types, "test": test_edit_types}
        self.test_origins = test_origins

    def train_dataloader(self) -> DataLoader[EditBatch]:
        """Training triplets in order of their index."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[EditBatch]:
        """Validation triplets."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[EditBatch]:
        """Test triplets."""
        return self._loader("test")

    def inputs(self) -> _Drawn:
        """The training triplets themselves, for the builder that writes them."""
        return _Drawn(self._scenes("train"))

    def predict_dataloader(self) -> UnitLoader:
        """Units of training triplets, for a builder."""
        return feed(self, self.inputs(), self.batch_size, self.num_workers)

    def _scenes(self, split: str) -> _Scenes:
        origins = self.test_origins if split == "test" else ()
        chosen = indices(split, self.samples[split], tuple(self.edit_types[split]), tuple(origins))
        return _Scenes(split, chosen, self.size, self.frames)

    def _loader(self, split: str) -> DataLoader[Any]:
        return DataLoader(
            self._scenes(split),
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=collate,
        )
