"""Edit clips and video files with any trained editor: the same from Python and the command line."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from torch import Tensor

from insvie_lightning.batch import Clip, EditBatch, EditedVideos
from insvie_lightning.decode import open_video, uneven_seconds
from insvie_lightning.edit_list import keep_source
from insvie_lightning.editors.framing import SIDE_MULTIPLE, Framing, frame_clip
from insvie_lightning.editors.lineage import describe_edit, hash_weights
from insvie_lightning.editors.low_memory import save_memory
from insvie_lightning.editors.options import EditOptions
from insvie_lightning.editors.windows import edit_in_windows
from insvie_lightning.errors import InputError, nearest
from insvie_lightning.nets.latents import to_uint8
from insvie_lightning.plugins import available, load_plugins
from insvie_lightning.video import legal_frames, pad_frames, release_frames, write_frames
from insvie_lightning.weights.deliverable import read_settings


class Editor:
    """A trained editor, ready to edit.

    Args:
        model: A LightningModule with weights, `edit_batch(EditBatch) -> B F 3 H W in [-1, 1]` and `working_shape`, the
            frames, height and width that it was made for; its `edit_options`, if it has any, are how it edits unless it
            is told otherwise.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    @classmethod
    def from_pretrained(
        cls,
        folder: Path | str,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        low_memory: bool = False,
        **settings: Any,
    ) -> "Editor":
        """Load a trained editor of any class from the `weights` folder of a run.

        Args:
            folder: The deliverable; it names the editor's class.
            device: As in `place`.
            dtype: As in `place`.
            low_memory: As in `place`.
            settings: Override the settings that the editor was trained with, as `sampler="ddim"`.

        Raises:
            InputError: The folder is no deliverable, or of an editor that is not registered.
        """
        device = torch.device(device or default_device())
        dtype = dtype or default_dtype(device)
        kind: Any = _editor_class(read_settings(Path(folder)).get("editor", "InsViE"), str(folder))
        return cls.place(kind.from_pretrained(folder, dtype=dtype, **settings), device, dtype, low_memory)

    @classmethod
    def place(
        cls,
        model: LightningModule,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        low_memory: bool = False,
    ) -> "Editor":
        """Put a model with weights where it edits, for editing only: its LoRA may be merged (`Execution.merge_lora`).

        Args:
            model: See `Editor`.
            device: None is the first GPU, else the CPU.
            dtype: Of all weights; None is bfloat16 on a GPU, float32 elsewhere.
            low_memory: Keep on the device only the network at work, and let the autoencoder work in tiles.
        """
        device = torch.device(device or default_device())
        if merge := getattr(model, "merge_lora", None):
            merge()  # before its LoRA is rounded
        model = model.eval().to(dtype=dtype or default_dtype(device))
        if low_memory:
            save_memory(model, device)
        else:
            model.to(device)
        return cls(model)

    @property
    def options(self) -> EditOptions:
        """How it edits unless it is told otherwise."""
        return getattr(self.model, "edit_options", EditOptions())

    def edit(self, clip: Clip, instruction: str, options: EditOptions | None = None, **changes: Any) -> Clip:
        """Edit a clip.

        Args:
            clip: Any length and size.
            instruction: What to change.
            options: How; None takes the editor's own.
            changes: Single options by name, as `seed=3, frame_rule="release"`.

        Raises:
            InputError: The clip has no frames, the instruction is empty, or an option is not legal.
        """
        options = replace(options or self.options, **changes)
        if not len(clip):
            raise InputError("a clip of 0 frames cannot be edited")
        edited = list(self._edited(clip.frames, clip.size, instruction, options))
        return Clip(np.stack(edited), options.fps or clip.fps)

    def edit_file(
        self,
        video: Path | str,
        instruction: str,
        output: Path | str,
        options: EditOptions | None = None,
        **changes: Any,
    ) -> int:
        """Edit a video file into an mp4, in the memory of two windows whatever its length; return its frames.

        Args:
            video: Any length, size and rate.
            instruction: What to change.
            output: The mp4; it appears whole or not at all, and holds `lineage` as its comment.
            options: How; None takes the editor's own.
            changes: Single options by name.

        Raises:
            InputError: As `edit`, the video cannot be read, or `output` is the video itself.
        """
        options = replace(options or self.options, **changes)
        keep_source(video, output)
        with open_video(video) as source:
            keeps_times = options.fps is None and options.frame_rule == "keep"
            return write_frames(
                output,
                self._edited(source.frames, source.size, instruction, options),
                options.fps or source.fps,
                seconds=uneven_seconds(video) if keeps_times else None,
                comment=self.lineage(video, instruction, options),
            )

    def lineage(self, video: Path | str, instruction: str, options: EditOptions) -> str:
        """What makes an edit, as JSON: the video, the instruction, the model and every option as it is used.

        Raises:
            InputError: There is no such video.
        """
        used = {name: value for name, value in asdict(options).items() if value is not None}
        return describe_edit(self.model, self.weights_hash, video, instruction, used)

    @cached_property
    def weights_hash(self) -> str:
        """`lineage.hash_weights` of the model, read once."""
        return hash_weights(self.model)

    def edit_batch(self, batch: EditBatch) -> EditedVideos:
        """Edit a batch of sources B F 3 H W of any length and size as the editor's own options say.

        Unless these say how frames and pixels are brought to the network, sources of legal length and size, no longer
        and no larger than the base was made for, go through it as one batch, as cached latents always do. Others are
        edited one by one as in `edit`, into uint8; what `frame_rule: release` and `resize: cover` leave out is cut from
        source and target, too.

        Raises:
            InputError: As `edit`.
        """
        options, source = self.options, batch.source
        if source is None or self._at_once(source, options):
            with _set_for_now(self.model, options.settings()):
                return EditedVideos(self.model.edit_batch(batch))
        size = (source.shape[3], source.shape[4])
        clips = [
            np.stack(list(self._edited(clip.cpu().numpy(), size, instruction, options, key)))
            for clip, instruction, key in zip(source, batch.instructions, batch.keys, strict=True)
        ]
        edited = torch.from_numpy(np.stack(clips)).to(self.model.device)
        cover = self._framing(size, options) if options.resize == "cover" else None
        if cover is None and edited.shape == source.shape:
            return EditedVideos(edited)
        source, target = (
            None if whole is None else _cut(whole[:, : edited.shape[1]], cover) for whole in (source, batch.edited)
        )
        return EditedVideos(edited, source, target)

    def _at_once(self, source: Tensor, options: EditOptions) -> bool:
        _, frames, _, height, width = source.shape
        base_frames, base_height, base_width = self.model.working_shape
        legal = frames == legal_frames(frames) and not (height % SIDE_MULTIPLE or width % SIDE_MULTIPLE)
        return options.shows_all and legal and frames <= base_frames and height * width <= base_height * base_width

    def _framing(self, size: tuple[int, int], options: EditOptions) -> Framing:
        _, height, width = self.model.working_shape
        return frame_clip(size, options.size or (height, width), options.resize)

    def _edited(
        self,
        frames: Iterable[np.ndarray],
        size: tuple[int, int],
        instruction: str,
        options: EditOptions,
        key: str = "",
    ) -> Iterator[np.ndarray]:
        if not instruction.strip():
            raise InputError("the instruction is empty; say what to change, e.g. 'turn the car into a tuk-tuk'")
        framing = self._framing(size, options)

        def edit_window(window: np.ndarray) -> np.ndarray:
            clip = Clip(framing.fit(window), 1.0)
            padded = torch.from_numpy(pad_frames(clip, legal_frames(len(clip))).frames)[None]
            batch = EditBatch((key,), (instruction,), source=padded.to(self.model.device))
            return framing.restore(to_uint8(self.model.edit_batch(batch)[0]).cpu().numpy()[: len(clip)])

        with _set_for_now(self.model, options.settings()):
            if options.frame_rule == "release":
                first = list(islice(frames, 53))
                seen, kept = release_frames(len(first))
                yield from edit_window(np.stack(first[:seen]))[:kept]
            else:
                yield from edit_in_windows(edit_window, frames, *options.windows(self.model.working_shape[0]))


