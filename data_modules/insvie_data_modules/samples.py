"""From the rows of a manifest to samples of one shape, and from samples to a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from lightning.pytorch import Trainer
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch.utils.data import Dataset

from insvie_lightning.batch import Clip, EditBatch, Position
from insvie_lightning.errors import InputError
from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.read import decode_triplet, read_member, shard_of
from insvie_lightning.video import Resize, fit_clip, pad_frames, sample_frames

Folders = Sequence[str | Path] | str | Path  # jsonargparse takes the first that fits, and a list as text fits str
LATENTS = "latents.safetensors"
Place = tuple[float, float, float]
"""Where a window lies in the slack of a clip, in time, down and across: 0 at the start, 1 at the end."""
CENTRE: Place = (0.0, 0.5, 0.5)
CAPTIONS = ("source_caption", "edited_caption")
COLUMNS = ["key", "shard", "source_shard", "origin", "edit_type", "instruction", *CAPTIONS, "fps", "members"]


@dataclass(frozen=True, slots=True)
class Form:
    """The one shape that clips are brought to; None leaves the clip's own.

    Attributes:
        frames: Number of frames F.
        size: Height and width in pixels.
        resize: `crop` cuts a window, `cover` scales to cover and cuts the middle, `stretch` scales each axis.
        pad_short: Repeat the last frame of a clip that is shorter than `frames`, instead of refusing it.
        scale_small: Scale a clip that is too small to be cropped until it covers the size, instead of refusing it.
        max_frames: Number of frames of a longer clip where `frames` leaves each clip's own.
    """

    frames: int | None
    size: tuple[int, int] | None
    resize: Resize
    pad_short: bool = False
    scale_small: bool = False
    max_frames: int | None = None


def fill_form(form: Form, trainer: Trainer | None) -> Form:
    """Fill in what a form leaves open with what the trainer's model was made for; without a trainer it stays open.

    Raises:
        InputError: The model does not say what it was made for.
    """
    if trainer is None or (form.frames and form.size):
        return form
    model = trainer.lightning_module
    shape = getattr(model, "working_shape", None)
    if shape is None:
        raise InputError(
            f"frames and size are those that the model was made for, but {type(model).__name__} does not say which; "
            "give --data.frames and --data.size"
        )
    frames, height, width = shape
    return replace(form, frames=form.frames or frames, size=form.size or (height, width))


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample: its tensors are named as in `EditBatch`, without the batch axis."""

    key: str
    instruction: str
    origin: str
    fps: float
    tensors: dict[str, torch.Tensor]
    source_caption: str = ""
    edited_caption: str = ""
    edit_type: str = ""


def stack(samples: Sequence[Sample], position: Position | None = None) -> EditBatch:
    """Stack samples into a batch.

    Raises:
        InputError: The samples do not all have the same tensors in the same shapes.
    """
    first = samples[0]
    shapes = {name: tuple(tensor.shape) for name, tensor in first.tensors.items()}
    for sample in samples:
        if (other := {name: tuple(tensor.shape) for name, tensor in sample.tensors.items()}) != shapes:
            raise InputError(
                f"samples {first.key!r} and {sample.key!r} cannot share a batch: {shapes} against {other}; "
                "set frames and size, or batch_size 1"
            )
    return EditBatch(
        keys=tuple(sample.key for sample in samples),
        instructions=tuple(sample.instruction for sample in samples),
        source_captions=tuple(sample.source_caption for sample in samples),
        edited_captions=tuple(sample.edited_caption for sample in samples),
        origins=tuple(sample.origin for sample in samples),
        edit_types=tuple(sample.edit_type for sample in samples),
        fps=tuple(sample.fps for sample in samples),
        position=position,
        **{name: torch.stack([sample.tensors[name] for sample in samples]) for name in shapes},
    )


def load_rows(folders: Folders, where: str = "true") -> pa.Table:
    """The accepted samples of shard folders that a WHERE clause selects, folder by folder in the manifest's order.

    The rows lie on disk, so that a million of them open in the memory of one.

    Raises:
        InputError: A folder is missing, or the clause is not legal.
    """
    return pa.concat_tables([_load_folder(folder, where) for folder in list_folders(folders)])


