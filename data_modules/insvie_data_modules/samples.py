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
from torch.utils.data import Dataset

from insvie_lightning.batch import PIXELS_PER_LATENT, Clip, EditBatch, Position, Window
from insvie_lightning.errors import InputError
from insvie_lightning.shards.drafts import EDITED, SOURCE
from insvie_lightning.shards.latents import LATENTS, NOISE_SHIFT, SIDES, check_latents, read_recipe, unpack_latents
from insvie_lightning.shards.manifest import open_manifest
from insvie_lightning.shards.read import decode_triplet, read_member, shard_of
from insvie_lightning.slow_reads import reading
from insvie_lightning.video import Resize, fit_clip, pad_frames, read_clip, sample_frames

Folders = Sequence[str | Path] | str | Path  # jsonargparse takes the first that fits, and a list as text fits str
Place = tuple[float, float, float]
"""Where a window lies in the slack of a clip, in time, down and across: 0 at the start, 1 at the end."""
_TRIED = 16
"""Samples of a folder that are looked at until one tells how its latents were made."""
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
        crop_latents: Leave clips whole, and say which window of `size` is to be cut out of their latents.
        source_pixels: Read the source's pixels beside cached latents.
        edited_pixels: Read the edited clip's pixels beside cached latents.
        noise_shift: Read the measured effect of noise beside cached latents.
    """

    frames: int | None
    size: tuple[int, int] | None
    resize: Resize
    pad_short: bool = False
    scale_small: bool = False
    max_frames: int | None = None
    crop_latents: bool = False
    source_pixels: bool = False
    edited_pixels: bool = False
    noise_shift: bool = False


def fill_form(form: Form, trainer: Trainer | None, stage: int | None = None) -> Form:
    """Fill in what a form leaves open with what the trainer's model was made for; without a trainer it stays open.

    Args:
        form: What is known.
        trainer: Whose model may read pixels beside cached latents.
        stage: Number of the stage of a training; None in validation and test.

    Raises:
        InputError: The model does not say what it was made for.
    """
    if trainer is None:
        return form
    model = trainer.lightning_module
    noise = getattr(model, "source_noise", False)
    compares = getattr(model, "compares_pixels", None) if stage is not None else None
    edited = bool(compares and compares(stage))
    source = noise is True or (edited and getattr(model, "identity_pairs", 0) > 0)  # shown as edited clips, too
    form = replace(form, source_pixels=source, edited_pixels=edited, noise_shift=noise == "latents")
    if form.frames and form.size:
        return form
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
    window: Window | None = None


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
        windows=tuple(sample.window for sample in samples if sample.window),
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


def check_cache(rows: pa.Table, form: Form, trainer: Trainer | None) -> None:
    """Refuse cached latents among the rows that were not made for the trainer's model and this form.

    Raises:
        InputError: See `check_latents`; or moments and means are mixed, which cannot share a batch.
    """
    checked: set[str] = set()
    posteriors: dict[str, str] = {}
    start = 0
    for chunk in rows["folder"].chunks:  # folder after folder, so that each chunk is of one
        first = rows.slice(start, min(len(chunk), _TRIED)).to_pylist()
        start += len(chunk)
        if not first or (folder := first[0]["folder"]) in checked:
            continue
        checked.add(folder)
        if (data := _first_latents(first)) is not None:
            encoder = getattr(trainer.lightning_module, "encoder_hash", None) if trainer else None
            crops = form.resize == "crop"
            check_latents(data, Path(folder), encoder, form.frames, form.size, crops, form.noise_shift)
            if (recipe := read_recipe(data)) is not None:
                posteriors[recipe.posterior] = folder
    if len(posteriors) > 1:
        told = " and ".join(f"the {kind} in {folder}" for kind, folder in sorted(posteriors.items()))
        raise InputError(f"cached latents of one stage are all moments or all means, but there are {told}")


def _first_latents(rows: Sequence[dict[str, Any]]) -> bytes | None:
    """The first file of latents that is whole; broken ones are set aside when their turn comes."""
    for row in rows:
        try:
            if (data := _read_members(row, {LATENTS}).get(LATENTS)) is not None:
                unpack_latents(data)
            return data
        except InputError:
            continue
    return None


def read_sample(row: dict[str, Any], form: Form, place: Place = CENTRE) -> Sample:
    """Read the sample of one manifest row; clips are brought to `form`, out of cached latents a window is cut.

    Raises:
        InputError: The sample is broken, too short or too small.
    """
    fps, window = row["fps"], None
    names = {member["name"] for member in row["members"]}
    if LATENTS in names:
        wanted = {LATENTS: True, SOURCE: form.source_pixels, EDITED: form.edited_pixels}
        names = {name for name in names if wanted.get(name)}
    members = _read_members(row, names - {"json"})
    if LATENTS in members:
        tensors, window = _read_cached(members, form, place)
    elif SOURCE in members and EDITED in members:
        record = {name: row[name] for name in ("key", "origin", "instruction")}
        triplet = decode_triplet(record, members[SOURCE], members[EDITED])
        if triplet.source.frames.shape != triplet.edited.frames.shape:
            shapes = f"{triplet.source.frames.shape} and {triplet.edited.frames.shape}"
            raise InputError(f"source and edited clip differ in shape F 3 H W: {shapes}")
        clips = {"source": triplet.source, "edited": triplet.edited}
        shape = form
        if form.crop_latents and form.size:
            shape = replace(form, size=None)
            whole = tuple(side // PIXELS_PER_LATENT for side in triplet.source.size)
            window = _place_window(whole, form.size, place)
        tensors = {side: to_tensor(fit(clip, shape, place)) for side, clip in clips.items()}
        fps = fps or triplet.source.fps
    else:
        raise InputError(f"has members {', '.join(members)}; needed are source.mp4 and edited.mp4, or {LATENTS}")
    captions = {name: row[name] or "" for name in CAPTIONS}
    edit_type = row["edit_type"] or ""
    return Sample(
        row["key"], row["instruction"], row["origin"], fps, tensors, **captions, edit_type=edit_type, window=window
    )


def _read_members(row: dict[str, Any], names: set[str]) -> dict[str, bytes]:
    folder = Path(row["folder"])
    return {
        member["name"]: read_member(folder / shard_of(row, member["name"]), member["offset"], member["size"])
        for member in row["members"]
        if member["name"] in names
    }


def _read_cached(members: dict[str, bytes], form: Form, place: Place) -> tuple[dict[str, torch.Tensor], Window | None]:
    """Latents at the window of the form; with them the clips' pixels, whole, where they are asked for and stored."""
    latents = unpack_latents(members[LATENTS])
    noise_shift = latents.pop(NOISE_SHIFT, None)
    shape = latents["edited"].shape[-2:]
    window = None
    if form.size and form.resize == "crop" and tuple(shape) != tuple(side // PIXELS_PER_LATENT for side in form.size):
        top, left, height, width = window = _place_window(tuple(shape), form.size, place)
        latents = {side: cut[..., top : top + height, left : left + width] for side, cut in latents.items()}
    tensors = {f"{name}_latents" if name in SIDES else name: values.contiguous() for name, values in latents.items()}
    if form.noise_shift and noise_shift is not None:
        tensors[NOISE_SHIFT] = noise_shift
    recipe = read_recipe(members[LATENTS])
    videos = {side: members[name] for side, name in (("source", SOURCE), ("edited", EDITED)) if name in members}
    if not videos or recipe is None:
        return tensors, None
    resize: Any = recipe.resize
    form = Form(recipe.frames, recipe.size, resize)
    return {**tensors, **{side: to_tensor(fit(read_clip(video), form)) for side, video in videos.items()}}, window


def _place_window(whole: tuple[int, ...], size: tuple[int, int], place: Place) -> Window:
    """The window of `size` pixels at a place in `whole` latents.

    Raises:
        InputError: It does not fit, or not on the grid of latents.
    """
    height, width = (side // PIXELS_PER_LATENT for side in size)
    if height > whole[0] or width > whole[1] or any(side % PIXELS_PER_LATENT for side in size):
        sides = "x".join(str(PIXELS_PER_LATENT * side) for side in whole)
        raise InputError(
            f"no window of {size[0]}x{size[1]} pixels lies on the latents of {sides}; legal are multiples of 8"
        )
    slacks = (whole[0] - height, whole[1] - width)
    top, left = (min(int(at * (slack + 1)), slack) for at, slack in zip(place[1:], slacks, strict=True))
    return top, left, height, width


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
        sample = f"sample {row['key']!r} of {Path(row['folder']) / row['shard']}"
        try:
            with reading(sample):
                return read_sample(row, self.form)
        except InputError as error:
            raise InputError(f"{sample}: {error}") from error
