"""Single pictures, as the drafts that static triplets are built from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from lightning.pytorch import LightningDataModule

from insvie_data_modules.listing import feed, folder_of, list_files, tell_size, unread
from insvie_lightning.batch import Clip
from insvie_lightning.decode import MAX_SIDE
from insvie_lightning.errors import InputError
from insvie_lightning.files import read_bytes
from insvie_lightning.shards.drafts import decode_png
from insvie_lightning.video import Resize, fit_clip

if TYPE_CHECKING:
    from insvie_lightning.builders.units import Input, UnitLoader

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


class Images(LightningDataModule):
    """Pictures for builders, each as a draft of one frame and of origin `static` (paper, section 3.3).

    Args:
        images: A folder of pictures with all below it, one picture, or a CSV with the column `image`, and perhaps
            `instruction` and `caption`; paths in a CSV are relative to its folder.
        size: Height and width in pixels; None keeps each picture's own.
        resize: `cover` scales to cover and cuts the middle, `crop` cuts the middle, `stretch` scales.
        fps: Frames per second of the clips that are made of the pictures.
        dataset: Name of the data set that the pictures are from; that of the folder by default.
        batch_size: Pictures that a step is given at once.
        num_workers: Worker processes that read.
    """

    def __init__(
        self,
        images: str | os.PathLike[str],
        size: tuple[int, int] | None = (576, 1024),
        resize: Resize = "cover",
        fps: float = 7.0,
        dataset: str | None = None,
        batch_size: int = 1,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.images = Path(images)
        self.size = size
        self.resize: Resize = resize
        self.fps = fps
        self.dataset = folder_of(self.images).resolve().name if dataset is None else dataset
        self.batch_size = batch_size
        self.num_workers = num_workers

    def inputs(self) -> ImageInputs:
        """All pictures as drafts, in the order of the CSV or of their names.

        Raises:
            InputError: There are none, or the CSV cannot be read.
        """
        return ImageInputs(self.images, self.size, self.resize, self.fps, self.dataset)

    def predict_dataloader(self) -> UnitLoader:
        """Units of drafts, for a builder."""
        return feed(self, self.inputs(), self.batch_size, self.num_workers)


class ImageInputs:
    """Drafts of pictures; the arguments are those of `Images`."""

    def __init__(self, images: Path, size: tuple[int, int] | None, resize: Resize, fps: float, dataset: str) -> None:
        self.rows: pa.Table = list_files(images, PICTURE_SUFFIXES, "image")
        self.folder, self.size, self.fps, self.dataset = folder_of(images), size, fps, dataset
        self.resize: Resize = resize
        taken = {"size": list(size) if size else None, "resize": resize, "fps": fps}
        self.reading: Mapping[str, Any] = {"data": "Images", **taken, "dataset": dataset, "at": str(images)}

    @property
    def keys(self) -> pa.ChunkedArray:
        """The key of every picture, made of its name."""
        return self.rows["key"]

    def __getitem__(self, index: int) -> Input:
        """Read one picture, or find out why it cannot be used."""
        from insvie_lightning.builders.units import Input

        row = self.rows.slice(index, 1).to_pylist()[0]
        draft = unread(row, "static", self.dataset, {"Images": {"file": row["name"]}})
        if row["problem"]:
            return Input(draft, bad=row["problem"])
        try:
            picture = read_picture(self.folder / row["name"], row["name"], self.fps)
            fitted = fit_clip(picture, self.size, self.resize) if self.size else picture
            return Input(replace(tell_size(draft, picture.size), source=fitted))
        except InputError as error:
            return Input(draft, bad=str(error))


def read_picture(path: Path, name: str, fps: float) -> Clip:
    """Read a picture as a clip of one frame.

    Args:
        path: The file.
        name: What to call it in errors.
        fps: Frame rate of the clip.

    Raises:
        InputError: It cannot be read, or is larger than 8192 pixels a side.
    """
    frame = decode_png(read_bytes(path, "a picture", name), name)
    if max(frame.shape) > MAX_SIDE:
        raise InputError(f"{name}: {frame.shape[1]}x{frame.shape[2]} pixels; at most {MAX_SIDE} a side are read")
    return Clip(frame[None], fps)