def list_folders(folders: Folders) -> list[Path]:
    """Shard folders as a list.

    Raises:
        InputError: A folder is missing.
    """
    listed = [Path(folder) for folder in ([folders] if isinstance(folders, str | Path) else folders)]
    for folder in listed:
        if not folder.is_dir():
            raise InputError(
                f"there is no shard folder {str(folder)!r}: make it with `insvie shards convert SRC {folder}`, "
                "or name another one with --data.shards DIR"
            )
    return listed


def _load_folder(folder: Path, where: str) -> pa.Table:
    table = open_manifest(folder).query(where=where, columns=COLUMNS, accepted_only=True)
    once = pa.DictionaryArray.from_arrays(np.zeros(len(table), np.int32), [str(folder)])
    return table.append_column("folder", once)


def read_sample(row: dict[str, Any], form: Form, place: Place = CENTRE) -> Sample:
    """Read the sample of one manifest row; cached latents stay as they are, clips are brought to `form`.

    Raises:
        InputError: The sample is broken, too short or too small.
    """
    folder, fps = Path(row["folder"]), row["fps"]
    members = {
        member["name"]: read_member(folder / shard_of(row, member["name"]), member["offset"], member["size"])
        for member in row["members"]
        if member["name"] != "json"
    }
    if LATENTS in members:
        tensors = _read_latents(members[LATENTS])
    elif "source.mp4" in members and "edited.mp4" in members:
        record = {name: row[name] for name in ("key", "origin", "instruction")}
        triplet = decode_triplet(record, members["source.mp4"], members["edited.mp4"])
        if triplet.source.frames.shape != triplet.edited.frames.shape:
            shapes = f"{triplet.source.frames.shape} and {triplet.edited.frames.shape}"
            raise InputError(f"source and edited clip differ in shape F 3 H W: {shapes}")
        clips = {"source": triplet.source, "edited": triplet.edited}
        tensors = {side: to_tensor(fit(clip, form, place)) for side, clip in clips.items()}
        fps = fps or triplet.source.fps
    else:
        raise InputError(f"has members {', '.join(members)}; needed are source.mp4 and edited.mp4, or {LATENTS}")
    captions = {name: row[name] or "" for name in CAPTIONS}
    return Sample(
        row["key"], row["instruction"], row["origin"], fps, tensors, **captions, edit_type=row["edit_type"] or ""
    )


def _read_latents(data: bytes) -> dict[str, torch.Tensor]:
    try:
        latents = load_safetensors(data)
        return {f"{side}_latents": latents[side].float() for side in ("source", "edited")}
    except (SafetensorError, KeyError) as error:
        raise InputError(f"{LATENTS} is broken or lacks one of its tensors source and edited: {error}") from None


def fit(clip: Clip, form: Form, place: Place = CENTRE) -> Clip:
    """Bring a clip to `form`: frames at the widest even stride that it allows, then pixels.

    Raises:
        InputError: The clip is too short, or too small to crop.
    """
    start, *position = place
    if form.frames:
        clip = sample_frames(pad_frames(clip, form.frames) if form.pad_short else clip, form.frames, start)
    elif form.max_frames and len(clip) > form.max_frames:
        clip = sample_frames(clip, form.max_frames, start)
    if form.size:
        down, across = position if form.resize == "crop" else (0.5, 0.5)
        too_small = clip.size[0] < form.size[0] or clip.size[1] < form.size[1]
        resize = "cover" if form.resize == "crop" and form.scale_small and too_small else form.resize
        clip = fit_clip(clip, form.size, resize, (down, across))
    return clip


def to_tensor(clip: Clip) -> torch.Tensor:
    """The frames of a clip as a tensor F 3 H W, uint8."""
    return torch.from_numpy(np.ascontiguousarray(clip.frames))


class RowSamples(Dataset[Sample]):
    """The samples of manifest rows, in their order."""

    def __init__(self, rows: pa.Table, form: Form) -> None:
        self.rows = rows
        self.form = form

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        """Read sample `index`.

        Raises:
            InputError: It cannot be read.
        """
        row = self.rows.slice(index, 1).to_pylist()[0]
        try:
            return read_sample(row, self.form)
        except InputError as error:
            raise InputError(f"sample {row['key']!r} of {Path(row['folder']) / row['shard']}: {error}") from error
