"""From the frames of a clip to what a CLIP looks at: as published tables have it, fast, or as UltraEdit does."""

from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from insvie_lightning.errors import InputError, nearest

Preprocessing = Literal["pil", "tensor", "squash"]
"""How frames become pixels of a CLIP.

`pil`: shorter side to the network's size (bicubic, antialiased, rounded to uint8), then its middle; bit for bit what
OpenAI's transform gives and published tables have. `tensor`: the same by torchvision, on the clip's device; at most one
level of 255 away. `squash`: straight to the network's size (bicubic, without antialiasing or rounding; the aspect is
lost), as UltraEdit's `ClipSimilarity` does.
"""
TGVE_SIDE = 480
"""Side of the squares to which TGVE's `run_eval.py` resizes every frame first."""


def clip_pixels(clip: Tensor, processor: Any, size: tuple[int, int], preprocessing: Preprocessing = "pil") -> Tensor:
    """Frames F 3 H W, uint8 -> normalised float32 F 3 h w, on the clip's device.

    Args:
        clip: The frames.
        processor: transformers' `CLIPImageProcessorPil` with the network's settings.
        size: Height and width that the network takes; only `squash` needs to be told.
        preprocessing: See `Preprocessing`.

    Raises:
        InputError: There is no such preprocessing.
    """
    if preprocessing not in get_args(Preprocessing):
        legal = get_args(Preprocessing)
        raise InputError(
            f"no preprocessing {preprocessing!r}: legal are {', '.join(legal)}{nearest(preprocessing, legal)}"
        )
    if preprocessing == "squash":
        pixels = F.interpolate(clip.float() / 255, size=size, mode="bicubic", align_corners=False)
        mean, std = (
            torch.tensor(v, device=clip.device)[:, None, None] for v in (processor.image_mean, processor.image_std)
        )
        return (pixels - mean) / std
    if preprocessing == "pil":
        frames = list(clip.cpu().numpy())
        return processor(frames, input_data_format="channels_first", return_tensors="pt").pixel_values.to(clip.device)
    from transformers import CLIPImageProcessor

    fast = CLIPImageProcessor.from_dict(processor.to_dict())
    return fast(clip, input_data_format="channels_first", return_tensors="pt").pixel_values


def to_tgve_square(clip: Tensor) -> Tensor:
    """Frames F 3 H W, uint8 -> F 3 480 480, uint8, by Pillow's bicubic as TGVE's `run_eval.py` does; squares stay."""
    if clip.shape[2:] == (TGVE_SIDE, TGVE_SIDE):
        return clip
    images = (Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in clip.cpu())
    squares = [np.asarray(image.resize((TGVE_SIDE, TGVE_SIDE), Image.Resampling.BICUBIC)) for image in images]
    return torch.from_numpy(np.stack(squares)).movedim(-1, 1).to(clip.device)
