"""Edits that another tool made, in the place of an editor, so that they are scored and shown as ours are."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from insvie_lightning.batch import Clip, EditBatch, EditedVideos
from insvie_lightning.edit_list import VIDEO_SUFFIXES
from insvie_lightning.errors import InputError, nearest
from insvie_lightning.quarantine import Quarantine
from insvie_lightning.video import fit_clip, read_clip, sample_frames


class GivenEdits(LightningModule):
    """Reads `KEY.mp4` of a folder where an editor would edit; for test, with any data module.

    Keys are the data module's: of a CSV what its column `output` (or `edited`) names, else the name of the video; of
    TGVE `VIDEO_TYPE`. A shorter edit is compared with as many first frames of its source. An edit that is missing or
    cannot be read is set aside with the reason in `quarantine-rank0.jsonl` of the run folder, and counts in no mean.

    Args:
        folder: Where the edited videos are.
        resize: What to do with an edit of another size than its source: `stretch` brings it back to the source's, as
            the paper does (section 5.1); `cover` leaves it, and scales and cuts the source as the released script does.
        longer: What to take of an edit of more frames than its source: `first` as many; `sample` them as the source was
            where the data module sampled it (`max_frames`), at the widest even stride.
    """

    def __init__(
        self,
        folder: Path,
        resize: Literal["stretch", "cover"] = "stretch",
        longer: Literal["first", "sample"] = "first",
    ) -> None:
        super().__init__()
        self.folder, self.resize, self.longer = folder, resize, longer
        self._quarantine: Quarantine | None = None

    def setup(self, stage: str) -> None:
        """Refuse a folder that is none.

        Raises:
            InputError: There is no such folder.
        """
        if not self.folder.is_dir():
            beside = [path.name for path in self.folder.parent.glob("*/")]
            raise InputError(f"there is no folder {str(self.folder)!r} of edits{nearest(self.folder.name, beside)}")

    def on_test_start(self) -> None:
        """Begin a new list of what is bad."""
        path = Path(self.trainer.default_root_dir) / f"quarantine-rank{self.global_rank}.jsonl"
        path.unlink(missing_ok=True)
        self._quarantine = Quarantine(path, max_rate=1.0)  # all are tried: what is missing is a finding of its own

    def test_step(self, batch: EditBatch, batch_idx: int) -> EditedVideos:  # type: ignore[override]
        """The edits of a batch, and its sources and targets cut to what they are to be compared with.

        Raises:
            InputError: The edits of a batch differ in length, or after `cover` in size; or it has no source clips.
        """
        assert self._quarantine is not None
        if batch.source is None:
            raise InputError(f"sample {batch.keys[0]!r} comes from cached latents; scores need shards of videos")
        limit, size = batch.source.shape[1], (batch.source.shape[3], batch.source.shape[4])
        found: dict[str, Clip] = {}
        for key in batch.keys:
            try:
                clip = self._read(key, limit)
                found[key] = fit_clip(clip, size, "stretch") if self.resize == "stretch" else clip
            except InputError as error:
                self._quarantine.add(key, str(error))
            else:
                self._quarantine.accept()
        missing = frozenset(batch.keys) - found.keys()
        if not found:
            return EditedVideos(batch.source, missing=missing)
        first, *others = found
        shape = found[first].frames.shape
        for key in others:
            if found[key].frames.shape != shape:
                raise InputError(
                    f"the edits {first!r} and {key!r} cannot share a batch: {shape} against {found[key].frames.shape} "
                    "(F 3 H W); set --data.batch_size 1"
                )
        nothing = np.zeros(shape, np.uint8)
        clips = [found[key].frames if key in found else nothing for key in batch.keys]
        edited = torch.from_numpy(np.stack(clips)).to(self.device)
        source, target = (
            None if whole is None else _cut(whole, len(nothing), (shape[2], shape[3]))
            for whole in (batch.source, batch.edited)
        )
        return EditedVideos(edited, source, target, missing)

    def on_test_end(self) -> None:
        """Say what is missing."""
        assert self._quarantine is not None
        if self._quarantine.path.exists():
            rank_zero_info(f"edits are missing or cannot be read; {self._quarantine.path} has their keys and reasons")

    def _read(self, key: str, limit: int) -> Clip:
        if self.longer == "first":
            return read_clip(self._find(key), max_frames=limit)
        clip = read_clip(self._find(key))
        return sample_frames(clip, limit) if len(clip) > limit else clip

    def _find(self, key: str) -> Path:
        paths = [self.folder / f"{key}{suffix}" for suffix in (".mp4", *sorted(VIDEO_SUFFIXES - {".mp4"}))]
        found = next((path for path in paths if path.is_file()), None)
        if found is None:
            raise InputError(f"there is no {paths[0]}")
        return found


def _cut(clips: Tensor, frames: int, size: tuple[int, int]) -> Tensor:
    """The first frames of B F 3 H W, scaled until they cover a size and cut to it."""
    if tuple(clips.shape[3:]) == size:
        return clips[:, :frames]
    fitted = [fit_clip(Clip(clip[:frames].cpu().numpy(), 1.0), size, "cover").frames for clip in clips]
    return torch.from_numpy(np.stack(fitted)).to(clips.device)
