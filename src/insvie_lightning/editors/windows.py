"""Editing clips of any length and size with an editor of fixed ones: n frames in, n frames out."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from insvie_lightning.batch import Clip, EditBatch
from insvie_lightning.nets.latents import to_uint8
from insvie_lightning.video import fit_clip, legal_frames, pad_frames


def edit_in_windows(
    edit_batch: Callable[[EditBatch], Tensor],
    clip: Clip,
    instruction: str,
    size: tuple[int, int],
    max_frames: int,
    device: torch.device,
) -> Clip:
    """Edit a clip window by window, at its own size and rate.

    Args:
        edit_batch: Edits a batch of sources B F 3 H W (uint8); gives B F 3 H W in [-1, 1].
        clip: Any length and size.
        instruction: What to change.
        size: Height and width that the network works at; the clip is stretched to it and back.
        max_frames: Longer clips are cut into consecutive windows of even length, each padded to 1 + 4k frames by its
            last frame and cut again after.
        device: Where the editor is.
    """
    length = math.ceil(len(clip) / math.ceil(len(clip) / max_frames))
    pieces = []
    for start in range(0, len(clip), length):
        window = Clip(clip.frames[start : start + length], clip.fps)
        fitted = pad_frames(fit_clip(window, size, "stretch"), legal_frames(len(window)))
        pixels = torch.from_numpy(fitted.frames)[None].to(device)
        edited = edit_batch(EditBatch((f"{instruction}/{start}",), (instruction,), source=pixels))
        result = Clip(to_uint8(edited[0]).cpu().numpy()[: len(window)], clip.fps)
        pieces.append(fit_clip(result, clip.size, "stretch").frames)
    return Clip(np.concatenate(pieces), clip.fps)
