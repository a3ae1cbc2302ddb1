"""Published pairs of pictures, before and after an edit, as the drafts that pair triplets are built from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from lightning.pytorch import LightningDataModule

from insvie_data_modules.images import read_picture
from insvie_data_modules.listing import feed, make_keys, tell_size, unread
from insvie_lightning.batch import Clip
from insvie_lightning.errors import InputError
from insvie_lightning.files import read_json
from insvie_lightning.shards.layouts import leads_outside
from insvie_lightning.video import Resize, fit_clip

if TYPE_CHECKING:
    from insvie_lightning.builders.units import Input, UnitLoader

SEEDS, TURNS, DESCRIPTIONS = "seeds.json", "edit_turns.json", "global_descriptions.json"
COLUMNS = ("key", "source", "edited", "instruction", "source_caption", "edited_caption", "prompt")


class ImagePairs(LightningDataModule):
    """Pairs of pictures for builders, each as a draft of one frame with its edited frame, of origin `pair`.

    Two layouts are known by the file in the folder (paper, section 3.2):

    - InstructPix2Pix (`clip-filtered-dataset`): `seeds.json` lists folders and seeds; a folder holds `prompt.json`
      (`caption` or `input`, `edit`, `output`) and `SEED_0.jpg`, `SEED_1.jpg`.
    - MagicBrush: `edit_turns.json` lists `input`, `output` and `instruction`; pictures lie in `images/ID/`, and
      `global_descriptions.json`, if there, describes them.

    Args:
        pairs: The folder.
        size: Height and width in pixels, the same for both; None keeps each pair's own.
        resize: `cover` scales to cover and cuts the middle, `crop` cuts the middle, `stretch` scales.
        fps: Frames per second of the clips that are made of the pictures.
        dataset: Name of the data set; that of its layout by default.
        batch_size: Pairs that a step is given at once.
        num_workers: Worker processes that read.
    """

    def __init__(
        self,
        pairs: str | os.PathLike[str],
        size: tuple[int, int] | None = (576, 1024),
        resize: Resize = "cover",
        fps: float = 7.0,
        dataset: str | None = None,
        batch_size: int = 1,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.pairs = Path(pairs)
        self.size = size
        self.resize: Resize = resize
        self.fps = fps
        self.dataset = dataset
        self.batch_size = batch_size
        self.num_workers = num_workers

    def inputs(self) -> PairInputs:
        """All pairs as drafts, in the order of the published lists.

        Raises:
            InputError: The folder is of neither layout, or its list cannot be read.
        """
        return PairInputs(self.pairs, self.size, self.resize, self.fps, self.dataset)

    def predict_dataloader(self) -> UnitLoader:
        """Units of drafts, for a builder."""
        return feed(self, self.inputs(), self.batch_size, self.num_workers)


class PairInputs:
    """Drafts of pairs; the arguments are those of `ImagePairs`."""

    def __init__(
        self, pairs: Path, size: tuple[int, int] | None, resize: Resize, fps: float, dataset: str | None
    ) -> None:
        if (pairs / SEEDS).is_file():
            rows, layout = list(_instructpix2pix(pairs)), "instructp2p"
        elif (pairs / TURNS).is_file():
            rows, layout = list(_magicbrush(pairs)), "magicbrush"
        else:
            raise InputError(f"{pairs} is no folder of image pairs: it has neither {SEEDS} nor {TURNS}")
        if not rows:
            raise InputError(f"{pairs} lists no image pair")
        keys = make_keys(f"{layout}_{name}" for name, *_ in rows)
        columns = zip(*((key, *rest) for key, (_, *rest) in zip(keys, rows, strict=True)), strict=True)
        self.rows = pa.table({name: pa.array(column) for name, column in zip(COLUMNS, columns, strict=True)})
        self.folder, self.size, self.fps, self.dataset = pairs, size, fps, dataset or layout
        self.resize: Resize = resize
        taken = {"size": list(size) if size else None, "resize": resize, "fps": fps, "dataset": self.dataset}
        self.reading: Mapping[str, Any] = {"data": "ImagePairs", **taken, "at": str(pairs)}

    @property
    def keys(self) -> pa.ChunkedArray:
        """The key of every pair: its layout and its name there."""
        return self.rows["key"]

    def __getitem__(self, index: int) -> Input:
        """Read one pair, or find out why it cannot be used."""
        from insvie_lightning.builders.units import Input

        row = self.rows.slice(index, 1).to_pylist()[0]
        files = {"source": row["source"], "edited": row["edited"]}
        draft = unread(row, "pair", self.dataset, {"ImagePairs": files})
        try:
            texts = {name: row[name] for name in ("instruction", "source_caption", "edited_caption")}
            texts |= self._prompt(row["prompt"]) if row["prompt"] else {}
            if not texts["instruction"]:
                raise InputError("the pair has no instruction")
            source, edited = (self._read(name) for name in files.values())
        except InputError as error:
            return Input(draft, bad=str(error))
        if source.size != edited.size:
            shapes = "{}x{} and {}x{}".format(*source.size, *edited.size)
            return Input(draft, bad=f"the pictures differ in size: {shapes}")
        both = [fit_clip(clip, self.size, self.resize) if self.size else clip for clip in (source, edited)]
        return Input(replace(tell_size(draft, source.size), source=both[0], edited_frame=both[1].frames[0], **texts))

    def _read(self, name: str) -> Clip:
        if not name or leads_outside(name):
            raise InputError(f"the list names {name!r}, which is no picture below its folder")
        return read_picture(self.folder / name, name, self.fps)

    def _prompt(self, name: str) -> dict[str, str]:
        """The texts of InstructPix2Pix, which lie beside the pictures."""
        if leads_outside(name):
            raise InputError(f"the list names {name!r}, which is not below its folder")
        prompt = read_json(self.folder / name, dict)
        texts = {
            "instruction": prompt.get("edit"),
            "source_caption": prompt.get("caption", prompt.get("input")),
            "edited_caption": prompt.get("output"),
        }
        return {key: text.strip() if isinstance(text, str) else "" for key, text in texts.items()}


Row = tuple[str, str, str, str, str, str, str]
"""Name, then `COLUMNS` without the key; `prompt` is a file that has the texts, or empty."""


def _instructpix2pix(folder: Path) -> Iterator[Row]:
    for entry in read_json(folder / SEEDS, list):
        match entry:
            case [str(name), [*seeds]]:
                for seed in seeds:
                    pictures = (f"{name}/{seed}_{side}.jpg" for side in (0, 1))
                    yield (f"{name}_{seed}.jpg", *pictures, "", "", "", f"{name}/prompt.json")  # type: ignore[misc]
            case _:
                raise InputError(f"{folder / SEEDS}: an entry is no pair of a folder and its seeds: {str(entry)[:80]}")


def _magicbrush(folder: Path) -> Iterator[Row]:
    captions = read_json(folder / DESCRIPTIONS, dict) if (folder / DESCRIPTIONS).is_file() else {}
    for entry in read_json(folder / TURNS, list):
        if not isinstance(entry, dict) or not all(isinstance(entry.get(name), str) for name in ("input", "output")):
            raise InputError(f"{folder / TURNS}: an entry has no input and output: {str(entry)[:80]}")
        source, edited = entry["input"], entry["output"]
        image = source.partition("-")[0]
        described = found if isinstance(found := captions.get(image), dict) else {}
        texts = (str(text or "") for text in (entry.get("instruction"), described.get(source), described.get(edited)))
        yield (edited, f"images/{image}/{source}", f"images/{image}/{edited}", *texts, "")