def default_device() -> str:
    """The first GPU, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def default_dtype(device: torch.device) -> torch.dtype:
    """Half precision on a GPU, where T5-XXL would take 19 GB without; float32 elsewhere."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def _editor_class(name: str, folder: str) -> type:
    import_module("insvie_lightning.editors")
    if name not in (known := _editors()):
        load_plugins()
        known = _editors()
    if name not in known:
        raise InputError(
            f"{folder} is of the editor {name!r}, which is not registered; known are {', '.join(known)}"
            f"{nearest(name, known)}"
        )
    return known[name]


def _editors() -> dict[str, type]:
    return {name: kind for name, kind in available(LightningModule).items() if hasattr(kind, "edit_batch")}


def _cut(clips: Tensor, cover: Framing | None) -> Tensor:
    """Clips B F 3 H W at the picture that `cover` leaves of them; None leaves all."""
    if cover is None:
        return clips
    return torch.from_numpy(np.stack([cover.fit(clip.cpu().numpy()) for clip in clips])).to(clips.device)


@contextmanager
def _set_for_now(model: Any, settings: dict[str, Any]) -> Iterator[None]:
    given = {name: value for name, value in settings.items() if value is not None}
    before = {name: getattr(model, name) for name in given}
    try:
        for name, value in given.items():
            setattr(model, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(model, name, value)
